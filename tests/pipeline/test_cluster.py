"""Ray listens on loopback only, wants a token, and runs the workspace's code; jobs likewise."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.cluster import prepare_environment
from pipeline.local_cluster import LocalCluster, main, start, stop, submit

ROOT = Path(__file__).resolve().parents[2]

SESSION = """
import json, os, sys, urllib.error, urllib.request
from pathlib import Path
import psutil
from pipeline.cluster import ray_session
from pipeline.params import load_params

def status(url, headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as r:
            return r.status
    except urllib.error.HTTPError as error:
        return error.code

with ray_session(load_params(Path("params.yaml")), Path.cwd()):
    import ray

    @ray.remote
    def where():
        import marker
        return marker.__file__

    place = ray.get(where.remote())
    listeners = sorted({
        f"{c.laddr.ip} {p.name()}"
        for p in [psutil.Process(), *psutil.Process().children(recursive=True)]
        for c in p.net_connections(kind="inet")
        if c.status == psutil.CONN_LISTEN
    })
    url = "http://" + ray._private.worker.global_worker.node.webui_url + "/api/jobs/"
    token = Path(os.environ["RAY_AUTH_TOKEN_PATH"]).read_text()
    found = {
        "place": place,
        "listeners": listeners,
        "nodes": [n["NodeManagerAddress"] for n in ray.nodes()],
        "without_token": status(url, {}),
        "wrong_token": status(url, {"Authorization": "Bearer " + "0" * 43}),
        "with_token": status(url, {"Authorization": "Bearer " + token}),
        "children": [p.pid for p in psutil.Process().children(recursive=True)],
    }
print("FOUND " + json.dumps(found))
"""


@pytest.fixture
def cluster_workspace(tmp_path: Path) -> Path:
    """A workspace with parameters and one module of its own, and no Ray settings around it."""
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        del os.environ[name]
    os.environ["PYTHONPATH"] = str(ROOT)
    shutil.copyfile(ROOT / "profiles" / "smoke.yaml", tmp_path / "params.yaml")
    (tmp_path / "marker.py").write_text("")
    return tmp_path


def _left_over(pids: list[int]) -> list[str]:
    """Processes that are still there after a while, zombies aside."""
    limit = time.monotonic() + 20
    while time.monotonic() < limit and any(_name(pid) for pid in pids):
        time.sleep(0.2)
    return [name for pid in pids if (name := _name(pid))]


def _name(pid: int) -> str:
    try:
        process = psutil.Process(pid)
        return "" if process.status() == psutil.STATUS_ZOMBIE else str(process.name())
    except psutil.NoSuchProcess:
        return ""


def test_token_is_made_once_and_for_its_owner(
    cluster_workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE", "RAY_USAGE_STATS_ENABLED"):
        monkeypatch.setenv(name, "")
    monkeypatch.delenv("RAY_AUTH_MODE")
    prepare_environment(cluster_workspace)
    path = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    token = path.read_text()
    assert len(token) >= 32
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "")
    prepare_environment(cluster_workspace)
    assert path.read_text() == token
    path.chmod(0o644)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "")
    with pytest.raises(ValueError, match="chmod 600"):
        prepare_environment(cluster_workspace)


def test_workspace_code_comes_first(
    cluster_workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "x")
    monkeypatch.setenv("PYTHONPATH", f"/other:{cluster_workspace}")
    prepare_environment(cluster_workspace)
    assert os.environ["PYTHONPATH"] == f"{cluster_workspace}:/other"


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_session(cluster_workspace: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SESSION],
        cwd=cluster_workspace,
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("FOUND "))
    found: dict[str, Any] = json.loads(line.removeprefix("FOUND "))
    assert found["nodes"] == ["127.0.0.1"]
    assert len(found["listeners"]) > 4
    assert {address.split()[0] for address in found["listeners"]} <= {
        "127.0.0.1",
        "::ffff:127.0.0.1",
        "::1",
    }
    assert found["place"] == str(cluster_workspace / "marker.py")
    assert found["with_token"] == 200
    assert found["without_token"] == 401
    assert found["wrong_token"] in {401, 403}
    assert _left_over(found["children"]) == []


JOB = """
from pathlib import Path
from pipeline.cluster import ray_session
from pipeline.params import load_params

with ray_session(load_params(Path("params.yaml")), Path.cwd()):
    import ray

    @ray.remote
    def where():
        import marker
        return marker.__file__

    Path("answer.txt").write_text(ray.get(where.remote()))
raise SystemExit(3)
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_job_on_a_cluster_started_by_hand(
    cluster_workspace: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    token = tmp_path_factory.mktemp("given") / "token"
    token.write_text("t" * 43)
    token.chmod(0o600)
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(token)
    (cluster_workspace / "job.py").write_text(textwrap.dedent(JOB))
    cluster = start(cluster_workspace)
    try:
        with pytest.raises(ValueError, match="cluster-down"):
            start(cluster_workspace)
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{cluster.dashboard}/api/jobs/", timeout=20)
        processes = [p.pid for p in psutil.Process(cluster.pid).children(recursive=True)]
        listening = {
            c.laddr.ip
            for pid in processes
            for c in psutil.Process(pid).net_connections(kind="inet")
            if c.status == psutil.CONN_LISTEN
        }
        assert listening <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
        assert submit(cluster_workspace, ["true"]) == 0
        assert submit(cluster_workspace, ["python", "job.py"]) != 0
        answer = (cluster_workspace / "answer.txt").read_text()
        assert answer == str(cluster_workspace / "marker.py")
    finally:
        stop(cluster_workspace)
    assert _left_over([cluster.pid, *processes]) == []


def test_no_cluster(
    cluster_workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(cluster_workspace)
    with pytest.raises(ValueError, match="make cluster-up"):
        LocalCluster.load(cluster_workspace)
    assert main(["job"]) == 1
    assert main(["down"]) == 1
    assert main(["sideways"]) == 2
    assert "make cluster-up" in capsys.readouterr().err
