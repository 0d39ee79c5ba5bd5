"""Where a result comes from: the code a stage imports, the git revision, one fingerprint of all."""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PACKAGES = ("stages", "pipeline", "unigendet")

PLUMBING = frozenset(
    {"artifacts", "cluster", "params", "provenance", "stage", "state", "tracking", "workspace"}
)
"""Modules of `pipeline` that carry results without deciding them, `pipeline.sections` beside them.

They are no DVC dependencies, so that a new tag in MLflow does not run everything again: what the
parameters say is tracked by value. The fingerprint of saved state does cover them.
"""


def import_closure(module: str, root: Path, *, beyond_plumbing: bool = True) -> tuple[Path, ...]:
    """Files of our packages that `module` imports, at any depth, lazily or not, itself included.

    Read from the source with `ast`, so nothing is executed; imports under `if TYPE_CHECKING` do not
    count. Without `beyond_plumbing`, plumbing and what only it imports are left out. Paths are
    relative to `root` and sorted.
    """
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        for path in _files_of(name, root):
            if path not in found and (beyond_plumbing or not _is_plumbing(path, root)):
                found.add(path)
                waiting += list(imported_modules(path, root))
    return tuple(sorted(path.relative_to(root) for path in found))


def imported_modules(path: Path, root: Path) -> Iterator[str]:
    """Names of our own modules that one file imports (`from a import b` gives `a` and `a.b`)."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    package = path.relative_to(root).with_suffix("").parts[:-1]
    for node in _executed(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parent = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*parent, *([node.module] if node.module else [])])
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in PACKAGES)


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
        children: list[ast.AST] = list(node.orelse)
    else:
        children = list(ast.iter_child_nodes(node))
    for child in children:
        yield child
        yield from _executed(child)


def _files_of(module: str, root: Path) -> Iterator[Path]:
    """The file of a module and the `__init__` of every package above it."""
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        stem = root.joinpath(*parts[:depth])
        for path in (stem / "__init__.py", stem.with_suffix(".py")):
            if path.is_file():
                yield path


def code_digest(module: str, root: Path) -> str:
    """SHA-256 over every file of `import_closure`: one changed line changes it."""
    digest = hashlib.sha256()
    for path in import_closure(module, root):
        digest.update(path.as_posix().encode() + b"\0")
        digest.update(hashlib.sha256((root / path).read_bytes()).digest())
    return digest.hexdigest()


def code_dependencies(stage: str, root: Path) -> tuple[str, ...]:
    """What dvc.yaml has to list as a stage's code, sorted: folders inside a package, else files.

    A folder and not its files, so that a new file in it needs no change of dvc.yaml.
    """
    found = set()
    for path in import_closure(f"stages.{stage}", root, beyond_plumbing=False):
        top, *inner = path.parts
        if len(inner) > 1:
            found.add(f"{top}/{inner[0]}")
        elif inner != ["__init__.py"]:
            found.add(path.as_posix())
    return tuple(sorted(found))


def _is_plumbing(path: Path, root: Path) -> bool:
    top, *inner = path.relative_to(root).parts
    return top == "pipeline" and (inner[0] == "sections" or path.stem in PLUMBING)


def fingerprint(stage: str, values: Mapping[str, Any], inputs: Mapping[str, str], code: str) -> str:
    """Sixteen hex digits of all that decides a stage's result: parameters (seed), inputs, code."""
    text = json.dumps([stage, values, inputs, code], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def git_revision(root: Path) -> str:
    """The commit that is checked out, with a `+` where files were changed or code was added; `none`
    without git."""
    commit = _git(root, "rev-parse", "HEAD")
    if not commit:
        return "none"
    changed = _git(root, "status", "--porcelain", "-uno")
    added = _git(root, "ls-files", "--others", "--exclude-standard", "--", *PACKAGES)
    return commit + ("+" if changed or added else "")


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=30
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
