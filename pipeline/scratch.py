"""A copy of the workspace in another folder, to run the DAG there without touching this one."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path


def copy_workspace(workspace: Path, target: Path, *, params: Path) -> None:
    """Copies what git tracks or would track, `params` as its params.yaml, and commits it there.

    The copy is a git and DVC repository of its own: cache, state and tracking stay in it.
    """
    target.mkdir(parents=True, exist_ok=True)
    listed = subprocess.run(
        ["git", "-C", str(workspace), "ls-files", "-z", "-co", "--exclude-standard"],
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        source = workspace / name
        # A file whose deletion is not committed is still listed; dvc.lock is of other params.
        if source.is_file() and name != "dvc.lock":
            place = target / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, place)
    shutil.copyfile(params, target / "params.yaml")
    _git(target, "init", "--quiet", "--initial-branch=main")
    _git(target, "add", "--all")
    _git(target, "commit", "--quiet", "--no-verify", "--message", "Scratch copy")


def stage_environment() -> dict[str, str]:
    """The environment for commands in a copy: nothing that points back at this workspace."""
    own = {"UNIGENDET_HOME", "UNIGENDET_FRESH", "DVC_ROOT", "DVC_STAGE", "MLFLOW_TRACKING_URI"}
    return {name: value for name, value in os.environ.items() if name not in own}


def _git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=scratch", "-c", "user.email=scratch@localhost"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True)
