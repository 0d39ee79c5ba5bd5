"""Two small stages under a real DVC: resume after SIGKILL, force, experiments, push and pull."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
ROOT = Path(__file__).resolve().parents[2]

STAGE = """
import sys, time
from pathlib import Path
from pipeline.stage import run_stage
from pipeline.workspace import persistent_root
import unigendet.steps

def work(context):
    home = persistent_root(context.workspace)
    counter = context.state / "step"
    first = int(counter.read_text()) if counter.exists() else 0
    for step in range(first, unigendet.steps.COUNT):
        counter.write_text(str(step))
        if step == 3 and (home / "hold").exists():
            (home / "held").touch()
            time.sleep(120)
    crops = context.params.data.everyday_crops
    stride = context.params.data.train_stride
    (context.out / "result.txt").write_text(f"from {{first}} crops {{crops}} stride {{stride}}")

sys.exit(run_stage("{name}", work))
"""

DVC_YAML = """
stages:
  shard:
    cmd: python -m stages.shard
    deps: [stages/shard.py, unigendet]
    params: [seed, data, shard]
    outs: [outputs/shards]
  pretrain_generator:
    cmd: python -m stages.pretrain_generator
    deps: [stages/pretrain_generator.py, unigendet, outputs/shards]
    params: [seed, model, data.everyday_crops, pretrain_generator]
    outs: [outputs/generator]
"""


@pytest.fixture
def repository(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git and DVC repository with two stages of ten steps each."""
    for name in ("stages", "pipeline", "unigendet"):
        shutil.rmtree(workspace / name)
    for name in ("stages", "unigendet"):
        (workspace / name).mkdir()
        (workspace / name / "__init__.py").write_text("")
    (workspace / "unigendet" / "steps.py").write_text("COUNT = 10\n")
    # The scratch package stands before the real one, of which it borrows all that it lacks.
    (workspace / "unigendet" / "__init__.py").write_text(
        f"__path__.append({str(ROOT / 'unigendet')!r})\n"
    )
    for name in ("shard", "pretrain_generator"):
        (workspace / "stages" / f"{name}.py").write_text(STAGE.format(name=name))
    (workspace / "dvc.yaml").write_text(DVC_YAML)
    for name in (".gitignore", ".dvcignore"):
        shutil.copyfile(ROOT / name, workspace / name)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    for name, value in {"NAME": "t", "EMAIL": "t@localhost"}.items():
        monkeypatch.setenv(f"GIT_AUTHOR_{name}", value)
        monkeypatch.setenv(f"GIT_COMMITTER_{name}", value)
    _call(workspace, "git", "init", "-q")
    _call(workspace, "dvc", "init", "-q")
    _commit(workspace)
    return workspace


def _commit(folder: Path) -> None:
    _call(folder, "git", "add", "-A")
    _call(folder, "git", "commit", "-q", "-m", "x")


def _call(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def _kill_at_step_3(folder: Path, *command: str) -> str:
    """Runs a command until its stage holds at step 3, kills its process group; what it printed."""
    (folder / "hold").touch()
    with (folder / "killed.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        limit = time.monotonic() + 150
        while not (folder / "held").exists():
            assert process.poll() is None, (folder / "killed.log").read_text()
            assert time.monotonic() < limit
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    (folder / "hold").unlink()
    (folder / "held").unlink()
    return (folder / "killed.log").read_text()


def _result(folder: Path, out: str = "shards") -> str:
    return (folder / "outputs" / out / "result.txt").read_text()


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_killed_repro_resumes_and_its_result_travels(repository: Path, tmp_path: Path) -> None:
    _kill_at_step_3(repository, "dvc", "repro")
    assert not (repository / "outputs" / "shards").exists()
    output = _call(repository, "dvc", "repro")
    assert "attempt 2: going on from" in output
    assert _result(repository).startswith("from 3 ")
    assert _result(repository, "generator").startswith("from 0 ")
    assert "Running stage" not in _call(repository, "dvc", "repro")

    _call(repository, "dvc", "remote", "add", "-d", "folder", str(tmp_path / "remote"))
    _commit(repository)
    _call(repository, "dvc", "push")
    clone = tmp_path / "clone"
    _call(tmp_path, "git", "clone", "-q", str(repository), str(clone))
    _call(clone, "dvc", "pull")
    assert _result(clone) == _result(repository)
    assert "Running stage" not in _call(clone, "dvc", "repro")

    output = _call(repository, "dvc", "exp", "run", "-S", "pretrain_generator.flow.batch_size=3")
    assert "Stage 'shard' didn't change" in output
    assert "Running stage 'pretrain_generator'" in output


def test_changed_code_and_force_start_anew(repository: Path) -> None:
    _kill_at_step_3(repository, "dvc", "repro", "shard")
    _replace(repository / "unigendet" / "steps.py", "10", "9")
    output = _kill_at_step_3(repository, "dvc", "repro", "shard")
    assert "attempt 2" not in output
    assert "1 interrupted run(s)" in output
    assert "attempt 2" not in _call(repository, "dvc", "repro", "-f", "shard")
    assert _result(repository).startswith("from 0 ")


def test_killed_temporary_experiment_resumes(repository: Path) -> None:
    command = ("dvc", "exp", "run", "--temp", "-S", "data.everyday_crops=5")
    _kill_at_step_3(repository, *command)
    output = _call(repository, *command)
    assert "attempt 2: going on from" in output
    assert not list((repository / "runs").glob("*/*/"))
    name = _call(repository, "dvc", "exp", "list", "--name-only").split()[-1]
    _call(repository, "dvc", "exp", "apply", name)
    assert _result(repository).startswith("from 3 crops 5")
    assert (repository / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.everyday_crops=-1", "`data.everyday_crops`: Input should be greater"),
        ("+data.everyday_crop=1", "did you mean `everyday_crops`"),
    ],
)
def test_wrong_override(repository: Path, override: str, words: str) -> None:
    done = subprocess.run(
        ["dvc", "exp", "run", "-S", override], cwd=repository, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert words in done.stdout + done.stderr
    assert not (repository / "outputs" / "shards").exists()
