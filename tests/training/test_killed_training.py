"""Training killed ten times by chance reads, and learns, what an undisturbed run does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.killed_training import CONFIG
from unigendet.data.prompts import prompt_corpus
from unigendet.data.shards import ShardWriter
from unigendet.data.tokenizer import train_tokenizer
from unigendet.types import Sample

ROOT = Path(__file__).parents[2]
KILLS = 10


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for name, count in (("real", 11), ("fake", 7)):
        with ShardWriter(folder, name) as writer:
            for number in range(count):
                image = np.random.default_rng([number, count]).integers(0, 256, (32, 32, 3))
                writer.write(
                    Sample(
                        key=f"{name}-{number:02d}",
                        image=image.astype(np.uint8),
                        source_id=f"{name}/{number}",
                        split="train",
                        domain="test",
                        caption="sand",
                        fake=name == "fake",
                        generator="gan" if name == "fake" else "real",
                    )
                )
    train_tokenizer(prompt_corpus(), 300).save(folder)
    return folder


def trained(data: Path, folder: Path, kills: int) -> tuple[dict[int, str], dict[str, torch.Tensor]]:
    """Keys by step, as the run that counts read them, and the weights."""
    folder.mkdir()
    subprocess.run(
        [sys.executable, "-m", "tests.training.killed_training", data, folder, str(kills)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        timeout=240,
    )
    lines = [line.split(" ", 1) for line in (folder / "read.txt").read_text().splitlines()]
    read: dict[int, str] = {}
    for step, keys in lines:
        # A step that was read again after a kill has to be the same.
        assert read.setdefault(int(step), keys) == keys
    if kills:
        assert len(lines) > CONFIG.steps
    return read, torch.load(folder / "weights.pt", weights_only=True)


@pytest.mark.slow
def test_ten_kills_change_neither_what_is_read_nor_what_is_learnt(
    data: Path, tmp_path: Path
) -> None:
    whole, weights = trained(data, tmp_path / "whole", 0)
    killed, found = trained(data, tmp_path / "killed", KILLS)
    assert list(whole) == list(range(CONFIG.steps))
    assert killed == whole
    for name, value in weights.items():
        assert torch.equal(found[name], value), name
