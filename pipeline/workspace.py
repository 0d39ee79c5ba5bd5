"""Where things lie: the workspace of this run, and the home of what must outlive it."""

from __future__ import annotations

import os
from pathlib import Path

_TEMPORARY = (".dvc", "tmp", "exps")


def persistent_root(workspace: Path) -> Path:
    """The repository that keeps training state and tracking, as an absolute path.

    `dvc exp run --temp` and the queue run in a workspace under `<repository>/.dvc/tmp/exps/` that
    is deleted afterwards; what must survive it lies in `<repository>`. `UNIGENDET_HOME` names
    another place, for workspaces that lie elsewhere (the clone of a cluster job).
    """
    if home := os.environ.get("UNIGENDET_HOME"):
        return Path(home).expanduser().resolve()
    workspace = workspace.resolve()
    parts = workspace.parts
    for index in range(len(parts) - 3, 0, -1):
        if parts[index : index + 3] == _TEMPORARY:
            return Path(*parts[:index])
    return workspace
