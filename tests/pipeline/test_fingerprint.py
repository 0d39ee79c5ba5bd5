"""Saved state is taken up only by the same code, parameters, inputs and seed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pipeline.artifacts import RECORDS, tree_hash
from pipeline.provenance import (
    code_dependencies,
    code_digest,
    fingerprint,
    git_revision,
    import_closure,
)
from pipeline.stage import StageContext, run_stage
from pipeline.workspace import persistent_root


def _interrupted(workspace: Path) -> tuple[str, bool]:
    """Runs a stage that fails; its fingerprint, and whether it took up earlier state."""
    seen: list[tuple[str, bool]] = []

    def fail(context: StageContext) -> None:
        seen.append((context.fingerprint, context.resumed))
        raise ValueError("interrupted")

    assert run_stage("shard", fail, workspace) == 1
    return seen[0]


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_same_everything_resumes(workspace: Path) -> None:
    first, _ = _interrupted(workspace)
    assert _interrupted(workspace) == (first, True)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("unigendet/data/tiles.py", "SIZE = 64", "SIZE = 65"),
        ("pipeline/sharding.py", "def shard", "# fixed\ndef shard"),
        ("params.yaml", "seed: 0", "seed: 1"),
        ("params.yaml", "shard_mb: ", "shard_mb: 1"),
    ],
)
def test_a_change_does_not_resume(workspace: Path, name: str, old: str, new: str) -> None:
    first, _ = _interrupted(workspace)
    _replace(workspace / name, old, new)
    second, resumed = _interrupted(workspace)
    assert second != first
    assert not resumed


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("unigendet/data/unrelated.py", "OTHER = 1", "OTHER = 2"),
        ("params.yaml", "title: ", "title: New "),
        ("params.yaml", "max_failures: ", "max_failures: 1"),
    ],
)
def test_what_the_stage_does_not_read_changes_nothing(
    workspace: Path, name: str, old: str, new: str
) -> None:
    first, _ = _interrupted(workspace)
    _replace(workspace / name, old, new)
    assert _interrupted(workspace) == (first, True)


def test_fingerprint_covers_every_part() -> None:
    base = fingerprint("shard", {"seed": 0}, {"forge": "a"}, "code")
    others = {
        fingerprint("forge", {"seed": 0}, {"forge": "a"}, "code"),
        fingerprint("shard", {"seed": 1}, {"forge": "a"}, "code"),
        fingerprint("shard", {"seed": 0}, {"forge": "b"}, "code"),
        fingerprint("shard", {"seed": 0}, {"forge": "a"}, "edoc"),
    }
    assert len(others | {base}) == 5


def test_import_closure_is_read_from_the_source(workspace: Path) -> None:
    names = [path.as_posix() for path in import_closure("stages.shard", workspace)]
    assert names == [
        "pipeline/__init__.py",
        "pipeline/sharding.py",
        "stages/__init__.py",
        "stages/shard.py",
        "unigendet/__init__.py",
        "unigendet/data/__init__.py",
        "unigendet/data/tiles.py",
    ]
    assert code_dependencies("shard", workspace) == (
        "pipeline/sharding.py",
        "stages/shard.py",
        "unigendet/data",
    )


def test_import_closure_reads_every_form(tmp_path: Path) -> None:
    package = tmp_path / "unigendet"
    package.mkdir()
    sources = {
        "__init__.py": "",
        "a.py": (
            "from typing import TYPE_CHECKING\n"
            "import unigendet.b as b\nfrom . import c\nfrom .d import x\n"
            "if TYPE_CHECKING:\n    from unigendet import types_only\n"
            "def f():\n    try:\n        from unigendet.lazy import y\n"
            "    except ImportError:\n        pass\n"
        ),
        **{f"{name}.py": "" for name in ("b", "c", "d", "lazy", "types_only", "unused")},
    }
    for name, text in sources.items():
        (package / name).write_text(text)
    found = {path.stem for path in import_closure("unigendet.a", tmp_path)}
    assert found == {"__init__", "a", "b", "c", "d", "lazy"}
    before = code_digest("unigendet.a", tmp_path)
    (package / "lazy.py").write_text("y = 1\n")
    assert code_digest("unigendet.a", tmp_path) != before


def test_records_of_a_run_are_no_content(tmp_path: Path) -> None:
    (tmp_path / "tiles").mkdir()
    (tmp_path / "tiles" / "a.png").write_bytes(b"1")
    before = tree_hash(tmp_path)
    for name in RECORDS:
        (tmp_path / name).write_text("{}")
    assert tree_hash(tmp_path) == before
    (tmp_path / "tiles" / "a.png").rename(tmp_path / "tiles" / "b.png")
    renamed = tree_hash(tmp_path)
    (tmp_path / "tiles" / "b.png").write_bytes(b"2")
    assert len({before, renamed, tree_hash(tmp_path)}) == 3


@pytest.mark.parametrize("inner", ["tmpabc", "standalone/tmpabc"])
def test_temporary_workspaces_belong_to_their_repository(
    tmp_path: Path, inner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UNIGENDET_HOME", raising=False)
    workspace = tmp_path / "repo" / ".dvc" / "tmp" / "exps" / inner
    workspace.mkdir(parents=True)
    assert persistent_root(workspace) == tmp_path / "repo"
    assert persistent_root(tmp_path / "repo") == tmp_path / "repo"
    monkeypatch.setenv("UNIGENDET_HOME", str(tmp_path / "home"))
    assert persistent_root(workspace) == tmp_path / "home"


def test_a_revision_tells_of_changed_files_and_of_new_code(tmp_path: Path) -> None:
    assert git_revision(tmp_path) == "none"

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@localhost"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True)

    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "old.py").write_text("1")
    git("init", "--quiet")
    git("add", "--all")
    git("commit", "--quiet", "--message", "one")
    clean = git_revision(tmp_path)
    assert len(clean) == 40
    (tmp_path / "picture.png").write_text("a new file that is no code")
    assert git_revision(tmp_path) == clean
    (tmp_path / "pipeline" / "new.py").write_text("2")
    assert git_revision(tmp_path) == clean + "+"
    (tmp_path / "pipeline" / "new.py").unlink()
    (tmp_path / "pipeline" / "old.py").write_text("3")
    assert git_revision(tmp_path) == clean + "+"
