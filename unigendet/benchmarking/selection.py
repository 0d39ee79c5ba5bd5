"""Which images of a set are judged: one split of it, whole or an even part, pinned by a digest."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from unigendet.data.benchmarks.base import BenchmarkError, BenchmarkItem, Skipped, split_of
from unigendet.data.benchmarks.check import items, nothing_found, one_class_problem
from unigendet.data.benchmarks.containers import TarSpan
from unigendet.data.benchmarks.registry import Benchmark, find_benchmark
from unigendet.data.opener import file_size, location

EVERY = "all"
"""In the place of a split: all of them."""
_FIRST = ("test", "val", "train")
"""The split that is taken where none is asked for: the first of these that the set has."""
Group = tuple[str, bool]
"""(generator, is fake)."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What is judged of a set."""

    benchmark: Benchmark
    place: str
    split: str
    """`train`, `val`, `test` or `all`."""
    items: tuple[BenchmarkItem, ...]
    """In the set's order."""
    listed: int
    """Images of the split, of which `items` may be a part."""
    left_out: tuple[Skipped, ...]
    """What lies there, in any split, and cannot be judged, each with the reason."""

    @property
    def problem(self) -> str:
        """Why only recall can be told; empty where both classes are there."""
        kinds = {item.is_fake for item in self.items}
        return "" if len(kinds) == 2 else one_class_problem(self.benchmark, len(self.items), *kinds)

    def digest(self) -> str:
        """SHA-256 over name, class and size in bytes of every item (of its container's file where
        that holds rows): the set lies outside of the pipeline, so this pins what was read."""
        found, sizes = hashlib.sha256(), dict[str, int]()
        for item in self.items:
            if isinstance(item.member, TarSpan):
                size = item.member.size
            elif item.location in sizes:
                size = sizes[item.location]
            else:
                size = sizes[item.location] = file_size(item.location)
            line = f"{item.name}\0{item.is_fake:d}\0{size}\n"
            found.update(line.encode("utf-8", "surrogateescape"))
        return found.hexdigest()


def select(
    name: str, place: str, *, split: str | None = None, limit: int | None = None
) -> Selection:
    """Choose what to judge of the set `name` at `place`, a path or a URI. Opens no image.

    Args:
        split: `train`, `val`, `test` or `all`; the set's test images where None, those of val or
            train where it has no others.
        limit: at most so many images, an even share of each generator's real and fake ones,
            evenly spaced through the set's order: the same ones each time.

    Raises BenchmarkError or OpenError that says what is wrong with the place and what to do.
    """
    benchmark = find_benchmark(name)
    wanted = None if split is None else EVERY if split == EVERY else split_of(split)
    if split is not None and wanted is None:
        raise BenchmarkError(f"a split is train, val, test or {EVERY}; got {split!r}")
    found, left_out = list[BenchmarkItem](), list[Skipped]()
    for one in items(benchmark, place):
        if isinstance(one, Skipped):
            left_out.append(one)
        else:
            found.append(one)
    if not found:
        raise BenchmarkError(nothing_found(benchmark, location(place), len(left_out)))
    there = Counter(item.split for item in found)
    wanted = wanted or next(one for one in _FIRST if there[one])
    if wanted != EVERY and not there[wanted]:
        have = ", ".join(f"{one} ({n} images)" for one, n in sorted(there.items()))
        raise BenchmarkError(f"{place} has no images of the split {wanted}; it has {have}")
    chosen = [item for item in found if wanted in (EVERY, item.split)]
    part = chosen if limit is None else even_part(chosen, limit)
    return Selection(benchmark, place, wanted, tuple(part), len(chosen), tuple(left_out))


def even_part(chosen: list[BenchmarkItem], limit: int) -> list[BenchmarkItem]:
    """At most `limit` items, as many of each (generator, class) as of every other, as far as they
    reach. Raises BenchmarkError where the limit is below one of each."""
    places: dict[Group, list[int]] = {}
    for place, item in enumerate(chosen):
        places.setdefault((item.generator, item.is_fake), []).append(place)
    if limit < len(places):
        raise BenchmarkError(
            f"a limit of {limit} leaves out some of the {len(places)} generators and classes that "
            f"are there: give at least {len(places)}"
        )
    kept = list[int]()
    for group, share in _shares({group: len(own) for group, own in places.items()}, limit).items():
        own = places[group]
        kept += [own[(2 * at + 1) * len(own) // (2 * share)] for at in range(share)]
    return [chosen[place] for place in sorted(kept)]


def _shares(sizes: Mapping[Group, int], limit: int) -> dict[Group, int]:
    """What small groups leave over goes to the larger ones."""
    shares, left = dict[Group, int](), limit
    for done, (size, group) in enumerate(sorted((n, group) for group, n in sizes.items())):
        shares[group] = min(size, left // (len(sizes) - done))
        left -= shares[group]
    return shares
