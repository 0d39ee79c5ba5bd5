"""What one of two ranks does in the tests of weights that few samples touch.

Toy models: neither their size nor their kind matters here.
"""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from tests.training.toy import ToyLosses
from unigendet import parallel
from unigendet.config import OptimConfig
from unigendet.training.loop import train


def partly_touched() -> dict[str, float]:
    """Weights after three steps: all samples touch `shared`, half of them `some`."""
    model = nn.ParameterDict({name: torch.ones(1) for name in ("shared", "some", "unused")})

    def objective(weights: nn.Module, samples: Tensor) -> ToyLosses:
        assert isinstance(weights, nn.ParameterDict)
        errors = [
            weights["shared"] - x + (weights["some"] * x if x > 0 else 0.0) for x in samples
        ]
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
    (folder / f"found{rank}.json").write_text(json.dumps(found))
    distributed.barrier()  # the rank that holds the store ends last
    distributed.destroy_process_group()
