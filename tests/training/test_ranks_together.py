"""Two ranks end a step as one process would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import multiprocessing

from tests.training.toy_ranks import partly_touched, rank_main


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two ranks left what they found."""
    folder = tmp_path_factory.mktemp("pair")
    multiprocessing.spawn(rank_main, args=(folder,), nprocs=2)
    return folder


def found(pair: Path, rank: int) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((pair / f"found{rank}.json").read_text())
    return content


def test_a_weight_that_no_rank_touched_does_not_decay(pair: Path) -> None:
    expected = partly_touched()
    assert expected["unused"] == 1.0 != expected["some"]
    for rank in (0, 1):
        assert found(pair, rank)["partly"] == pytest.approx(expected, rel=1e-6)
