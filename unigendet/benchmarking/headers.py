"""What the files of a set's images say without the picture, for the codec-and-size audit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from unigendet.data.audit import AuditItem, some_sources
from unigendet.data.benchmarks.base import BenchmarkItem
from unigendet.data.image_files import ImageError
from unigendet.data.image_header import header_facts, header_of
from unigendet.data.opener import OpenError
from unigendet.data.source_ids import with_sources

Progress = Callable[[int, int], None]
"""Called with how many are done, and of how many."""


def header_items(
    items: Sequence[BenchmarkItem], *, seed: int = 0, progress: Progress | None = None
) -> list[AuditItem]:
    """The header of each file, of some thousands at most; no picture is decoded that looks whole.

    An image that cannot be read is passed over: judging names it.
    """
    chosen = some_sources(with_sources(items), source_of, seed=seed)
    found = []
    for done, item in enumerate(chosen, start=1):
        try:
            data = item.read_bytes()
            header_of(data, item.name)
            found.append(AuditItem(header_facts(data), source_of(item), item.is_fake))
        except (ImageError, OpenError):
            continue
        finally:
            if progress is not None:
                progress(done, len(chosen))
    return found


def source_of(item: BenchmarkItem) -> str:
    """The real image that it is or was made from; itself, or what it is a link to, where its set
    does not tell."""
    return item.source_id or item.original or item.name
