"""The one way to files whose place somebody else names: local paths and URIs of known schemes.

A location is text: a local path, or a URI such as `s3://bucket/folder`. Nothing here runs a
command or unpickles: `pipe:` and chained URIs are refused, and so is every scheme that is not in
`SCHEMES`. Names found in a stranger's table are joined by `join`, which never leaves the folder.
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from unigendet.data import http_files

SCHEMES = ("file", "memory", "s3", "gs", "gcs", "az", "abfs", "hf", "http", "https")
MAX_FILE_BYTES = 1 << 30
"""A file or a member that is read whole may be this large, in bytes."""
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(//)?")


class OpenError(ValueError):
    """A location that cannot be used; the message names it and says why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a folder holds under one name."""

    name: str
    is_folder: bool
    size: int
    """In bytes; 0 for a folder, -1 where the place does not say."""
    is_link: bool = False


def location(place: str | Path) -> str:
    """The canonical text of a place.

    Raises OpenError for a scheme that is not allowed, and for a password in the URI.
    """
    text = str(place)
    if not text or "\x00" in text:
        raise OpenError("a location must be a path or a URI, got an empty or broken text")
    match = _URI.match(text)
    if match is None or (match[2] is None and match[1].lower() != "pipe"):
        return os.path.abspath(os.path.expanduser(text))
    scheme = match[1].lower()
    if scheme not in SCHEMES:
        raise OpenError(
            f"{text}: the scheme `{scheme}:` is not opened; "
            f"use a local path or one of {', '.join(SCHEMES)}"
        )
    rest = text[match.end() :]
    if "::" in rest:
        raise OpenError(f"{text}: chained locations (`::`) are not opened")
    if ":" in rest.partition("/")[0].rpartition("@")[0]:
        shown = rest.rpartition("@")[2]
        raise OpenError(
            f"{scheme}://...@{shown}: a password in a location would end up in logs and results; "
            "leave it to the place's own credentials (environment, ~/.config/fsspec)"
        )
    if scheme == "file":
        return os.path.abspath("/" + rest.lstrip("/"))
    return f"{scheme}://{rest.rstrip('/')}"


def is_remote(place: str) -> bool:
    """Whether a canonical location is a URI."""
    return "://" in place


def base_name(place: str) -> str:
    """The last part of a location."""
    return place.rstrip("/").rsplit("/", 1)[-1]


def parent(place: str) -> str | None:
    """The folder above, or None at the top (of the disk, or of a bucket)."""
    if is_remote(place):
        scheme, rest = place.split("://", 1)
        above = posixpath.dirname(rest)
        return f"{scheme}://{above}" if above.strip("/") else None
    above = os.path.dirname(place)
    return above if above != place else None


def join(folder: str, name: str) -> str:
    """The location of `name`, a relative path found in a table, below `folder`.

    Raises OpenError where it is a URI or would lie outside of the folder.
    """
    match = _URI.match(name)
    if match is not None and (match[2] or match[1].lower() == "pipe"):
        raise OpenError("names a URI, where a path below the folder is expected")
    plain = name.replace("\\", "/")
    if not is_remote(folder) and os.path.isabs(plain):
        plain = os.path.relpath(os.path.normpath(plain), folder)
    plain = posixpath.normpath(plain)
    if not name or "\x00" in name or plain.startswith(("../", "/")) or plain in ("..", "."):
        raise OpenError("does not lie below the folder of the table that names it")
    return f"{folder.rstrip('/')}/{plain}"


def list_folder(place: str) -> list[Entry]:
    """Files and folders in a folder, by name. Links are followed. OpenError where it is none."""
    if is_remote(place):
        files, path = _filesystem(place)
        with told(place):
            if http_files.is_http(place):
                listed = http_files.entries(files, path)
                found = [Entry(name, folder, 0 if folder else -1) for name, folder in listed]
            else:
                rows = files.ls(path, detail=True)
                found = [
                    Entry(base_name(row["name"]), row["type"] == "directory", _size(row))
                    for row in rows
                ]
    else:
        with told(place), os.scandir(place) as entries:
            found = [own for entry in entries if (own := _local_entry(entry)) is not None]
    return sorted((entry for entry in found if entry.name), key=lambda entry: entry.name)


def open_binary(place: str) -> BinaryIO:
    """The file, opened for reading and seeking. Raises OpenError naming it."""
    with told(place):
        if not is_remote(place):
            return open(place, "rb")
        files, path = _filesystem(place)
        if http_files.is_http(place):
            return http_files.open_file(files, path, MAX_FILE_BYTES)
        return cast(BinaryIO, files.open(path, "rb"))


def read_bytes(place: str) -> bytes:
    """The whole file. Raises OpenError where it is absent or larger than `MAX_FILE_BYTES`."""
    with open_binary(place) as file, told(place):
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise OpenError(f"{place}: more than {MAX_FILE_BYTES >> 20} MiB")
    return data


def read_part(place: str, offset: int, size: int) -> bytes:
    """`size` bytes from `offset` on. Raises OpenError where the file is absent or shorter."""
    with open_binary(place) as file, told(place):
        file.seek(offset)
        data = file.read(size)
    if len(data) != size:
        raise OpenError(f"{place}: cut off at byte {offset + len(data)}")
    return data


def read_text(place: str) -> str:
    """A UTF-8 text, with or without a byte-order mark. Raises OpenError for another encoding."""
    try:
        return read_bytes(place).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise OpenError(
            f"{place} is not UTF-8 (byte 0x{error.object[error.start]:02x} at {error.start}): "
            "save it as UTF-8"
        ) from None


def is_file(place: str) -> bool:
    """Whether there is a file."""
    if not is_remote(place):
        return os.path.isfile(place)
    files, path = _filesystem(place)
    if http_files.is_http(place):
        return http_files.is_page(files, path) is False
    return bool(files.isfile(path))


def is_folder(place: str) -> bool:
    """Whether there is a folder."""
    if not is_remote(place):
        return os.path.isdir(place)
    files, path = _filesystem(place)
    if http_files.is_http(place):
        return http_files.is_page(files, path) is True
    return bool(files.isdir(path))


def file_state(place: str) -> object:
    """What changes when the file does: size and time, or what a remote store says of it."""
    if not is_remote(place):
        try:
            status = os.stat(place)
        except OSError:
            return None
        return status.st_size, status.st_mtime_ns
    files, path = _filesystem(place)
    try:
        return http_files.state(files, path) if http_files.is_http(place) else files.ukey(path)
    except OSError:
        return None


def file_size(place: str) -> int:
    """Of a file, in bytes; -1 where it is absent or the place does not say."""
    try:
        if not is_remote(place):
            return os.stat(place).st_size
        files, path = _filesystem(place)
        return _size({"size": files.size(path)})
    except OSError:
        return -1


def folder_identity(place: str) -> object:
    """Equal for two names of one folder (a link and what it points to)."""
    if is_remote(place):
        return place
    status = os.stat(place)
    return status.st_dev, status.st_ino


def _local_entry(entry: os.DirEntry[str]) -> Entry | None:
    """None for pipes, sockets and devices, which would block whoever opens them."""
    try:
        status = entry.stat()
    except OSError:  # a link to nothing, or into itself: reading it will say so
        return Entry(entry.name, False, -1, is_link=True)
    if stat.S_ISDIR(status.st_mode):
        return Entry(entry.name, True, 0, entry.is_symlink())
    if stat.S_ISREG(status.st_mode):
        return Entry(entry.name, False, status.st_size, entry.is_symlink())
    return None


def _size(row: dict[str, Any]) -> int:
    size = row.get("size")
    return -1 if size is None else int(size)


def _filesystem(place: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    try:
        files, path = url_to_fs(place)
    except ImportError as error:
        raise OpenError(f"{place}: {error}") from error
    return files, str(path)


class told:
    """What goes wrong with one location, as an OpenError that names it."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FileNotFoundError):
            raise OpenError(f"{self.place}: there is no such file or folder") from None
        if isinstance(error, NotADirectoryError):
            raise OpenError(f"{self.place} is not a folder") from None
        if isinstance(error, OSError):
            raise OpenError(f"{self.place}: cannot be read ({error.strerror or error})") from error
        if http_files.is_refusal(error):
            raise OpenError(f"{self.place}: the server refuses it ({error})") from error


def walk(place: str, *, skip: frozenset[str] = frozenset()) -> Iterator[tuple[str, Entry]]:
    """Every file below a folder as (its location, entry), depth first by name, one at a time.

    Hidden names and folders named in `skip` (lower case) are passed over, and links to a folder
    that they lie in. A folder that several links point to is walked under each of their names.
    """

    def below(folder: str, above: frozenset[object]) -> Iterator[tuple[str, Entry]]:
        identity = folder_identity(folder)
        if identity in above:
            return
        for entry in list_folder(folder):
            if entry.name.startswith(".") or entry.name.lower() in skip:
                continue
            inner = f"{folder.rstrip('/')}/{entry.name}"
            if entry.is_folder:
                yield from below(inner, above | {identity})
            else:
                yield inner, entry

    yield from below(place, frozenset())
