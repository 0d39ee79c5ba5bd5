"""A Ray cluster of this machine that outlives a stage, and `dvc repro` as a job on it.

`python -m pipeline.local_cluster up | job [COMMAND...] | down`. It is what `ray start --head` and
`ray job submit` do on a real cluster, with loopback addresses, free ports and the token set.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from pipeline.artifacts import read_json, write_json
from pipeline.cluster import LOOPBACK, free_port, prepare_environment
from pipeline.workspace import persistent_root

_READY_SECONDS = 120.0
_STOP_SECONDS = 20.0
_ADDRESSES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
"""These win over `--address`, and may name another cluster."""


@dataclass(frozen=True, slots=True)
class LocalCluster:
    """A running cluster: its first process and where it listens."""

    pid: int
    address: str
    """For `RAY_ADDRESS`."""
    dashboard: str
    """For `ray job submit --address`."""

    @classmethod
    def load(cls, home: Path) -> LocalCluster:
        """The cluster that `up` started; a `ValueError` says that there is none."""
        if not _note(home).is_file():
            raise ValueError("no local cluster was started here: `make cluster-up` starts one")
        cluster = cls(**read_json(_note(home)))
        if not psutil.pid_exists(cluster.pid):
            raise ValueError(f"cluster process {cluster.pid} is gone: `make cluster-down`, then up")
        return cluster


def start(workspace: Path, *, num_cpus: int | None = None) -> LocalCluster:
    """Starts a head node on loopback and waits until it takes jobs."""
    home = persistent_root(workspace)
    if _note(home).is_file():
        raise ValueError(f"{_note(home)} names a cluster already: `make cluster-down` first")
    prepare_environment(workspace)
    port, dashboard, agent, client = (free_port() for _ in range(4))
    command = [
        *_tool("ray"),
        "start",
        "--head",
        "--block",
        f"--node-ip-address={LOOPBACK}",
        f"--port={port}",
        f"--dashboard-host={LOOPBACK}",
        f"--dashboard-port={dashboard}",
        # The agent runs the jobs; its usual port is taken where another Ray is running.
        f"--dashboard-agent-listen-port={agent}",
        f"--ray-client-server-port={client}",
        "--disable-usage-stats",
        *([f"--num-cpus={num_cpus}"] if num_cpus else []),
    ]
    log = home / "runs" / "cluster.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        # A session of its own: it has to outlive this process, and `stop` ends it as a group.
        url = f"http://{LOOPBACK}:{dashboard}"
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | {"RAY_API_SERVER_ADDRESS": url},
            start_new_session=True,
        )
    cluster = LocalCluster(process.pid, f"{LOOPBACK}:{port}", url)
    write_json(_note(home), asdict(cluster))
    limit = time.monotonic() + _READY_SECONDS
    while not _takes_jobs(cluster):
        if process.poll() is not None or time.monotonic() > limit:
            stop(workspace)
            raise ValueError(f"the local cluster did not start; {log} says why")
        time.sleep(1)
    return cluster


@contextmanager
def running_cluster(workspace: Path) -> Iterator[LocalCluster]:
    """A local cluster for the time of the block."""
    cluster = start(workspace)
    try:
        yield cluster
    finally:
        stop(workspace)


def submit(workspace: Path, command: Sequence[str]) -> int:
    """Runs a command in the workspace as a job, shows its output, and returns its exit code."""
    home = persistent_root(workspace)
    cluster = LocalCluster.load(home)
    prepare_environment(workspace)
    # Ray leaves .git out of an uploaded working directory and DVC needs it: go there instead.
    tools = shlex.quote(str(Path(sys.executable).parent))
    line = f"cd {shlex.quote(str(workspace))} && PATH={tools}:$PATH exec {shlex.join(command)}"
    done = subprocess.run(
        [
            *_tool("ray"),
            *("job", "submit", f"--address={cluster.dashboard}"),
            *("--", "bash", "-c", line),
        ],
        env={k: v for k, v in os.environ.items() if k not in _ADDRESSES},
    )
    return done.returncode


def stop(workspace: Path) -> None:
    """Ends the cluster's processes, and none of another Ray's (as `ray stop` would)."""
    home = persistent_root(workspace)
    if not _note(home).is_file():
        raise ValueError("no local cluster was started here")
    pid = LocalCluster(**read_json(_note(home))).pid
    try:
        processes = [psutil.Process(pid)]
        processes += processes[0].children(recursive=True)
        os.killpg(pid, signal.SIGTERM)
    except (psutil.NoSuchProcess, ProcessLookupError):
        processes = []
    limit = time.monotonic() + _STOP_SECONDS
    while (alive := [p for p in processes if _lives(p)]) and time.monotonic() < limit:
        time.sleep(0.2)
    for process in alive:
        process.kill()
    _note(home).unlink()


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _note(home: Path) -> Path:
    return home / "runs" / "cluster.json"


def _tool(name: str) -> list[str]:
    """A command of the environment that runs us, also where that is not on the PATH."""
    return [str(Path(sys.executable).parent / name)]


def _takes_jobs(cluster: LocalCluster) -> bool:
    token = os.environ.get("RAY_AUTH_TOKEN")
    if not token:
        token = Path(os.environ["RAY_AUTH_TOKEN_PATH"]).read_text(encoding="utf-8")
    # The dashboard answers before there is an agent that would run a job: only a job tells.
    request = urllib.request.Request(
        f"{cluster.dashboard}/api/jobs/",
        data=json.dumps({"entrypoint": "true"}).encode(),
        headers={"Authorization": f"Bearer {token.strip()}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def main(arguments: Sequence[str]) -> int:
    """The command line; see the module."""
    workspace = Path.cwd()
    try:
        match list(arguments):
            case ["up"]:
                cluster = start(workspace)
                print(f"dashboard {cluster.dashboard}\nRAY_ADDRESS={cluster.address}")
                return 0
            case ["job", *command]:
                return submit(workspace, command or ["dvc", "repro"])
            case ["down"]:
                stop(workspace)
                return 0
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
