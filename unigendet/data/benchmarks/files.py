"""Which files below a folder are images to be judged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from unigendet.data.benchmarks.base import Skipped
from unigendet.data.image_header import HEAD_BYTES, SUFFIXES, starts_like_image
from unigendet.data.opener import (
    OpenError,
    base_name,
    is_file,
    is_folder,
    list_folder,
    open_binary,
    parent,
    walk,
)

NO_IMAGES = frozenset(
    ("__macosx", "mask", "masks", "annotation", "annotations", "annoations", "groundtruth", "gt")
)
"""Folders, in lower case, whose pictures are no images of a set."""
RAW = (".nef", ".cr2", ".cr3", ".dng", ".arw", ".orf", ".raf")
ARCHIVES = (".zip", ".7z", ".rar", ".gz", ".tar", ".tgz")


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file that looks like an image."""

    location: str
    parts: tuple[str, ...]
    """Folders between the given one and the file, from the top."""
    name: str
    """The path below the given folder."""

    @property
    def name_is_utf8(self) -> bool:
        r"""False where `name` shows bytes that are not UTF-8 as `\udcff`."""
        return self.location.endswith(f"/{self.name}")


def image_files(root: str, *, skip: frozenset[str] = NO_IMAGES) -> Iterator[ImageFile | Skipped]:
    """Every image below `root`, by its ending or else its first bytes; empty files as skipped."""
    for location, entry in walk(root, skip=skip):
        name = shown_name(location[len(root.rstrip("/")) + 1 :])
        suffix = _suffix(entry.name)
        if suffix in RAW:
            yield Skipped(name, "a camera's raw file: convert it to TIFF or PNG")
        elif entry.size == 0:
            if suffix in SUFFIXES or not suffix:
                yield Skipped(name, "the file is empty")
        elif suffix in SUFFIXES or _starts_like_image(location):
            yield ImageFile(location, tuple(name.split("/")[:-1]), name)


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


def _starts_like_image(location: str) -> bool:
    try:
        with open_binary(location) as file:
            return starts_like_image(file.read(HEAD_BYTES))
    except OpenError:
        return False
