"""Which images of a set have a source in common, where its cells name images instead of sources.

A table says `source_id: r0.png` of what was made from r0.png, and often nothing of r0.png itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from unigendet.data.benchmarks.base import BenchmarkItem
from unigendet.data.benchmarks.containers import ParquetCell


def with_sources(items: Sequence[BenchmarkItem]) -> list[BenchmarkItem]:
    """The same items; one that another's `source_id` names belongs to that source.

    Names lead on: what names an image that was itself made from another has the source of that one.
    Whatever nobody names and says nothing stays without a source.
    """
    told = {item.source_id for item in items if item.source_id}
    leads: dict[str, str] = {}
    for item in items:
        for name in _names(item):
            if name in told and item.source_id:
                leads.setdefault(name, item.source_id)
    first = _ends(leads)
    return [
        replace(item, source_id=first.get(own, own))
        if (own := item.source_id or next((name for name in _names(item) if name in told), ""))
        else item
        for item in items
    ]


def _names(item: BenchmarkItem) -> list[str]:
    """What another's cell may call it: its name in the set, or the key of its row."""
    if not isinstance(item.member, ParquetCell):
        return [item.name]
    row = item.member.row
    key = item.name.partition(f"#{item.member.group}.{row}:")[2]
    # Without a column of keys the row's number stands there, which nobody means.
    return [item.name, key] if key not in ("", str(row)) else [item.name]


def _ends(leads: Mapping[str, str]) -> dict[str, str]:
    """Where each name leads in the end; names that lead in a circle, to its first in the
    alphabet."""
    ends: dict[str, str] = {}
    for start in leads:
        path, name = dict[str, None](), start
        while name in leads and name not in path and name not in ends:
            path[name] = None
            name = leads[name]
        if name in path:
            way = list(path)
            name = min(way[way.index(name) :])
        ends |= dict.fromkeys(path, ends.get(name, name))
    return ends
