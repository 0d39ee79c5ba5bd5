"""Trains in child processes, kills each at a moment drawn by chance, and goes on from what it left.

    python -m tests.training.killed_training FOLDER KILLS

The children are forked from a process that has imported everything and computed nothing.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from tests.models.tiny import square_config
from unigendet.config import OptimConfig
from unigendet.data.loader import MixedBatches
from unigendet.data.shards import ShardDataset
from unigendet.data.tokenizer import Tokenizer
from unigendet.models.unified import UniGenDetModel
from unigendet.objectives import GdufObjective
from unigendet.training.loop import train
from unigendet.types import PackedBatch

CONFIG = OptimConfig(steps=40, lr=1e-3, log_every=10, checkpoint_every=3)


class MeanLatents:
    """In the autoencoder's place: latents that are the images, made small."""

    def encode(self, pixels: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        assert noise is not None
        small = torch.nn.functional.avg_pool2d(pixels, 4)
        return torch.cat([small, small.mean(1, keepdim=True)], dim=1)


def train_once(data: Path, folder: Path) -> None:
    """Train from the newest checkpoint on; `read.txt` gets a line for every step's samples."""
    torch.set_num_threads(1)
    tokenizer = Tokenizer.load(data)
    config = square_config(len(tokenizer))
    batches = MixedBatches(
        [ShardDataset(data, "real", verify=False)],
        [ShardDataset(data, "fake", verify=False)],
        generation_per_step=2,
        detection_per_step=4,
        tokenizer=tokenizer,
        config=config,
        seed=1,
    )

    def logged(step: int) -> PackedBatch:
        keys = [sample.key for part in batches.samples(step) for sample in part]
        with (folder / "read.txt").open("a") as file:
            file.write(f"{step} {' '.join(keys)}\n")
        return batches.batch(step)

    torch.manual_seed(0)
    model = UniGenDetModel(config)
    objective = GdufObjective(MeanLatents())
    train(model, objective, logged, CONFIG, checkpoint_dir=folder / "checkpoints")
    torch.save(model.state_dict(), folder / "weights.pt")


def main(data: Path, folder: Path, kills: int) -> None:
    """Kill `kills` children, then let one come to the end."""
    chance = random.Random(kills)
    for left in range(kills, -1, -1):
        child = os.fork()
        if child == 0:
            train_once(data, folder)
            os._exit(0)
        if left:
            _wait_for_steps(folder, chance.randint(1, 6), child)
            time.sleep(chance.uniform(0, 0.05))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if left and os.WIFEXITED(status):
            raise SystemExit("the training ended before it was killed")
        if not left and status:
            raise SystemExit("the last training failed")


def _wait_for_steps(folder: Path, steps: int, child: int) -> None:
    lines = _lines(folder)
    while _lines(folder) < lines + steps:
        if os.waitpid(child, os.WNOHANG) != (0, 0):
            raise SystemExit("the training ended before it was killed")
        time.sleep(0.005)


def _lines(folder: Path) -> int:
    path = folder / "read.txt"
    return len(path.read_text().splitlines()) if path.exists() else 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
