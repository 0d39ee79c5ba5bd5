"""Unbiased GenImage: GenImage without the shortcut of size and JPEG quality (arXiv 2403.17608).

GenImage's reals are JPEG files of many sizes, its fakes PNG files of one size per generator. Kept
are the images of one range of sizes, of the reals those of JPEG quality 96; the fakes are encoded
at that quality when they are read. `metadata.csv` (generator, width, height, compression_rate) is
used for files that it names; for others, and without it, the files' own headers say the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from unigendet.data.benchmarks.base import BenchmarkItem, Found, Skipped
from unigendet.data.benchmarks.files import find_beside
from unigendet.data.benchmarks.layouts import GENIMAGE
from unigendet.data.benchmarks.listing import Listing
from unigendet.data.image_files import ImageError
from unigendet.data.image_header import jpeg_quality
from unigendet.data.opener import OpenError
from unigendet.data.tables import read_rows

METADATA = "metadata.csv"
_PATHS = ("path", "filename", "file", "file_name", "image_path", "image")


@dataclass(frozen=True)
class UnbiasedGenImage:
    """Both sides in pixels; 450 to 550 suits the generators that draw 512 x 512 (Stable Diffusion,
    wukong), others need another range."""

    smallest: int = 450
    largest: int = 550
    quality: int = 96

    def scan(self, root: str) -> Iterator[Found]:
        listing = _listing(root)
        for found in GENIMAGE.scan(root):
            if isinstance(found, Skipped):
                yield found
                continue
            rows = listing.find(found.name)
            try:
                yield self._chosen(found, rows[0] if rows else None)
            except (ImageError, OpenError, ValueError) as error:
                yield Skipped(found.name, str(error).removeprefix(f"{found.name}: "))

    def _chosen(self, item: BenchmarkItem, row: Mapping[str, Any] | None) -> Found:
        if row is None:
            header = item.header()
            width, height = header.width, header.height
        else:
            width, height = int(float(row["width"])), int(float(row["height"]))
        if not all(self.smallest <= side <= self.largest for side in (width, height)):
            reason = f"{width} x {height} pixels, not {self.smallest} to {self.largest}"
            return Skipped(item.name, reason)
        if item.is_fake:
            return replace(item, recompress=self.quality)
        told = row.get("compression_rate") if row else None
        if told in (None, ""):
            with item.open() as file:
                quality = jpeg_quality(file, item.name)
        else:
            quality = int(float(str(told)))
        if quality != self.quality:
            return Skipped(item.name, f"JPEG quality {quality}, not {self.quality}")
        return item


def _listing(root: str) -> Listing[Mapping[str, Any]]:
    """The rows of metadata.csv that name a file."""
    place = find_beside(root, (METADATA,))
    rows = (row for _, row in read_rows(place)) if place else iter(())
    return Listing(
        (next((str(row[name]) for name in _PATHS if row.get(name)), ""), row)
        for row in rows
        if row.get("width") and row.get("height")
    )
