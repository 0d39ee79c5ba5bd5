"""What the Ray Train tests run in the workers: phases, with accidents on demand."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from tests.training.rank_process import gduf, gduf_batch
from tests.training.toy import toy_batch, toy_model, toy_objective
from unigendet.config import OptimConfig
from unigendet.training.session import TrainingSession
from unigendet.types import PackedBatch

CONFIG = OptimConfig(steps=20, lr=0.01, log_every=4, checkpoint_every=5)


@dataclass(frozen=True, slots=True)
class Job:
    home: Path
    accident: str
    """`runs`, `worker dies` (once), `waits` (at step 13 of the last phase) or `wrong input`."""


def task(session: TrainingSession, job: Job) -> None:
    print("the task ran", flush=True)
    if job.accident == "wrong input":
        raise ValueError("this input is wrong")

    def batches(step: int) -> Tensor:
        if step == 13 and job.accident == "worker dies" and not (job.home / "died").exists():
            # The newest checkpoint, of step 10, may not have been registered yet.
            time.sleep(2)
            (job.home / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if step == 13 and job.accident == "waits":
            time.sleep(2)
            (job.home / "halfway").touch()
            time.sleep(600)
        return toy_batch(step)

    def phase(name: str, folder: Path) -> None:
        model = toy_model()
        session.train(
            name, model, toy_objective, batches if name == "second" else toy_batch, CONFIG
        )
        save_file(model.state_dict(), folder / "weights.safetensors")

    session.once("first", lambda folder: phase("first", folder))
    session.once("second", lambda folder: phase("second", folder))


def shared_task(session: TrainingSession, job: Job) -> None:
    """One phase, of a model that several workers share, from the model folder `home/model`."""

    def batches(step: int) -> PackedBatch:
        dies = step == 13 and session.rank == 1 and job.accident == "worker dies"
        if dies and not (job.home / "died").exists():
            time.sleep(2)
            (job.home / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return gduf_batch(step)

    def produce(folder: Path) -> None:
        loaded = session.load(job.home / "model", CONFIG)
        trained = session.train("shared", loaded.model, gduf(), batches, CONFIG)
        trained.ema.copy_to_model()
        session.save(folder / "model", loaded.model, loaded.vae, loaded.tokenizer)

    session.once("result", produce)
