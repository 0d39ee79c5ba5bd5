"""Two ranks that share a batch learn what one rank learns from all of it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import multiprocessing

from tests.training.rank_process import CONFIG, rank_main
from tests.training.toy import toy_batch, toy_model, toy_objective
from unigendet.training.loop import train


def test_two_ranks_with_half_a_batch_each_equal_one(tmp_path: Path) -> None:
    multiprocessing.spawn(rank_main, args=(str(tmp_path),), nprocs=2)
    whole = toy_model()
    train(whole, toy_objective, toy_batch, CONFIG)
    first = torch.load(tmp_path / "rank0.pt", weights_only=True)
    second = torch.load(tmp_path / "rank1.pt", weights_only=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], value, atol=1e-6, rtol=1e-5)
    assert not torch.equal(first["0.weight"], toy_model().state_dict()["0.weight"])
