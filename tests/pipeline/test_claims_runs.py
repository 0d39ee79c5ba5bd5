"""The runner: what is there is not run again, a failure loses nothing, others are refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from pipeline.claims import run as runner
from pipeline.claims.__main__ import main
from pipeline.claims.arms import Arm, base_values, named_arms
from pipeline.claims.result import COLLECT, load_result, load_results
from pipeline.claims.run import Plan, _Runner, run_plan
from pipeline.params import load_params

SMOKE = Path(__file__).parents[2] / "profiles" / "smoke.yaml"


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A plan of two arms and two seeds whose stages do nothing."""

    def copied(workspace: Path, target: Path, *, params: Path) -> None:
        (target / ".dvc").mkdir(parents=True)

    def collected(self: _Runner, copy: Path, log: Path) -> dict[str, Any]:
        return {
            "pool": "p",
            "seconds": {},
            "weights": {},
            "trained_on": [],
            "own_decoder": [],
            "figures": {},
            "scores": {},
        }

    monkeypatch.setattr(runner, "copy_workspace", copied)
    monkeypatch.setattr(runner._Runner, "_collect", collected)
    monkeypatch.setattr(runner._Runner, "_repro", lambda self, copy, log: None)
    arms = named_arms(["full", "no_diga"])
    return Plan(tmp_path, SMOKE, base_values(SMOKE), arms, (11, 12), "make claims")


def _refuse(self: _Runner, copy: Path, log: Path) -> None:
    raise AssertionError("ran again")


def test_what_is_there_is_not_run_again_and_more_seeds_add_up(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_plan(plan) == []
    names = [path.name for path in sorted(plan.results.glob("*"))]
    assert names == [f"{a}-seed{s}.json" for a in ("full", "no_diga") for s in (11, 12)]
    said = capsys.readouterr().out
    assert (
        "no_diga, seed 12: docs/results/smoke/no_diga-seed12.json" in said
        and "4 of 4" in said
        and "about 0 min left" in said
    )
    run_plan(replace(plan, seeds=(11, 12, 13)))
    assert len(load_results(plan.results)) == 6
    monkeypatch.setattr(runner._Runner, "_repro", _refuse)
    assert run_plan(plan) == []


def test_the_params_of_a_run_are_those_of_its_arm(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def read(self: _Runner, copy: Path, log: Path) -> None:
        seen.append((copy / "params.yaml").read_text())
        assert str(plan.workspace / "runs") in (copy / ".dvc" / "config.local").read_text()

    monkeypatch.setattr(runner._Runner, "_repro", read)
    run_plan(replace(plan, seeds=(11,)))
    assert "seed: 11" in seen[0] and "align_weight: 0.0" in seen[1]


def test_a_failed_arm_is_told_at_the_end_and_the_others_are_kept(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: _Runner, copy: Path, log: Path) -> None:
        if "full-seed11" in log.name:
            raise ValueError("no luck")

    monkeypatch.setattr(runner._Runner, "_repro", fail)
    assert run_plan(plan) == ["full, seed 11: no luck"]
    assert len(list(plan.results.glob("*.json"))) == 3


def test_the_end_of_a_failed_log_is_shown(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # a real DVC, in a folder that is none of its own
    one = replace(plan, seeds=(11,), arms=plan.arms[:1])
    monkeypatch.setattr(runner, "copy_workspace", _nothing_but_dvc)
    (failed,) = run_plan(one)
    assert "`dvc repro evaluate` ended with" in failed and "full-seed11.log" in failed


def _nothing_but_dvc(workspace: Path, target: Path, *, params: Path) -> None:
    (target / ".dvc").mkdir(parents=True)


def test_seeds_run_beside_each_other_and_share_the_cores(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    together, seen = Barrier(2, timeout=30), []

    def meet(self: _Runner, copy: Path, log: Path) -> None:
        seen.append(load_params(copy / "params.yaml").cluster.num_cpus)
        together.wait()

    monkeypatch.setattr(runner._Runner, "_repro", meet)
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert run_plan(replace(plan, jobs=2)) == []
    assert len(load_results(plan.results)) == 4 and set(seen) == {3}


def test_other_parameters_or_code_are_refused_with_the_way_out(plan: Plan) -> None:
    run_plan(plan)
    other = base_values(SMOKE) | {"tracking": {"uri": "sqlite:///x.db", "experiment": "other"}}
    assert run_plan(replace(plan, base=other)) == []  # tracking decides nothing
    changed = dict(plan.base)
    changed["evaluate"] = {**changed["evaluate"], "generated": 9}
    with pytest.raises(ValueError, match=r"full-seed11.json is of other parameters.*delete"):
        run_plan(replace(plan, base=changed, seeds=(11, 13)))
    path = plan.results / "full-seed12.json"
    path.write_text(path.read_text().replace(load_result(path).code, "0" * 16))
    with pytest.raises(ValueError, match=r"full-seed12.json is of other code"):
        run_plan(replace(plan, arms=named_arms(["full", "no_smsa"])))
    # Other seeds may be of other code: their arms are compared with each other.
    assert run_plan(replace(plan, seeds=(13,))) == []
    with pytest.raises(ValueError, match="made by other code") as error:
        load_results(plan.results)
    assert "full-seed12.json" in str(error.value) and "no_diga-seed12.json" in str(error.value)


def test_where_all_is_there_other_code_is_told_and_nothing_runs(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_plan(plan)
    monkeypatch.setattr(runner._Runner, "_repro", _refuse)
    monkeypatch.setattr(runner, "results_code", lambda root: "f" * 16)
    capsys.readouterr()
    assert run_plan(plan) == []
    said = capsys.readouterr().out
    assert "nothing to run; mind that" in said and "is of other code" in said
    assert "copy docs/results/smoke into it" in said


def test_what_could_not_stand_beside_the_results_is_refused_before_it_runs(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_plan(replace(plan, seeds=(11,)))
    monkeypatch.setattr(runner._Runner, "_repro", _refuse)
    changed = dict(plan.base)
    changed["evaluate"] = {**changed["evaluate"], "generated": 9}
    with pytest.raises(ValueError, match="is of other parameters"):
        run_plan(replace(plan, seeds=(12,), base=changed))
    with pytest.raises(ValueError, match=r"no_diga-seed11.json is of other changes of this arm"):
        run_plan(replace(plan, seeds=(12,), arms=[Arm("no_diga", {"coevolve.rounds": 1})]))
    monkeypatch.setattr(runner, "results_code", lambda root: "f" * 16)
    with pytest.raises(ValueError, match="is of other code"):
        run_plan(replace(plan, arms=named_arms(["live_teacher"])))


def test_what_is_edited_during_a_run_changes_no_result(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def edit(self: _Runner, copy: Path, log: Path) -> None:
        seen.append((copy / "code.py").read_text())
        (plan.workspace / "code.py").write_text("after")

    monkeypatch.setattr(runner._Runner, "_repro", edit)
    monkeypatch.setattr(runner, "copy_workspace", _with_code)
    (plan.workspace / "code.py").write_text("before")
    assert run_plan(plan) == []
    assert seen == ["before"] * 4


def _with_code(workspace: Path, target: Path, *, params: Path) -> None:
    (target / ".dvc").mkdir(parents=True)
    (target / "code.py").write_text((workspace / "code.py").read_text())


def test_a_seed_that_cannot_be_copied_does_not_lose_the_other(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(workspace: Path, target: Path, *, params: Path) -> None:
        if target.name == "seed11":
            raise OSError(28, "No space left on device")
        (target / ".dvc").mkdir(parents=True)

    monkeypatch.setattr(runner, "copy_workspace", full)
    assert run_plan(plan) == ["seed 11: [Errno 28] No space left on device"]
    assert len(list(plan.results.glob("*-seed12.json"))) == 2


def test_a_broken_result_is_named(plan: Plan) -> None:
    run_plan(plan)
    path = plan.results / "full-seed11.json"
    path.write_text(json.dumps({"arm": "full"}))
    with pytest.raises(ValueError, match=r"full-seed11.json is no result"):
        run_plan(plan)
    path.write_text("{")
    with pytest.raises(ValueError, match="no valid JSON"):
        run_plan(plan)


def test_what_is_kept_of_a_finished_run(finished: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", COLLECT, str(tmp_path / "found.json")]
    environment = {**os.environ, "PYTHONPATH": str(SMOKE.parents[1])}
    subprocess.run(command, cwd=finished, env=environment, check=True)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["trained_on"] == ["flow"] and "flow" in found["own_decoder"]
    home = found["scores"]["home"]
    assert set(home) == {"real", "flow", "inpaint"}
    assert {len(sources) for sources in home.values()} == {8}
    figures = found["figures"]
    assert figures["generation"]["kd_model"] is not None
    for which in ("model", "before_diga"):  # an untrained velocity is 0: noise less data remains
        assert 1 < figures["generation"][f"flow_loss_{which}"] < 2
    # Both models are the same untrained one: nothing is forgotten.
    after, before = (
        figures["forgetting"][f"in_domain_auroc_{when}_diga"] for when in ("after", "before")
    )
    assert after == pytest.approx(figures["detection"]["in_domain_all_auroc"], abs=1e-5)
    assert 0 <= before <= 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--arms", "fulll"], "did you mean full"),
        (["run", "--profile", "tinny"], "no profile 'tinny'"),
        (["run", "--seeds", "-1"], "seed"),
    ],
)
def test_the_command_tells_what_is_wrong(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    assert said in capsys.readouterr().err
