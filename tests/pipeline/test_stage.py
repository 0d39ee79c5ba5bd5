"""A stage's out is whole or absent, its state outlives an interruption, errors are for people."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from pipeline import stage as stage_module
from pipeline.artifacts import StageTimings
from pipeline.stage import StageContext, run_stage
from pipeline.state import hold_state, interrupted_siblings

ROOT = Path(__file__).resolve().parents[2]


def _complete(context: StageContext) -> None:
    (context.out / "result.txt").write_text("whole")


def _states(workspace: Path) -> list[Path]:
    return [path for path in (workspace / "runs" / "shard").glob("*") if path.is_dir()]


def _outputs(workspace: Path) -> list[str]:
    folder = workspace / "outputs"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_finished_stage(workspace: Path) -> None:
    def work(context: StageContext) -> None:
        assert context.state.is_relative_to(workspace / "runs" / "shard")
        assert not context.resumed
        time.sleep(0.2)
        context.mark_started()
        context.mark_started()
        with context.timed("reading"):
            time.sleep(0.05)
        with context.timed("reading"):
            time.sleep(0.05)
        _complete(context)

    assert run_stage("shard", work, workspace) == 0
    out = workspace / "outputs" / "shards"
    names = sorted(path.name for path in out.iterdir())
    assert names == ["mlflow_run.json", "result.txt", "timings.json"]
    timings = StageTimings.load(out)
    assert timings.attempts == 1
    assert 0.1 <= timings.phases["reading"] < 1
    assert 0 < timings.startup_s < timings.total_s - 0.05
    assert _states(workspace) == []
    assert _outputs(workspace) == ["shards"]


def test_failed_stage_leaves_no_out_but_its_state(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(context: StageContext) -> None:
        (context.out / "half.txt").write_text("half")
        (context.state / "checkpoint").write_text("step 5")
        raise ValueError("tile 7 is broken: delete it")

    assert run_stage("shard", fail, workspace) == 1
    assert _outputs(workspace) == []
    assert "[shard] error: tile 7 is broken: delete it" in capsys.readouterr().err
    assert "raise ValueError" in (workspace / "runs" / "shard" / "error.txt").read_text()

    def resume(context: StageContext) -> None:
        assert context.resumed
        assert (context.state / "checkpoint").read_text() == "step 5"
        _complete(context)

    assert run_stage("shard", resume, workspace) == 0
    assert StageTimings.load(workspace / "outputs" / "shards").attempts == 2
    assert _states(workspace) == []


def test_failed_stage_keeps_the_out_that_was_there(workspace: Path) -> None:
    assert run_stage("shard", _complete, workspace) == 0

    def fail(context: StageContext) -> None:
        (context.out / "result.txt").write_text("half")
        raise ValueError("no")

    assert run_stage("shard", fail, workspace) == 1
    assert (workspace / "outputs" / "shards" / "result.txt").read_text() == "whole"
    assert _outputs(workspace) == ["shards"]


def test_a_bug_is_not_hidden(workspace: Path) -> None:
    def bug(context: StageContext) -> None:
        raise KeyError("missing")

    with pytest.raises(KeyError):
        run_stage("shard", bug, workspace)
    assert _outputs(workspace) == []


def test_nothing_written_is_an_error(workspace: Path) -> None:
    assert run_stage("shard", lambda context: None, workspace) == 1
    assert _outputs(workspace) == []


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "tile.png"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_full_disk(workspace: Path, error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def fill(context: StageContext) -> None:
        (context.out / "half.txt").write_text("half")
        raise error

    assert run_stage("shard", fill, workspace) == 1
    message = capsys.readouterr().err
    assert "no space left on the disk" in message
    assert "goes on from its last checkpoint" in message
    assert _outputs(workspace) == []


def test_a_really_full_disk(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fill(context: StageContext) -> None:
        with Path("/dev/full").open("wb") as file:
            file.write(b"x" * 100_000)

    assert run_stage("shard", fill, workspace) == 1
    assert "no space left on the disk" in capsys.readouterr().err


def test_too_little_space_to_begin(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = workspace / "params.yaml"
    lines = path.read_text().splitlines()
    changed = ["  min_free_gb: 1.0e+9" if "min_free_gb" in line else line for line in lines]
    path.write_text("\n".join(changed) + "\n")
    assert run_stage("shard", _complete, workspace) == 1
    assert "cluster.min_free_gb" in capsys.readouterr().err
    assert not (workspace / "outputs").exists()


def test_wrong_parameters_stop_before_anything_runs(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = workspace / "params.yaml"
    path.write_text(path.read_text().replace("seed: 0", "sede: 0"))

    def never(context: StageContext) -> None:
        raise AssertionError

    assert run_stage("shard", never, workspace) == 1
    message = capsys.readouterr().err
    assert "`sede` is no parameter; did you mean `seed`?" in message
    assert not (workspace / "outputs").exists()


def test_missing_input(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_stage("forge", _complete, workspace) == 1
    message = capsys.readouterr().err
    assert "outputs/shards" in message and "dvc repro" in message


def test_undeclared_input_is_a_bug(workspace: Path) -> None:
    def greedy(context: StageContext) -> None:
        _ = context.inputs["coevolve"]

    with pytest.raises(AssertionError, match="does not declare coevolve"):
        run_stage("shard", greedy, workspace)


def test_unknown_stage(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_stage("sharb", _complete, workspace) == 1
    assert "stages: shard, pretrain_generator" in capsys.readouterr().err


def _process(workspace: Path, body: str, *wrapper: str) -> subprocess.Popen[str]:
    """A stage in a process of its own; `body` is the stage's function."""
    code = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from pipeline.stage import run_stage

        def work(context):
        {body}

        sys.exit(run_stage("shard", work, Path({workspace!r})))
        """
    ).format(body=textwrap.indent(textwrap.dedent(body), "    "), workspace=str(workspace))
    return subprocess.Popen(
        [*wrapper, sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _await(path: Path, process: subprocess.Popen[str]) -> None:
    limit = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < limit
        time.sleep(0.05)


WAITING = """
    (context.out / "half.txt").write_text("half")
    (context.state / "checkpoint").write_text("step 5")
    (context.workspace / "ready").touch()
    time.sleep(60)
"""


def test_second_process_is_refused_and_a_killed_one_resumed(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = _process(workspace, WAITING)
    try:
        _await(workspace / "ready", first)
        assert run_stage("shard", _complete, workspace) == 1
        message = capsys.readouterr().err
        assert "already running" in message and f"process {first.pid}" in message
        assert _outputs(workspace) == [".shards.partial"]
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()

    def resume(context: StageContext) -> None:
        assert context.resumed
        assert (context.state / "checkpoint").read_text() == "step 5"
        assert list(context.out.iterdir()) == []
        _complete(context)

    assert run_stage("shard", resume, workspace) == 0
    assert "attempt 2: going on from" in capsys.readouterr().out
    assert _outputs(workspace) == ["shards"]


def test_what_another_process_works_in_is_not_taken_for_interrupted(tmp_path: Path) -> None:
    with (
        hold_state(tmp_path, "shard", "running", fresh=False),
        hold_state(tmp_path, "shard", "mine", fresh=False),
    ):
        assert interrupted_siblings(tmp_path, "shard", "mine") == []
    left = tmp_path / "runs" / "shard" / "running"
    assert interrupted_siblings(tmp_path, "shard", "mine") == [left]


def test_terminated_stage_cleans_up(workspace: Path) -> None:
    process = _process(workspace, WAITING)
    _await(workspace / "ready", process)
    process.terminate()
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    assert _outputs(workspace) == []
    assert len(_states(workspace)) == 1


@pytest.mark.parametrize(
    ("words", "fresh"),
    [
        (["repro"], False),
        (["repro", "-f"], True),
        (["repro", "-sf", "shard"], True),
        (["repro", "--force"], True),
        (["exp", "run", "-S", "forge.fit_images=3"], False),
        (["exp", "run", "-n", "-file"], False),
        (["exp", "run", "--temp", "-f"], True),
    ],
)
def test_force_is_read_off_the_command_line(
    words: list[str], fresh: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Parent:
        def __init__(self, line: list[str]) -> None:
            self._line = line

        def cmdline(self) -> list[str]:
            return self._line

    class Process:
        def parents(self) -> list[Parent]:
            dvc = ["/venv/bin/python", "/venv/bin/dvc", *words]
            return [Parent(["/bin/sh", "-c", "x -f"]), Parent(dvc), Parent(["rm", "-f"])]

    monkeypatch.delenv("UNIGENDET_FRESH", raising=False)
    monkeypatch.setattr(stage_module.psutil, "Process", Process)
    assert stage_module.started_with_force() is fresh


def test_force_starts_anew(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(context: StageContext) -> None:
        (context.state / "checkpoint").write_text("step 5")
        raise ValueError("interrupted")

    assert run_stage("shard", fail, workspace) == 1
    monkeypatch.setenv("UNIGENDET_FRESH", "1")

    def anew(context: StageContext) -> None:
        assert not context.resumed
        assert not (context.state / "checkpoint").exists()
        _complete(context)

    assert run_stage("shard", anew, workspace) == 0
