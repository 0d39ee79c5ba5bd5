"""What is opened, where, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from unigendet.data.opener import (
    OpenError,
    is_file,
    is_folder,
    join,
    list_folder,
    location,
    open_binary,
    parent,
    read_bytes,
    read_text,
    walk,
)


@pytest.fixture
def memory() -> Iterator[str]:
    files = fsspec.filesystem("memory")
    for name, data in {"set/b/1.txt": b"one", "set/a.txt": b"two", "set/.x": b"h"}.items():
        files.pipe_file(f"/{name}", data)
    yield "memory://set"
    files.rm("/set", recursive=True)


def test_local_paths_file_uris_and_remote_uris_read_alike(tmp_path: Path, memory: str) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "1.txt").write_text("one")
    (tmp_path / "a.txt").write_text("two")
    (tmp_path / ".x").write_text("h")
    for place in (str(tmp_path), tmp_path.as_uri(), memory):
        root = location(place)
        assert is_folder(root) and not is_file(root)
        assert [(e.name, e.is_folder, e.size) for e in list_folder(root)] == [
            *((".x", False, 1), ("a.txt", False, 3), ("b", True, 0))
        ]
        names = [where[len(root) :] for where, _ in walk(root)]
        assert names == ["/a.txt", "/b/1.txt"]
        assert read_text(f"{root}/b/1.txt") == "one" and parent(f"{root}/b") == root
        with open_binary(f"{root}/a.txt") as file:
            file.seek(1)
            assert file.read() == b"wo"
        for absent in (f"{root}/none", f"{root}/none/deeper"):
            with pytest.raises(OpenError, match="no such file"):
                read_bytes(absent)
    assert location("~/x") == os.path.expanduser("~/x")


@pytest.mark.parametrize(
    "place",
    [
        *("pipe:cat /etc/passwd", "PIPE:ls", "ssh://host/x", "github://o/r", "ftp://host/x"),
        *("zip://a::file:///x.zip", "s3://bucket/a::http://host/b", "simplecache::s3://b/x"),
        *("reference://x", "dask://x", "", "a\x00b", "python://x"),
    ],
)
def test_other_schemes_and_chains_are_refused(place: str) -> None:
    if place.startswith("simplecache::"):  # no scheme at all: a local name that is not there
        assert not is_file(location(place))
        return
    with pytest.raises(OpenError):
        location(place)


@pytest.mark.parametrize("folder", ["/data/set", "s3://bucket/set"])
def test_names_in_tables_stay_in_their_folder(folder: str) -> None:
    assert join(folder, "a/b.png") == f"{folder}/a/b.png"
    assert join(folder, "./a\\b.png") == f"{folder}/a/b.png"
    assert join(folder, "a/../b.png") == f"{folder}/b.png"
    names = ["../x.png", "a/../../x.png", "/etc/passwd", "..", ".", "", "file:///etc/passwd"]
    for name in [*names, "http://host/x.png", "pipe:ls", "..\\x.png", "a\x00.png"]:
        with pytest.raises(OpenError):
            join(folder, name)
    assert join("/data/set", "/data/set/a.png") == "/data/set/a.png"
    assert join("/data/set", "odd:name.png") == "/data/set/odd:name.png"


def test_text_is_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbfname")
    assert read_text(str(path)) == "name"
    path.write_bytes("café".encode("latin-1"))
    with pytest.raises(OpenError, match=r"t\.csv is not UTF-8 \(byte 0xe9 at 3\)"):
        read_text(str(path))


def test_a_password_in_a_location_is_refused_and_not_shown() -> None:
    with pytest.raises(OpenError, match=r"https://\.\.\.@host/set: a password") as refused:
        location("https://me:secret@host/set")
    assert "secret" not in str(refused.value) and "me" not in str(refused.value).split(":")[0]
    for fine in ("abfs://box@account/set", "https://host:8080/a@b:c", "s3://bucket/a:b@c"):
        assert location(fine) == fine


def test_a_scheme_without_its_package_says_which(tmp_path: Path) -> None:
    with pytest.raises(OpenError, match="gcsfs"):
        list_folder(location("gs://bucket/x"))


def test_what_may_not_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(OpenError, match="is not a folder"):
        (tmp_path / "f").write_text("")
        list_folder(str(tmp_path / "f"))
    with pytest.raises(OpenError, match="cannot be read"):
        read_bytes(str(tmp_path))
