"""One of two ranks that train the toy model on half of every batch; started as its own process."""

from __future__ import annotations

import torch
from torch import Tensor, distributed

from tests.training.toy import toy_batch, toy_model, toy_objective
from unigendet.config import OptimConfig
from unigendet.training.loop import train

CONFIG = OptimConfig(steps=4, lr=0.01, clip_norm=0.05, trainable=(r"0\..*", r"2\.weight"))


def rank_main(rank: int, folder: str) -> None:
    """Train, and save the weights as `folder/rankN.pt`."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )

    def half(step: int) -> Tensor:
        return toy_batch(step)[4 * rank : 4 * rank + 4]

    model = toy_model()
    train(model, toy_objective, half, CONFIG)
    torch.save(model.state_dict(), f"{folder}/rank{rank}.pt")
    distributed.destroy_process_group()
