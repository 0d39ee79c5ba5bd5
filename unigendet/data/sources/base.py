"""What every source of images offers: a cheap list of items, and reading one of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from unigendet.data.benchmarks.base import BenchmarkItem
from unigendet.types import Sample

CAPTIONS_FROM = ("table", "text file", "file name")


@dataclass(frozen=True, slots=True)
class SourceItem:
    """One image to be read, small enough to send to another process by the thousand."""

    key: str
    """Unique within its split; letters, digits, `_` and `-` only (it names a tar member)."""
    source_id: str
    split: str
    path: Path
    """The local file. Where `stored` is a URI, nothing but its name is meant."""
    box: tuple[int, int, int] | None = None
    """Left, top and side of the crop, in pixels of the picture as the source scales it."""
    crop: int = 0
    """Which square cut from the picture; 0 is the picture as its rule brings it to size."""
    caption: str | None = None
    """None where the source measures the caption on the pixels."""
    caption_from: str = ""
    """One of `CAPTIONS_FROM`, where the source looks for captions in all of these."""
    problem: str = ""
    """Why it cannot be used, where the list shows that already: then it is not read."""
    drawn: bool = False
    """Whether its split was drawn by hashing, and is not the set's own."""
    stored: BenchmarkItem | None = None
    """Where the image lies, for sources that also read URIs and containers."""

    @property
    def fake(self) -> bool:
        """Whether its set labels it so."""
        return self.stored is not None and self.stored.is_fake

    @property
    def place(self) -> str:
        """Where the image lies, to be shown."""
        return str(self.path) if self.stored is None else self.stored.place

    @property
    def location(self) -> str:
        """The file, or the container, as `unigendet.data.opener` takes it."""
        return str(self.path) if self.stored is None else self.stored.location


class Source(Protocol):
    """A source of images. Picklable; reading is a function of the item alone."""

    @property
    def domain(self) -> str: ...

    def items(self) -> list[SourceItem]:
        """Every image of every split, in a fixed order."""

    def read(self, item: SourceItem) -> Sample:
        """Decode, check and caption one image."""


def read_all(source: Source) -> Iterator[Sample]:
    """Every sample of `source`, in the order of `items`."""
    for item in source.items():
        yield source.read(item)
