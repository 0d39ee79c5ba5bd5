"""Ray, on loopback with a token, or the cluster that `RAY_ADDRESS` names."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from threading import Thread

from pipeline.params import Params
from pipeline.tracking import check_shared, tracking_uri
from pipeline.workspace import persistent_root

LOOPBACK = "127.0.0.1"
_DASHBOARD = "RAY_API_SERVER_ADDRESS"


@contextmanager
def ray_session(params: Params, workspace: Path, *, ahead: Sequence[str] = ()) -> Iterator[None]:
    """Ray is connected inside the block, and what was started here is stopped after it.

    `ahead` names modules to import while Ray's processes start: it leaves this one idle for long.
    """
    prepare_environment(workspace)
    import ray

    Thread(target=lambda: [import_module(name) for name in ahead], daemon=True).start()
    if os.environ.get("RAY_ADDRESS"):
        # The workers must run this workspace's code and not what they have installed.
        ray.init(
            runtime_env={"env_vars": {"PYTHONPATH": os.environ["PYTHONPATH"]}},
            log_to_driver=True,
        )
    else:
        # Ray's own processes look for "the" dashboard of this machine and would find another
        # session's: tell them. They inherit the environment, so the port is chosen beforehand.
        port = free_port()
        os.environ[_DASHBOARD] = f"http://{LOOPBACK}:{port}"
        ray.init(
            # Without it Ray would join whatever cluster this machine ran last.
            address="local",
            num_cpus=params.cluster.num_cpus or None,
            object_store_memory=params.cluster.object_store_mb * 2**20,
            include_dashboard=True,
            dashboard_host=LOOPBACK,
            dashboard_port=port,
            _node_ip_address=LOOPBACK,
            log_to_driver=True,
        )
    try:
        addresses = [str(node["NodeManagerAddress"]) for node in ray.nodes() if node["Alive"]]
        check_shared(tracking_uri(params, persistent_root(workspace)), addresses)
        yield
    finally:
        ray.shutdown()
        if not os.environ.get("RAY_ADDRESS"):
            os.environ.pop(_DASHBOARD, None)


def prepare_environment(workspace: Path) -> None:
    """Sets what Ray reads when it is imported or started; call it before `import ray`.

    Without the first variable Ray rewrites 127.0.0.1 to the network card's address and listens on
    every interface; without a token any local user can run code through the dashboard's port.
    """
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_DEDUP_LOGS", "1")
    # A busy machine needs longer than Ray's minute to import what its dashboard is made of.
    os.environ.setdefault("RAY_DASHBOARD_STARTUP_TIMEOUT_S", "180")
    code = str(workspace.resolve())
    known = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and p != code]
    os.environ["PYTHONPATH"] = os.pathsep.join([code, *known])
    if not (os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")):
        # Another's cluster has another's token, which Ray itself looks for in its usual place.
        if os.environ.get("RAY_ADDRESS") and (Path.home() / ".ray" / "auth_token").exists():
            return
        token = persistent_root(workspace) / "runs" / "ray_token"
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(_token_file(token))


def free_port() -> int:
    """A port of the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _token_file(path: Path) -> Path:
    """The token that everything on this machine shares, made once, readable by its owner only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if path.stat().st_mode & 0o077:
            raise ValueError(f"{path} can be read by others: chmod 600 it, or delete it") from None
        return path
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(32))
    return path
