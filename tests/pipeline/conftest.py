"""Scratch workspaces: a params.yaml, a small stage's code, and a ready tracking database."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

STAGE_CODE = {
    "stages/__init__.py": "",
    "stages/shard.py": "from pipeline.sharding import shard\n",
    "pipeline/__init__.py": "",
    "pipeline/sharding.py": "def shard(ctx):\n    from unigendet.data import tiles\n",
    "unigendet/__init__.py": "",
    "unigendet/data/__init__.py": "",
    "unigendet/data/tiles.py": "SIZE = 64\n",
    "unigendet/data/unrelated.py": "OTHER = 1\n",
}


def _write(folder: Path) -> None:
    for name, text in STAGE_CODE.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    shutil.copyfile(ROOT / "profiles" / "smoke.yaml", folder / "params.yaml")


@pytest.fixture(scope="session")
def tracking_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow SQLite file with its tables made, which takes seconds."""
    from mlflow.tracking import MlflowClient

    path = tmp_path_factory.mktemp("tracking") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def workspace(tmp_path: Path, tracking_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace in which `run_stage("shard", ...)` works."""
    for name in ("MLFLOW_TRACKING_URI", "UNIGENDET_HOME", "UNIGENDET_FRESH", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "workspace"
    _write(folder)
    shutil.copyfile(tracking_database, folder / "mlflow.db")
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with every out. Shared: no test may change it."""
    from tests.pipeline.miniature import evaluated_workspace  # imports all of the model

    return evaluated_workspace(tmp_path_factory.mktemp("evaluated"))
