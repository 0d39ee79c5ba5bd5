"""What every benchmark adapter yields: items with an explicit class, and what was left out."""

from __future__ import annotations

import hashlib
import io
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO, Protocol

from unigendet.data.benchmarks.containers import ParquetCell, TarSpan
from unigendet.data.image_files import decode_image
from unigendet.data.image_header import ImageHeader, read_header
from unigendet.data.opener import open_binary, read_bytes
from unigendet.data.plain_text import plain

UNKNOWN = "unknown"
"""Generator of a fake whose set does not tell it."""
REAL = "real"
"""Generator of a real image that no generator's folder holds."""
NOT_DOWNLOADED = "not downloaded"
"""How the reason begins where a list of links was followed and a link was dead."""
_LONGEST_PLACE = 5000


class BenchmarkError(ValueError):
    """A folder that cannot be a benchmark as it is; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class BenchmarkItem:
    """One image of a benchmark, small enough to send to another process by the thousand."""

    location: str
    """The file, or the container that holds it."""
    name: str
    """Unique within its set: the path below the folder that was given, and a place in it."""
    is_fake: bool
    generator: str
    """As the set spells it. A real image carries the name of the generator whose folder holds it,
    or of its source, or `real`."""
    split: str
    """`train`, `val` or `test`."""
    native_label: str
    """The set's own word or number for the class."""
    member: TarSpan | ParquetCell | None = None
    caption: str = ""
    explanation: str = ""
    source_id: str = ""
    """The real image that this one is or was made from, where the set tells it."""
    original: str = ""
    """What a link leads to, the same for every link to it; empty where the name is no link's."""
    recompress: int | None = None
    """Read as a JPEG of this quality, for sets that ask for it; None as published."""

    @property
    def key(self) -> str:
        """A name of letters, digits, `_` and `-` that stays unique: fit for a tar member.

        Stage forge puts a family's name before it, so it is short of the 80 letters allowed.
        """
        readable = re.sub(r"[^A-Za-z0-9_-]+", "-", self.name.rsplit(".", 1)[0])[-48:].strip("-")
        digest = hashlib.sha256(self.name.encode("utf-8", "surrogateescape")).hexdigest()[:10]
        return f"{readable}-{digest}".lstrip("-")

    @property
    def place(self) -> str:
        """Where it lies, to be shown."""
        inside = "" if self.member is None else f", {self.name}"
        return plain(self.location + inside, _LONGEST_PLACE)

    def open(self) -> BinaryIO:
        """The encoded image, to be closed by the caller."""
        if self.member is None:
            return open_binary(self.location)
        return io.BytesIO(self.member.read(self.location))

    def read_bytes(self) -> bytes:
        """The encoded image, as published or as `recompress` asks."""
        data = self.member.read(self.location) if self.member else read_bytes(self.location)
        return data if self.recompress is None else _recompressed(data, self)

    def header(self) -> ImageHeader:
        """Native format and size. Raises ImageError or OpenError where there is no whole image."""
        with self.open() as file:
            return read_header(file, self.name)


def _recompressed(data: bytes, item: BenchmarkItem) -> bytes:
    buffer = io.BytesIO()
    decode_image(data, item.name).save(buffer, "JPEG", quality=item.recompress)
    return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class Skipped:
    """What looks like an image, or is listed as one, and is not read."""

    path: str
    reason: str

    @property
    def name(self) -> str:
        """As an item's."""
        return self.path


Found = BenchmarkItem | Skipped


class Layout(Protocol):
    """How a set lies on disk."""

    def scan(self, root: str) -> Iterator[Found]:
        """Everything below `root`, in a fixed order. Raises BenchmarkError where labels cannot be
        trusted."""


@lru_cache(maxsize=4096)
def normalised(name: str) -> str:
    """A name without case and signs: `Stable_Diffusion-v1.4` and `stablediffusionv14` are one.

    Letters of every script stay, with their marks; so does a name that is signs alone.
    """
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "".join(c for c in folded if unicodedata.category(c)[0] in "LMN") or folded


def split_of(name: object) -> str | None:
    """`train`, `val` or `test` for the usual spellings of a split, else None."""
    return _SPLITS.get(normalised(str(name)))


_SPLITS = {
    **dict.fromkeys(("train", "training", "train2017", "train2014"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "val2017", "val2014", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "testset", "testpublic"), "test"),
}
