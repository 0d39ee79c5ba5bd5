"""Phases in one session: done once, resumed where they stood, one history without doubles."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.training.toy import toy_batch, toy_model, toy_objective
from unigendet import parallel
from unigendet.config import OptimConfig
from unigendet.training.session import Progress, TrainingSession

CONFIG = OptimConfig(steps=6, lr=0.01, log_every=2, checkpoint_every=3)


class Killed(Exception):
    pass


def run(session: TrainingSession, die_at: int = -1) -> None:
    """Two phases, the second from the result of the first; dies at a step of the second."""

    def batches(step: int) -> Tensor:
        if step == die_at:
            raise Killed
        return toy_batch(step)

    def first(folder: Path) -> None:
        model = toy_model()
        session.train("first", model, toy_objective, toy_batch, CONFIG)
        save_file(model.state_dict(), folder / "weights.safetensors")

    def second(folder: Path) -> None:
        model: nn.Module = toy_model()
        model.load_state_dict(load_file(session.folder / "kept" / "first" / "weights.safetensors"))
        session.train("second", model, toy_objective, batches, CONFIG)
        save_file(model.state_dict(), folder / "weights.safetensors")

    session.once("first", first)
    session.once("second", second)


def history(folder: Path) -> list[tuple[str, int, float]]:
    lines = (folder / "history.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [(row["phase"], row["step"], row["fit_loss"]) for row in rows]


def test_a_session_goes_on_where_its_last_copy_stood(tmp_path: Path) -> None:
    run(TrainingSession(tmp_path / "whole", say=lambda _: None))

    # What Ray Train does: after each checkpoint the folder is copied away; a restart gets the copy.
    broken, copy, said = tmp_path / "broken", tmp_path / "copy", list[str]()

    def copy_away(progress: Progress) -> None:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(broken, copy)

    with pytest.raises(Killed):
        run(TrainingSession(broken, on_progress=copy_away, say=lambda _: None), die_at=5)
    again = TrainingSession(copy, say=said.append)
    run(again)
    assert "first: done before, kept" in said
    assert "second: resumed from step 3 of 6" in said
    whole = load_file(tmp_path / "whole" / "kept" / "second" / "weights.safetensors")
    resumed = load_file(copy / "kept" / "second" / "weights.safetensors")
    assert all(whole[name].equal(resumed[name]) for name in whole)
    assert history(copy) == history(tmp_path / "whole")


def test_rows_that_an_interruption_undid_are_written_once(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(TrainingSession(tmp_path, say=lambda _: None), die_at=5)  # logged 4, checkpointed 3
    assert ("second", 4) in [row[:2] for row in history(tmp_path)]
    run(TrainingSession(tmp_path, say=lambda _: None))
    expected = [(phase, step) for phase in ("first", "second") for step in (2, 4, 6)]
    assert [row[:2] for row in history(tmp_path)] == expected


def test_a_finished_phase_leaves_its_result_and_no_checkpoint(tmp_path: Path) -> None:
    seen = list[Progress]()
    run(TrainingSession(tmp_path, on_progress=seen.append, say=lambda _: None))
    assert not (tmp_path / "loop").exists()
    assert seen == [
        Progress("first", 3),
        Progress("first", 6),
        Progress("first", 0),
        Progress("second", 3),
        Progress("second", 6),
        Progress("second", 0),
    ]


def test_a_result_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    session = TrainingSession(tmp_path, say=lambda _: None)

    def half(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise Killed

    with pytest.raises(Killed):
        session.once("result", half)
    assert not (tmp_path / "kept" / "result").exists()
    kept = session.once("result", lambda folder: None)
    assert list(kept.iterdir()) == []


def test_what_one_rank_lacks_is_done_again_by_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With folders of their own, another rank may have been stopped before this one."""
    session = TrainingSession(tmp_path, say=lambda _: None)
    run(session)
    rows = history(tmp_path)
    weights = tmp_path / "kept" / "second" / "weights.safetensors"
    before = load_file(weights)
    shutil.rmtree(tmp_path / "kept" / "first")
    monkeypatch.setattr(parallel, "least", lambda value, device="cpu": 0)
    run(session)
    assert history(tmp_path) == rows
    after = load_file(weights)
    assert all(after[name].equal(value) for name, value in before.items())


def test_a_row_cut_short_by_a_kill_is_written_again(tmp_path: Path) -> None:
    run(TrainingSession(tmp_path / "whole", say=lambda _: None))
    with pytest.raises(Killed):
        run(TrainingSession(tmp_path / "cut", say=lambda _: None), die_at=5)
    with (tmp_path / "cut" / "history.jsonl").open("a") as file:
        file.write('{"phase": "second", "ste')

    run(TrainingSession(tmp_path / "cut", say=lambda _: None))

    assert history(tmp_path / "cut") == history(tmp_path / "whole")


def test_history_goes_on_from_the_step_that_every_rank_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This rank has step 3, another one none: rows of both of the steps before are made again."""
    session = TrainingSession(tmp_path, say=lambda _: None)

    def start(die_at: int) -> None:
        def batches(step: int) -> Tensor:
            if step == die_at:
                raise Killed
            return toy_batch(step)

        session.train("phase", toy_model(), toy_objective, batches, CONFIG)

    with pytest.raises(Killed):
        start(5)
    assert [row[1] for row in history(tmp_path)] == [2, 4]
    monkeypatch.setattr(parallel, "least", lambda value, device="cpu": 0)
    with pytest.raises(Killed):
        start(3)
    assert [row[1] for row in history(tmp_path)] == [2]
