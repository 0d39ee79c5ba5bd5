"""Who is stopped and who is spared, what Optuna is told, and what outlives an interruption."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.params import load_params
from pipeline.sections.sweep import SweepSection
from pipeline.sweep.run import read_trial, threads_per_trial
from pipeline.sweep.search import announcer, halving, proposals
from pipeline.sweep.space import first_guess, search_space

ROOT = Path(__file__).parents[2]
WEIGHTS = {"flow_weight": 1.0, "det_weight": 0.6, "text_weight": 0.5, "align_weight": 0.2}


@pytest.fixture
def section() -> SweepSection:
    small = load_params(ROOT / "profiles" / "smoke.yaml").sweep
    steps = {"gduf_steps": 4, "diga_steps": 4, "grace_steps": 2}
    return small.model_copy(update={"trials": 3, "repeats": 2, "concurrent": 2, **steps})


def running(number: int, repeat: int = 0) -> Any:
    return SimpleNamespace(trial_id=f"t{number}", config={"number": number, "repeat": repeat})


def report(steps: int, progress: float | None, auroc: float | None = None) -> dict[str, Any]:
    return {"steps": steps, "progress": progress, "auroc": auroc, "distance": auroc}


def test_what_falls_behind_is_stopped_but_neither_the_first_guess_nor_a_repeat(
    section: SweepSection, tmp_path: Path
) -> None:
    notes = tmp_path / "asha.jsonl"
    notes.touch()
    asha = halving(section, notes)
    trials = [running(0), running(1), running(2), running(3, repeat=1)]
    for one in trials:
        asha.on_trial_add(None, one)
    said = [
        asha.on_trial_result(None, trials[1], report(2, 0.5)),
        asha.on_trial_result(None, trials[0], report(2, 0.9)),
        asha.on_trial_result(None, trials[2], report(2, 0.8)),
        asha.on_trial_result(None, trials[3], report(2, 9.0)),
        asha.on_trial_result(None, trials[1], report(8, 0.9, 0.7)),
    ]
    assert said == ["CONTINUE", "CONTINUE", "STOP", "CONTINUE", "CONTINUE"]
    assert [json.loads(line) for line in notes.read_text().splitlines()] == [
        ["t1", 2, 0.5, "CONTINUE"],
        ["t0", 2, 0.9, "CONTINUE"],
        ["t2", 2, 0.8, "STOP"],
    ]


def test_asha_remembers_across_an_interruption(section: SweepSection, tmp_path: Path) -> None:
    notes = tmp_path / "asha.jsonl"
    notes.write_text('["t0", 2, 0.5, "CONTINUE"]\n["t1", 2, 0.9, "STOP"]\n')
    asha = halving(section, notes)
    back, new = running(1), running(2)
    for one in (back, new):
        asha.on_trial_add(None, one)
    # As it was decided, though trial 1 is back and reports something else.
    assert asha.on_trial_result(None, back, report(2, 0.1)) == "STOP"
    assert asha.on_trial_result(None, new, report(2, 0.85)) == "STOP"
    assert len(notes.read_text().splitlines()) == 3


def test_a_note_cut_short_by_a_kill_is_dropped(section: SweepSection, tmp_path: Path) -> None:
    notes = tmp_path / "asha.jsonl"
    notes.write_text('["t0", 2, 0.5, "CONTINUE"]\n["t1", 2, 0.')
    asha, back = halving(section, notes), running(1)
    asha.on_trial_add(None, back)
    assert asha.on_trial_result(None, back, report(2, 0.9)) == "STOP"
    assert [json.loads(line)[0] for line in notes.read_text().splitlines()] == ["t0", "t1"]


def searcher(section: SweepSection) -> Any:
    search = proposals(section, seed=3)
    search.set_search_properties(None, None, search_space(section))
    return search


def test_proposals_are_the_guess_then_optunas_then_the_guess_again(section: SweepSection) -> None:
    search, given = searcher(section), []
    for number in range(5):
        given.append(search.suggest(f"t{number}"))
        search.on_trial_complete(f"t{number}", report(8, 0.5, 0.9))
    guess = first_guess(section)
    assert given[0] == {**guess, "number": 0, "repeat": 0}
    assert all(
        one["repeat"] == 0 and one["flow_weight"] != guess["flow_weight"] for one in given[1:3]
    )
    assert given[3:] == [{**guess, "number": n, "repeat": n - 2} for n in (3, 4)]
    assert [trial.values for trial in search._ot_study.trials] == [[0.9, 0.9]] * 3


def test_a_stopped_trial_is_pruned_for_optuna_and_a_failed_one_failed(
    section: SweepSection,
) -> None:
    search = searcher(section)
    for trial_id in ("t0", "t1"):
        search.suggest(trial_id)
    assert search.suggest("t2") is None, "two at a time"
    search.on_trial_complete("t0", report(2, 0.5))
    search.on_trial_complete("t1", error=True)
    assert [trial.state.name for trial in search._ot_study.trials] == ["PRUNED", "FAIL"]
    assert search.suggest("t2")["number"] == 2


def test_a_restored_searcher_goes_on_counting(section: SweepSection, tmp_path: Path) -> None:
    first = searcher(section)
    for trial_id in ("t0", "t1"):
        first.suggest(trial_id)
    first.save(str(tmp_path / "state"))
    again = searcher(section)
    again.restore(str(tmp_path / "state"))
    assert again.suggest("t2") is None
    again.on_trial_complete("t1", report(8, 0.5, 0.9))
    assert again.suggest("t2")["number"] == 2
    assert pickle.loads((tmp_path / "state").read_bytes())["_given"] == 2


def test_a_line_for_each_ended_trial_tells_how_many_are_over_and_the_time_left(
    section: SweepSection, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr("pipeline.sweep.search.time.time", lambda: now[0])
    trials = [running(0), running(1), running(2), running(3, repeat=1)]
    for one in trials:
        one.status, one.last_result = "RUNNING", report(2, 0.5)
    trials[0].status = "TERMINATED"  # before an interruption
    lines = announcer(section)
    lines.on_trial_start()
    now[0] = 110.0
    lines.on_trial_complete(trials=trials, trial=trials[1])
    trials[1].status = trials[2].status = "ERROR"
    lines.on_trial_error(trials=trials, trial=trials[2])
    trials[3].last_result = report(8, 0.5, 0.9)
    lines.on_trial_complete(trials=trials, trial=trials[3])
    assert capsys.readouterr().out.splitlines() == [
        "[sweep] trial 1 stopped early at step 2, 2 of 5 over, 0:30 left",
        "[sweep] trial 2 failed, 3 of 5 over, 0:10 left",
        "[sweep] trial 3 (repeat 1 of trial 0) done: AUROC 0.9000, distance 0.9000, "
        "4 of 5 over, 0:03 left",
    ]


def result(error: Exception | None = None, **metrics: Any) -> Any:
    config = {**WEIGHTS, "tap_layer": 1, "number": 4, "repeat": 0}
    return SimpleNamespace(config=config, metrics=metrics, error=error)


def test_results_are_finished_stopped_or_failed() -> None:
    finished = read_trial(result(**report(8, 0.5, 0.9), figures={"auroc": 0.9}, seconds=3))
    assert (finished.status, finished.objectives, finished.error) == ("finished", (0.9, 0.9), "")
    stopped = read_trial(result(**report(2, 0.5), seconds=1))
    assert (stopped.status, stopped.steps, stopped.auroc) == ("stopped", 2, None)
    failed = read_trial(result(RuntimeError("trace\nout of memory"), **report(2, 0.5)))
    assert (failed.status, failed.error, failed.figures) == ("failed", "out of memory", {})
    assert read_trial(result(RuntimeError("died"))).status == "failed"


def test_a_trial_that_never_started_is_an_error_that_says_why() -> None:
    never = SimpleNamespace(config=None, metrics={"trial_id": "t1"}, error=OSError("no such node"))
    with pytest.raises(RuntimeError, match="could not start a trial of the sweep: no such node"):
        read_trial(never)


def test_a_trial_has_the_cores_of_one_machine_at_most() -> None:
    assert threads_per_trial([2], 2) == 1
    assert threads_per_trial([8, 8, 8], 2) == 8
    assert threads_per_trial([8, 4], 3) == 4
    assert threads_per_trial([1], 4) == 1
