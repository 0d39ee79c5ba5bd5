"""MLflow: one run per stage, a parent found by its tags, inputs linked, one store for all."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from pipeline.params import load_params
from pipeline.stage import StageContext, run_stage
from pipeline.tracking import PARENT_TAG, check_shared, tracked_run_id, tracking_uri

ROOT = Path(__file__).resolve().parents[2]


def _client(workspace: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{workspace / 'mlflow.db'}")


def _write(context: StageContext) -> None:
    (context.out / "result.txt").write_text("whole")


def test_structure(workspace: Path) -> None:
    def work(context: StageContext) -> None:
        from matplotlib.figure import Figure

        context.run.log_metrics({"flow/loss": 2.0}, step=1)
        context.run.log_metrics({"flow/loss": 1.0}, step=2)
        context.run.log_metrics({"auroc_ff++": 0.5, "../(a)//b/": 0.25}, step=0)
        context.run.log_figure("curve", Figure())
        context.run.log_artifact(context.workspace / "params.yaml", "configuration")
        context.run.set_tag("note", "seen")
        _write(context)

    subprocess.run(["git", "init", "-q"], cwd=workspace, check=True)
    code = ["stages", "pipeline", "unigendet", "params.yaml"]
    subprocess.run(["git", "add", *code], cwd=workspace, check=True)
    identity = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    subprocess.run(["git", *identity, "commit", "-q", "-m", "x"], cwd=workspace, check=True)
    assert run_stage("shard", work, workspace) == 0
    (workspace / "outputs" / "generator").mkdir()
    assert run_stage("forge", _write, workspace) == 0

    client = _client(workspace)
    outs = workspace / "outputs"
    shard = client.get_run(tracked_run_id(outs / "shards"))
    forge = client.get_run(tracked_run_id(outs / "forged"))
    assert shard.info.status == forge.info.status == "FINISHED"
    assert shard.info.run_name == "shard"
    assert shard.data.params["shard.shard_mb"]
    assert "forge.fit_images" not in shard.data.params
    assert shard.data.tags["note"] == "seen"
    assert [m.value for m in client.get_metric_history(shard.info.run_id, "flow/loss")] == [2, 1]
    assert shard.data.metrics["auroc_ff__"] == 0.5 and shard.data.metrics["_a_/b"] == 0.25
    assert shard.data.metrics["total_s"] >= shard.data.metrics["startup_s"] > 0
    names = {item.path for item in client.list_artifacts(shard.info.run_id, "figures")}
    assert names == {"figures/curve.png"}
    artifacts = workspace / "mlartifacts" / "unigendet-smoke" / shard.info.run_id / "artifacts"
    assert (artifacts / "configuration" / "params.yaml").is_file()

    assert forge.data.tags["unigendet.input.shard.run"] == shard.info.run_id
    assert len(forge.data.tags["unigendet.input.shard.sha256"]) == 64
    assert len(forge.data.tags["unigendet.revision"]) == 40
    parent = client.get_run(shard.data.tags[PARENT_TAG])
    assert forge.data.tags[PARENT_TAG] == parent.info.run_id
    assert parent.data.tags["unigendet.run.shard"] == shard.info.run_id
    assert parent.data.tags["unigendet.run.forge"] == forge.info.run_id
    role = load_params(workspace / "params.yaml").forge.roles.gan
    assert parent.data.params["forge.roles.gan"] == role


def test_other_parameters_have_another_parent(workspace: Path) -> None:
    assert run_stage("shard", _write, workspace) == 0
    first = tracked_run_id(workspace / "outputs" / "shards")
    path = workspace / "params.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 1"))
    assert run_stage("shard", _write, workspace) == 0
    second = tracked_run_id(workspace / "outputs" / "shards")
    client = _client(workspace)
    parents = {client.get_run(run).data.tags[PARENT_TAG] for run in (first, second)}
    assert len(parents) == 2


def test_interrupted_stage_goes_on_in_its_run(workspace: Path) -> None:
    runs: list[str] = []

    def fail(context: StageContext) -> None:
        runs.append(context.run.run_id)
        context.run.log_metrics({"loss": 2.0}, step=1)
        raise ValueError("interrupted")

    def resume(context: StageContext) -> None:
        runs.append(context.run.run_id)
        context.run.log_metrics({"loss": 1.0}, step=2)
        _write(context)

    assert run_stage("shard", fail, workspace) == 1
    client = _client(workspace)
    assert client.get_run(runs[0]).info.status == "FAILED"
    assert run_stage("shard", resume, workspace) == 0
    assert runs[0] == runs[1]
    assert client.get_run(runs[0]).info.status == "FINISHED"
    assert [m.step for m in client.get_metric_history(runs[0], "loss")] == [1, 2]


def test_lost_run_is_replaced(workspace: Path, tracking_database: Path) -> None:
    def fail(context: StageContext) -> None:
        raise ValueError("interrupted")

    assert run_stage("shard", fail, workspace) == 1
    (workspace / "mlflow.db").write_bytes(tracking_database.read_bytes())
    assert run_stage("shard", _write, workspace) == 0


def test_temporary_workspace_tracks_in_its_repository(workspace: Path) -> None:
    temporary = workspace / ".dvc" / "tmp" / "exps" / "tmp123"
    temporary.mkdir(parents=True)
    for name in ("stages", "pipeline", "unigendet", "params.yaml"):
        (workspace / name).rename(temporary / name)
    kept: list[Path] = []

    def fail(context: StageContext) -> None:
        kept.append(context.state)
        raise ValueError("interrupted")

    assert run_stage("shard", fail, temporary) == 1
    assert kept[0].is_relative_to(workspace / "runs")
    assert run_stage("shard", _write, temporary) == 0
    assert (temporary / "outputs" / "shards" / "result.txt").is_file()
    assert not (temporary / "mlflow.db").exists()
    run = tracked_run_id(temporary / "outputs" / "shards")
    assert _client(workspace).get_run(run).info.status == "FINISHED"


def test_tracking_uri(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = load_params(workspace / "params.yaml")
    assert tracking_uri(params, workspace) == f"sqlite:///{workspace}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////elsewhere/mlflow.db")
    assert tracking_uri(params, workspace) == "sqlite:////elsewhere/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert tracking_uri(params, workspace) == "http://127.0.0.1:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mlruns")
    with pytest.raises(ValueError, match="sqlite:///FILE"):
        tracking_uri(params, workspace)


def test_several_machines_do_not_share_a_file() -> None:
    check_shared("sqlite:////a/mlflow.db", ["127.0.0.1"])
    check_shared("http://127.0.0.1:5000", ["10.0.0.1", "10.0.0.2"])
    with pytest.raises(ValueError, match="MLFLOW_TRACKING_URI"):
        check_shared("sqlite:////a/mlflow.db", ["10.0.0.1", "10.0.0.2"])
