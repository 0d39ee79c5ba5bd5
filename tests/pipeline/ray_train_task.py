"""What the Ray Train tests run in the worker: two phases, with accidents on demand."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from tests.training.toy import toy_batch, toy_model, toy_objective
from unigendet.config import OptimConfig
from unigendet.training.session import TrainingSession

CONFIG = OptimConfig(steps=20, lr=0.01, log_every=4, checkpoint_every=5)


@dataclass(frozen=True, slots=True)
class Job:
    home: Path
    accident: str
    """`runs`, `worker dies` (once), `waits` (at step 13 of the second phase) or `wrong input`."""


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
