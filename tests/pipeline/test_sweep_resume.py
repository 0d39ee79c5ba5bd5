"""A search on a real Ray, killed with all its processes, goes on where it stood."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def _start(home: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "UNIGENDET_HOME": str(home), "PYTHONPATH": str(ROOT)}
    environment["TUNE_GLOBAL_CHECKPOINT_S"] = "1"
    environment.pop("RAY_ADDRESS", None)
    return subprocess.Popen(
        [sys.executable, "-m", "tests.pipeline.sweep_task", str(ROOT), str(home)],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def test_a_killed_sweep_goes_on_tries_again_what_failed_and_asha_remembers(tmp_path: Path) -> None:
    killed = _start(tmp_path)
    try:
        deadline = time.monotonic() + 400
        while not (tmp_path / "halfway").exists():
            assert killed.poll() is None, killed.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(3)  # until Ray has saved what trials there are
    finally:
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
    (tmp_path / "go").touch()
    resumed = _start(tmp_path)
    try:
        output, _ = resumed.communicate(timeout=400)
    finally:
        if resumed.poll() is None:
            os.killpg(resumed.pid, signal.SIGKILL)
    assert resumed.returncode == 0, output
    assert "going on with the trials of the interrupted sweep" in output
    assert "trial 4 (repeat 1 of trial 0) done" in output

    trials = sorted(json.loads((tmp_path / "trials.json").read_text()), key=lambda t: t["number"])
    # At step 2 trial 3 is behind trial 2, but not behind most of those before the kill; at step 4
    # it is, trial 1 having gone.
    assert [(t["number"], t["status"], t["steps"]) for t in trials] == [
        (0, "finished", 8),
        (1, "stopped", 2),
        (2, "finished", 8),
        (3, "stopped", 4),
        (4, "finished", 8),
        (5, "failed", 0),
    ]
    assert (trials[5]["repeat"], trials[5]["weights"]) == (2, trials[0]["weights"])
    assert trials[5]["error"]
    begun = (tmp_path / "begun.txt").read_text().split()
    assert begun[:3] == ["0", "1", "2"]
    # What had ended well was not begun again; what had failed was.
    assert sorted(begun[3:]) == ["1", "2", "3", "4", "5"]
