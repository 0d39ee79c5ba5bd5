"""What sources of files have in common: their settings, and items of images that lie somewhere."""

from __future__ import annotations

from pathlib import Path

from unigendet.data.benchmarks.base import REAL, BenchmarkItem
from unigendet.data.benchmarks.files import shown_name
from unigendet.data.sources.base import SourceItem
from unigendet.data.transforms import FITS


def check_settings(fit: str, val_share: float, test_share: float) -> None:
    """Raise ValueError for an unknown rule, and for shares that leave nothing for train."""
    if fit not in FITS:
        raise ValueError(f"fit is {fit!r}, not one of {', '.join(FITS)}")
    if min(val_share, test_share) < 0 or val_share + test_share >= 1:
        raise ValueError(
            f"val_share ({val_share}) and test_share ({test_share}) "
            f"must be at least 0 and leave something for train"
        )


def source_item(
    stored: BenchmarkItem, problem: str = "", *, drawn: bool = False, caption_from: str = ""
) -> SourceItem:
    """An image whose place, split, source and caption are known; `drawn`: its split by hashing."""
    return SourceItem(
        key=stored.key,
        source_id=stored.source_id,
        split=stored.split,
        path=Path(stored.location),
        caption=stored.caption,
        caption_from=caption_from,
        problem=problem,
        drawn=drawn,
        stored=stored,
    )


def unusable(place: str, name: str, problem: str, domain: str) -> SourceItem:
    """What is listed and cannot be read: a line of a table, say. Nothing else is called `name`."""
    place, name = shown_name(place), shown_name(name)
    source_id = f"{domain}/{name}"
    stored = BenchmarkItem(place, name, False, REAL, "train", "", source_id=source_id)
    return source_item(stored, problem)
