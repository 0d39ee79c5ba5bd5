"""Two arms under a real DVC with stages of a line: what they share runs once."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipeline.claims import run as runner
from pipeline.claims.arms import base_values, named_arms
from pipeline.claims.run import Plan, run_plan

pytestmark = pytest.mark.slow
SMOKE = Path(__file__).parents[2] / "profiles" / "smoke.yaml"
DVC_YAML = """
stages:
  first:
    cmd: echo first >> {ran}; mkdir -p outputs; cp params.yaml outputs/first
    params: [seed]
    outs: [outputs/first]
  evaluate:
    cmd: echo evaluate >> {ran}; cp outputs/first outputs/eval
    deps: [outputs/first]
    params: [seed, coevolve.align_weight]
    outs: [outputs/eval]
"""


def test_arms_of_a_seed_share_the_stages_before_they_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, ran = tmp_path / "workspace", tmp_path / "ran.txt"
    (workspace / ".dvc").mkdir(parents=True)
    (workspace / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
    (workspace / ".gitignore").write_text("/outputs/\n/runs/\n")
    (workspace / "dvc.yaml").write_text(DVC_YAML.format(ran=ran))
    subprocess.run(["git", "init", "-q", str(workspace)], check=True)
    pools = []

    def collected(copy: Path) -> dict[str, Any]:
        pools.append((copy / "outputs" / "first").read_text())
        names = ("seconds", "weights", "figures", "scores")
        return {"pool": "p", "trained_on": [], "own_decoder": [], **{n: {} for n in names}}

    monkeypatch.setattr(runner, "collect", collected)
    arms = named_arms(["full", "no_diga"])
    plan = Plan(workspace, SMOKE, base_values(SMOKE), arms, (11,), "make claims")
    assert run_plan(plan) == []
    assert ran.read_text().split() == ["first", "evaluate", "evaluate"]
    assert pools[0] == pools[1]
    # In a fresh copy too: the cache of the copies outlives them.
    (plan.results / "full-seed11.json").unlink()
    assert run_plan(plan) == []
    assert ran.read_text().split() == ["first", "evaluate", "evaluate"]
