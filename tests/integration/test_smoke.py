"""The whole DAG in miniature in a copy of the workspace, twice; what it leaves is used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.artifacts import STAGES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A workspace in which `make smoke` has run; it checks the no-op of a second repro itself."""
    scratch = tmp_path_factory.mktemp("smoke") / "workspace"
    environment = dict(os.environ)
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.smoke", "--folder", str(scratch)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]
    yield scratch


def test_every_stage_leaves_its_run(finished: Path) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{finished / 'mlflow.db'}")
    parents = set()
    for spec in STAGES:
        note = json.loads((finished / "outputs" / spec.out / "mlflow_run.json").read_text())
        run = client.get_run(note["run_id"])
        assert run.info.status == "FINISHED"
        assert run.data.params["seed"] == "0"
        linked = {name for name in spec.inputs if f"unigendet.input.{name}.run" in run.data.tags}
        assert linked == set(spec.inputs)
        parents.add(note["parent_id"])
    assert len(parents) == 1


def test_the_page_stands_alone(finished: Path) -> None:
    page = (finished / "outputs" / "report" / "index.html").read_text()
    assert "data:image/png;base64," in page
    assert 'src="http' not in page and 'href="http' not in page
    for spec in STAGES:
        assert spec.name in page


def test_dvc_shows_its_metrics(finished: Path) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "dvc"), "metrics", "show", "--json"],
        cwd=finished,
        capture_output=True,
        text=True,
        check=True,
    )
    shown = json.loads(done.stdout)[""]["data"]
    assert shown["outputs/eval/summary.json"]["data"]


def test_the_model_is_usable(finished: Path) -> None:
    command = [str(Path(sys.executable).parent / "unigendet")]
    subprocess.run(
        [*command, "generate", "a desert", "-o", "out.png", "--steps", "2"],
        cwd=finished,
        check=True,
    )
    done = subprocess.run(
        [*command, "detect", "out.png", "--json"],
        cwd=finished,
        check=True,
        capture_output=True,
        text=True,
    )
    assert '"score"' in done.stdout
