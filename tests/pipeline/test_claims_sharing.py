"""Two arms under a real DVC with stages of a line: what they share runs once."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Iterator
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


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A git and DVC repository without stages."""
    folder = tmp_path / "workspace"
    (folder / ".dvc").mkdir(parents=True)
    (folder / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
    (folder / ".gitignore").write_text("/outputs/\n/runs/\n")
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    return folder


def test_arms_of_a_seed_share_the_stages_before_they_part(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = tmp_path / "ran.txt"
    (workspace / "dvc.yaml").write_text(DVC_YAML.format(ran=ran))
    pools = []

    def collected(self: runner._Runner, copy: Path, log: Path) -> dict[str, Any]:
        pools.append((copy / "outputs" / "first").read_text())
        names = ("seconds", "weights", "figures", "scores")
        return {"pool": "p", "trained_on": [], "own_decoder": [], **{n: {} for n in names}}

    monkeypatch.setattr(runner._Runner, "_collect", collected)
    arms = named_arms(["full", "no_diga"])
    plan = Plan(workspace, SMOKE, base_values(SMOKE), arms, (11,), "make claims")
    assert run_plan(plan) == []
    assert ran.read_text().split() == ["first", "evaluate", "evaluate"]
    assert pools[0] == pools[1]
    # In a fresh copy too: the cache of the copies outlives them.
    (plan.results / "full-seed11.json").unlink()
    assert run_plan(plan) == []
    assert ran.read_text().split() == ["first", "evaluate", "evaluate"]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT as at a terminal: what a shell puts in the background begins with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interruption_ends_the_stages_that_run(
    workspace: Path, tmp_path: Path, interruptible: None
) -> None:
    begun = tmp_path / "begun"
    stage = f"echo $$ >> {begun}; exec sleep 300"
    (workspace / "dvc.yaml").write_text(f"stages:\n  evaluate:\n    cmd: {stage}\n")
    arms = named_arms(["full", "no_diga"])
    plan = Plan(workspace, SMOKE, base_values(SMOKE), arms, (11, 12), "make claims", jobs=2)

    main = threading.main_thread().ident

    def interrupt() -> None:
        while not begun.exists() or len(begun.read_text().split()) < 2:
            time.sleep(0.1)
        assert main is not None
        signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run_plan(plan)
    pids = [int(pid) for pid in begun.read_text().split()]
    assert len(pids) == 2  # the second arms have not begun
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert not plan.results.exists()
