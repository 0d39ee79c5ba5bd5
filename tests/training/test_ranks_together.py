"""Two ranks end a step as one process would, and fail together where one of them cannot write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import multiprocessing

from tests.training.toy_ranks import FAULTS, finish, partly_touched, rank_main


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


@pytest.mark.parametrize("fault", FAULTS)
def test_all_ranks_stop_where_the_disk_of_one_is_full(pair: Path, fault: str) -> None:
    own, others = (found(pair, rank)["errors"][fault] for rank in (0, 1))
    assert "No space left on device" in own
    assert "No space left on device" in others
    assert "rank 0 failed" in others or fault == "tensors"  # where torch itself tells all ranks

    phase = pair / fault / "loop" / "phase"
    left = {path.name: {file.name for file in path.iterdir()} for path in phase.glob("*")}
    if fault == "history":
        assert left == {}
    else:
        whole = left.pop("step-00000002" if fault == "result" else "step-00000001")
        assert "state.json" in whole and len(whole) > 1
        # Another rank may have given the next one its name: then it is whole.
        assert not left or left == {"step-00000002": whole}
    assert not (pair / fault / "kept" / "result").exists()
    assert finish(pair / fault).is_dir()
