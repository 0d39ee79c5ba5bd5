"""Which files below a folder are images to be judged."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from unigendet.data.benchmarks.base import Skipped
from unigendet.data.image_header import HEAD_BYTES, SUFFIXES, starts_like_image
from unigendet.data.opener import (
    Entry,
    OpenError,
    base_name,
    is_file,
    is_folder,
    is_remote,
    list_folder,
    open_binary,
    parent,
    walk,
)
from unigendet.data.unread_kinds import unread_ending, unread_start

NO_IMAGES = frozenset(
    ("__macosx", "mask", "masks", "annotation", "annotations", "annoations", "groundtruth", "gt")
)
"""Folders, in lower case, whose pictures are no images of a set."""
ARCHIVES = (".zip", ".7z", ".rar", ".gz", ".tar", ".tgz")


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file that looks like an image."""

    location: str
    parts: tuple[str, ...]
    """Folders between the given one and the file, from the top."""
    name: str
    """The path below the given folder."""
    original: str = ""
    """What a link on the way leads to: as a `name` where it lies below the given folder, else its
    path."""

    @property
    def name_is_utf8(self) -> bool:
        r"""False where `name` shows bytes that are not UTF-8 as `\udcff`."""
        return self.location.endswith(f"/{self.name}")


def image_files(root: str, *, skip: frozenset[str] = NO_IMAGES) -> Iterator[ImageFile | Skipped]:
    """Every image below `root`, by its ending or else its first bytes; empty files, and pictures
    of kinds that are not read, as skipped."""
    originals = _Originals(root)
    for location, entry in walk(root, skip=skip):
        name = shown_name(location[len(root.rstrip("/")) + 1 :])
        suffix = _suffix(entry.name)
        if reason := unread_ending(suffix):
            yield Skipped(name, reason)
        elif entry.size == 0:
            if suffix in SUFFIXES or not suffix:
                yield Skipped(name, "the file is empty")
        else:
            head = b"" if suffix in SUFFIXES else _head(location)
            if suffix in SUFFIXES or starts_like_image(head):
                original = originals.find(location, entry)
                yield ImageFile(location, tuple(name.split("/")[:-1]), name, original)
            elif reason := unread_start(head):
                yield Skipped(name, reason)


class _Originals:
    """What links below a folder lead to; each folder's is looked up once."""

    def __init__(self, root: str) -> None:
        self._root = root if is_remote(root) else os.path.realpath(root)
        self._start = len(root.rstrip("/")) + 1
        self._folders: dict[str, str] = {}

    def find(self, location: str, entry: Entry) -> str:
        """As `ImageFile.original`."""
        if is_remote(location):
            return ""
        folder = os.path.dirname(location)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        path = os.path.join(self._folders[folder], entry.name)
        path = os.path.realpath(path) if entry.is_link else path
        within = path.removeprefix(f"{self._root.rstrip('/')}/")
        return "" if within == location[self._start :] else shown_name(within)


def shown_name(path: str) -> str:
    """A path that UTF-8 can write: bytes of another encoding in a file's name as `\\udcff`."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")


def archives(root: str) -> list[str]:
    """Names of the first few archives below `root`, for a message that says to unpack them."""
    found: list[str] = []
    for location, entry in walk(root):
        if entry.name.lower().endswith(ARCHIVES):
            found.append(location[len(root.rstrip("/")) + 1 :])
            if len(found) == 3:
                break
    return found


def find_beside(root: str, names: tuple[str, ...]) -> str | None:
    """The first of `names` below the folder (one level deep), the folder itself, or up to three
    above it."""
    within = [f"{root}/{entry.name}" for entry in list_folder(root) if entry.is_folder]
    above: list[str] = []
    up = parent(root)
    while up is not None and len(above) < 3 and is_folder(up):
        above.append(up)
        up = parent(up)
    places = (f"{folder}/{name}" for folder in (root, *within, *above) for name in names)
    return next((place for place in places if is_file(place)), None)


def own_names(root: str, depth: int = 3) -> tuple[str, ...]:
    """Names of the folder itself and those above it, the nearest first."""
    names: list[str] = []
    above: str | None = root
    while above is not None and len(names) < depth:
        names.append(base_name(above))
        above = parent(above)
    return tuple(names)


def _suffix(name: str) -> str:
    dot = name.rfind(".")
    return name[dot:].lower() if dot > 0 else ""


def _head(location: str) -> bytes:
    """The first bytes of a file, none where it cannot be opened."""
    try:
        with open_binary(location) as file:
            return file.read(HEAD_BYTES)
    except OpenError:
        return b""
