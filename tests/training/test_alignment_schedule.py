"""The weight of the alignment loss over a phase: its values, and that a resumed run goes on so."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models.tiny import NoiseLatents, tiny_alignment, tiny_config, tiny_model
from unigendet.config import AlignmentSchedule, LossWeights, OptimConfig
from unigendet.models.unified import UniGenDetModel
from unigendet.objectives import DigaObjective
from unigendet.teachers.detector import DetectorTeacher
from unigendet.training.loop import LogRow, train
from unigendet.types import AlignmentBatch


def test_values() -> None:
    def values(**how: Any) -> list[float]:
        schedule = AlignmentSchedule(4, **how)
        return [schedule.at(step) for step in range(4)]

    assert values() == [1, 1, 1, 1]
    assert values(until=0.5) == [1, 1, 0, 0]
    assert values(kind="linear") == [1, 0.75, 0.5, 0.25]
    assert values(kind="linear", until=0.5) == [1, 0.5, 0, 0]
    assert values(kind="cosine") == pytest.approx([1, 0.5 + 0.125**0.5, 0.5, 0.5 - 0.125**0.5])
    assert AlignmentSchedule(4, "linear").at(4) == AlignmentSchedule(4, "cosine").at(9) == 0
    # 0.1 * 30 is a little above 3 to a computer: three steps all the same.
    assert [AlignmentSchedule(30, until=0.1).at(step) for step in (2, 3)] == [1, 0]


@pytest.mark.parametrize(
    ("how", "said"),
    [({"until": 0.0}, "0, 1"), ({"until": 1.5}, "0, 1"), ({"kind": "until"}, "'until'")],
)
def test_bad_values_are_errors(how: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        AlignmentSchedule(4, **how)


def batch(step: int) -> AlignmentBatch:
    return replace(tiny_alignment(), step=step)


def run(folder: Path, stop_after: int | None = None) -> tuple[UniGenDetModel, list[LogRow]]:
    class Stopped(Exception):
        pass

    def log(row: LogRow) -> None:
        rows.append(row)

    def checkpointed(path: Path, state: Any) -> None:
        if state.step == stop_after:
            raise Stopped

    rows = list[LogRow]()
    student = tiny_model(tiny_config(alignment_head=True))
    objective = DigaObjective(
        NoiseLatents(),
        DetectorTeacher(tiny_model(seed=1), NoiseLatents(), "last_input"),
        LossWeights(align=0.8),
        tap_layer=1,
        schedule=AlignmentSchedule(8, "linear", until=0.5),
    )
    config = OptimConfig(steps=8, lr=1e-3, log_every=1, checkpoint_every=2)
    with contextlib.suppress(Stopped):
        train(
            student,
            objective,
            batch,
            config,
            checkpoint_dir=folder,
            on_log=log,
            on_checkpoint=checkpointed,
        )
    return student, rows


def test_the_weight_in_force_is_logged_is_in_the_total_and_a_resumed_run_has_it(
    tmp_path: Path,
) -> None:
    whole, rows = run(tmp_path / "whole")
    weights = [row.terms["align_weight"] for row in rows]
    assert weights == pytest.approx([0.8, 0.6, 0.4, 0.2, 0, 0, 0, 0])
    for row, weight in zip(rows, weights, strict=True):
        expected = row.terms["flow_loss"] + weight * row.terms["align_loss"]
        assert row.terms["total"] == pytest.approx(expected, rel=1e-5)
        assert row.terms["align_loss"] > 0  # measured also where it counts no more
    _, before = run(tmp_path / "cut", stop_after=2)
    resumed, after = run(tmp_path / "cut")
    assert [row.terms for row in (*before, *after)] == [row.terms for row in rows]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
