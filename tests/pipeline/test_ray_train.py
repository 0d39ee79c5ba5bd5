"""A real Ray Train worker: killed with its stage, or alone, it goes on where it stood."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.models.published import small_config, small_parts
from tests.pipeline.ray_train_task import Job, shared_task, task
from unigendet.models.pretrained import load_pretrained, save_pretrained
from unigendet.training.session import TrainingSession

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow

DRIVER = """
import sys
from pathlib import Path

from pipeline.artifacts import StageInputs, stage_spec
from pipeline.params import load_params
from pipeline.ray_train import train_on_ray
from pipeline.stage import StageContext
from pipeline.tracking import Run
from tests.pipeline import ray_train_task

home, root, job, name = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
params = load_params(root / "profiles" / "smoke.yaml")
if name == "shared_task":
    cluster = params.cluster.model_copy(update={"workers": 2, "sharding": "fsdp"})
    params = params.model_copy(update={"cluster": cluster})
from mlflow.tracking import MlflowClient

uri = f"sqlite:///{home / 'mlflow.db'}"
client = MlflowClient(tracking_uri=uri)
known = client.get_experiment_by_name("test")
experiment = known.experiment_id if known else client.create_experiment("test")
run_id = client.create_run(experiment).info.run_id
spec = stage_spec("shard")
ctx = StageContext(
    name="shard",
    params=params,
    workspace=root,
    inputs=StageInputs(home, spec),
    out=home / "out",
    state=home / "state",
    resumed=False,
    run=Run(uri, run_id, run_id),
    fingerprint="0",
)
finished = train_on_ray(ctx, getattr(ray_train_task, name), ray_train_task.Job(home, job))
print("finished in", finished, "run", run_id)
"""


Driver = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def driver() -> Iterator[Driver]:
    """Starts stages, each in a process group of its own; none outlives the test."""
    started = list[subprocess.Popen[str]]()

    def start(home: Path, job: str, name: str = "task") -> subprocess.Popen[str]:
        started.append(_start(home, job, name))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _start(home: Path, job: str, name: str) -> subprocess.Popen[str]:
    home.mkdir(exist_ok=True)
    environment = {**os.environ, "UNIGENDET_HOME": str(home), "PYTHONPATH": str(ROOT)}
    environment.pop("RAY_ADDRESS", None)
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(home), str(ROOT), job, name],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=500)
    assert process.returncode == 0, output
    return output


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 400
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.05)


def rows(session: Path, term: str = "fit_loss") -> list[tuple[str, int, float]]:
    """Phase, step and a loss term of each line of a session's history."""
    lines = (session / "history.jsonl").read_text().splitlines()
    return [(row["phase"], row["step"], row[term]) for row in map(json.loads, lines)]


@pytest.mark.timeout(1200)
def test_a_killed_stage_and_then_a_killed_worker_resume_bit_for_bit(
    driver: Driver, tmp_path: Path
) -> None:
    from mlflow.tracking import MlflowClient

    home = tmp_path / "killed"
    killed = driver(home, "waits")
    wait_for(home / "halfway", killed)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    output = finish(driver(home, "worker dies"))
    assert (home / "died").exists()
    # Once for the new process, once for the worker that Ray Train put in the dead one's place.
    assert output.count("first: done before, kept") == 2
    assert output.count("second: resumed from step") == 2

    task(TrainingSession(tmp_path / "whole", say=lambda _: None), Job(tmp_path, "runs"))
    weights = "kept/second/weights.safetensors"
    resumed = home / "state" / "finished"
    assert (resumed / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()
    assert rows(resumed) == rows(tmp_path / "whole")

    client = MlflowClient(tracking_uri=f"sqlite:///{home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("test").experiment_id
    logged = {
        metric.step: metric.value
        for run in client.search_runs([experiment])
        for metric in client.get_metric_history(run.info.run_id, "second/fit_loss")
    }
    assert logged == {step: loss for phase, step, loss in rows(resumed) if phase == "second"}


@pytest.mark.timeout(600)
def test_what_a_person_can_set_right_comes_in_its_own_words(driver: Driver, tmp_path: Path) -> None:
    process = driver(tmp_path, "wrong input")
    output, _ = process.communicate(timeout=500)
    assert process.returncode != 0
    assert "ValueError: this input is wrong" in output.splitlines()[-1]
    assert output.count("the task ran") == 1


@pytest.mark.timeout(1200)
def test_two_workers_share_a_model_and_survive_the_death_of_one(
    driver: Driver, tmp_path: Path
) -> None:
    """FSDP2: each worker holds and saves a part; together they learn what one process learns."""
    home = tmp_path / "pair"
    save_pretrained(home / "model", *small_parts(small_config()))
    output = finish(driver(home, "worker dies", "shared_task"))
    assert (home / "died").exists()
    assert output.count("shared: resumed from step") == 1

    alone = tmp_path / "alone"
    shared_task(TrainingSession(alone, say=lambda _: None), Job(home, "runs"))
    pair = home / "state" / "finished"
    for found, expected in zip(rows(pair, "total"), rows(alone, "total"), strict=True):
        assert found[:2] == expected[:2]
        assert found[2] == pytest.approx(expected[2], rel=1e-5)
    learnt, whole = (load_pretrained(folder / "kept/result/model") for folder in (pair, alone))
    for name, value in whole.model.state_dict().items():
        if not name.endswith("k_proj.bias"):  # of the image encoder: without influence
            found_value = learnt.model.state_dict()[name]
            torch.testing.assert_close(found_value, value, atol=1e-4, rtol=1e-3)
