"""Profiles, whole params files by name; `make use PROFILE=...` puts one in params.yaml's place."""

from __future__ import annotations

import difflib
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from pipeline.params import load_params

_REPOSITORY = Path(__file__).resolve().parents[1]


def find_profile(name: str, workspace: Path) -> Path:
    """The params file that `name` means: a path, or a profile of the workspace or the repository.

    Raises `ValueError` where there is none, naming those that there are.
    """
    path = Path(name)
    if path.suffix in {".yaml", ".yml"}:
        return path
    folders = [workspace / "profiles", _REPOSITORY / "profiles"]
    for folder in folders:
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    raise ValueError(_unknown(name, {p.stem for folder in folders for p in folder.glob("*.yaml")}))


def use_profile(name: str, workspace: Path) -> None:
    """Copies `profiles/<name>.yaml` to params.yaml once it is checked.

    Raises `ValueError` where there is no such profile, where it is not valid, and where params.yaml
    holds changes that would be lost.
    """
    folder = workspace / "profiles"
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in names:
        raise ValueError(_unknown(name, set(names)))
    load_params(folder / f"{name}.yaml")
    target = workspace / "params.yaml"
    if target.exists() and target.read_bytes() not in _known(workspace, names):
        raise ValueError(
            "params.yaml holds changes that are in no profile and no commit: commit it, or copy it "
            "to profiles/ under a name of its own, then ask again"
        )
    target.write_bytes((folder / f"{name}.yaml").read_bytes())


def _unknown(name: str, names: Collection[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"there is no profile {name!r}; {hint}profiles: {', '.join(sorted(names))}"


def _known(workspace: Path, names: Sequence[str]) -> list[bytes]:
    committed = subprocess.run(
        ["git", "-C", str(workspace), "show", "HEAD:./params.yaml"], capture_output=True
    )
    profiles = [(workspace / "profiles" / f"{name}.yaml").read_bytes() for name in names]
    return [*profiles, committed.stdout]


def main(arguments: Sequence[str]) -> int:
    """`python -m pipeline.profiles NAME`."""
    if len(arguments) != 1:
        print("usage: python -m pipeline.profiles NAME", file=sys.stderr)
        return 2
    try:
        use_profile(arguments[0], Path.cwd())
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"params.yaml is now profile {arguments[0]}; `dvc repro` runs what it changes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
