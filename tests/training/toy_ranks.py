"""What one of two ranks does in the tests of disks that fail and of weights that few samples touch.

Toy models: neither their size nor their kind matters here.
"""

from __future__ import annotations

import errno
import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn

from tests.training.toy import ToyLosses, toy_batch, toy_model, toy_objective
from unigendet import parallel
from unigendet.config import OptimConfig
from unigendet.training.loop import train
from unigendet.training.session import TrainingSession

CONFIG = OptimConfig(steps=2, lr=0.01, log_every=1, checkpoint_every=1)

FAULTS = {
    "temporary folder": (Path, "mkdir", ".step-00000002"),
    "tensors": (Path, "open", ".step-00000002/shard-"),
    "state": (Path, "open", ".step-00000002/state.json"),
    "name": (Path, "rename", ".step-00000002"),
    "older checkpoint": (shutil, "rmtree", "phase/step-00000001"),
    "history": (Path, "open", "history.jsonl"),
    "result": (Path, "rename", ".result.making"),
}
"""What cannot be written: the call that fails, and a part of the path that it fails for."""


def partly_touched() -> dict[str, float]:
    """Weights after three steps: all samples touch `shared`, half of them `some`."""
    model = nn.ParameterDict({name: torch.ones(1) for name in ("shared", "some", "unused")})

    def objective(weights: nn.Module, samples: Tensor) -> ToyLosses:
        assert isinstance(weights, nn.ParameterDict)
        errors = [weights["shared"] - x + (weights["some"] * x if x > 0 else 0.0) for x in samples]
        loss = torch.stack(errors).square().mean()
        return ToyLosses(loss, loss.new_zeros(()))

    def batches(step: int) -> Tensor:
        samples = torch.tensor([step + 1.0, -0.5 * step])
        return samples if parallel.world() == 1 else samples[parallel.rank(), None]

    config = OptimConfig(steps=3, lr=0.1, weight_decay=0.1, clip_norm=1e6)
    train(model, objective, batches, config)
    return {name: float(weight.detach()) for name, weight in model.items()}


def rank_main(rank: int, folder: Path) -> None:
    """Leaves what it found in `folder`. A rank that waits in vain fails after two minutes."""
    torch.set_num_threads(1)
    store, patience = f"file://{folder}/store", timedelta(minutes=2)
    distributed.init_process_group(
        "gloo", init_method=store, rank=rank, world_size=2, timeout=patience
    )
    found: dict[str, Any] = {"partly": partly_touched()}
    found["errors"] = {name: _stopped(folder / name, name) for name in FAULTS}
    (folder / f"found{rank}.json").write_text(json.dumps(found))
    distributed.barrier()  # the rank that holds the store ends last
    distributed.destroy_process_group()


def finish(folder: Path) -> Path:
    """A session of one result, made in a phase of two steps."""
    session = TrainingSession(folder, say=lambda _: None)

    def produce(_: Path) -> None:
        session.train("phase", toy_model(), toy_objective, toy_batch, CONFIG)

    return session.once("result", produce)


def _stopped(folder: Path, fault: str) -> str:
    """The error that ends this rank's session where the disk of rank 0 is full."""
    with pytest.MonkeyPatch.context() as patch:
        if parallel.rank() == 0:
            _fill_disk(patch, *FAULTS[fault])
        try:
            finish(folder)
        except OSError as error:
            return str(error)
    return ""


def _fill_disk(patch: pytest.MonkeyPatch, owner: Any, call: str, where: str) -> None:
    real = getattr(owner, call)

    def full(path: Path, *args: Any, **kwargs: Any) -> Any:
        if where in str(path) and not kwargs.get("ignore_errors"):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return real(path, *args, **kwargs)

    patch.setattr(owner, call, full)
