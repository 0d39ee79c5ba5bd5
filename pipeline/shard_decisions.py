"""Between the passes of the stage shard: what is left out, what is linked, and where it goes.

Works on the rows of all parts, in the plan's order, and reads no image.

Images that belong together (`unigendet.data.duplicates`: one source, or alike) are a group, and no
two sets have images of one group. Its home is the first of the sets that any of them was planned
for, in the order of precedence. What becomes of the others follows from how they came there:

- If the home has an image of the group by a published split (or one that the user wrote), the
  others are left out. So a published test set neither loses an image to training nor gets one, and
  training has no relative of it; val gives way to test in the same manner.
- If all that the home has of the group was drawn there by hashing, the whole group goes there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.shard_quarantine import Checked
from unigendet.data.duplicates import Bools, Duplicates, Ints, find_duplicates

LEFT_OUT = "duplicates.jsonl"
CROWD, CROWD_SHARE = 5, 0.05
"""A group of at least so many sources, and of more than this share of them all, is told."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the planned images: `planned` is the sum of the next four."""

    planned: int
    written: int
    left_out: int
    """The same picture, of the same class, comes earlier; and those of `kept_apart`."""
    quarantined: int
    not_downloaded: int
    """Dead links of a list that was downloaded."""
    linked: int
    """Pairs of a fake and a real image that look the same: one `source_id`."""
    moved: int
    """Written into another set than planned, with the group that they belong to."""
    kept_apart: int
    """Left out of training, or of val, as relatives of an image of a published evaluation set."""

    def __post_init__(self) -> None:
        known = self.written + self.left_out + self.quarantined + self.not_downloaded
        assert self.planned == known, self


@dataclass(frozen=True, slots=True)
class Crowd:
    """Many sources that became one group, by a title or a frame that they share perhaps."""

    sources: int
    of: int
    """Sources in all."""
    set_name: str
    """Its home."""


@dataclass(frozen=True, slots=True)
class Decisions:
    """The rows to write, and an account of the others."""

    rows: Any
    """A pyarrow table; columns `set`, `split` and `source_id` as decided."""
    counts: Counts
    left_out: list[dict[str, Any]]
    """One line per picture left out: its key and set, those of one that stays, and the reason."""
    crowds: list[Crowd]


def check_reals(planned: Iterable[tuple[str, bool]], sets: Sequence[str]) -> None:
    """Raise ValueError where one of `sets` has no real image: (set, is fake) of every image."""
    images = Counter(planned)
    if without := [name for name in sets if not images[name, False]]:
        told = "; ".join(
            f"{name}: {images[name, False]} real, {images[name, True]} fake" for name in sets
        )
        raise ValueError(
            f"the source gives no real images for {', '.join(without)} ({told}; not counted are "
            "unreadable ones, and pictures that are in an earlier set): the generator learns from "
            "real images, and fakes are made from them and judged against them. Add real images, "
            "or change the splits in section `data`"
        )


def decide(checked: Checked, sets: Sequence[str], *, near_duplicates: int) -> Decisions:
    """Leave repeated pictures out, link across classes, keep every group within one set.

    `sets` in the order of precedence; rows come set by set in that order.
    """
    import pyarrow

    rows = checked.usable
    names = rows.column("set").to_pylist()
    sources = rows.column("source_id").to_pylist()
    fake = np.array(rows.column("fake").to_pylist(), dtype=bool)
    drawn = np.array(rows.column("drawn").to_pylist(), dtype=bool)
    found = find_duplicates(
        rows.column("pixel_sha256").to_pylist(),
        rows.column("perceptual_hash").to_numpy(),
        fake,
        sources,
        np.array(rows.column("blank").to_pylist(), dtype=bool),
        distance=near_duplicates,
    )
    place, nowhere = np.arange(len(rows)), len(rows)
    rank = np.array([sets.index(name) for name in names], dtype=np.int64)
    home = _least_of_group(rank, found)
    first_published = _least_of_group(np.where((rank == home) & ~drawn, place, nowhere), found)
    apart = (home != rank) & (first_published < nowhere)
    stays = (found.same_as < 0) & ~apart
    # A group is called after its first real image, or its first where it has none.
    first_real = _least_of_group(np.where(fake | apart, nowhere, place), found)
    named_after = np.where(first_real < nowhere, first_real, found.group)
    columns = {
        "set": [sets[at] for at in home.tolist()],
        "source_id": [sources[at] for at in named_after.tolist()],
        "split": _splits(rows.column("split").to_pylist(), rank, home),
    }
    keys = rows.column("key").to_pylist()
    for name, values in columns.items():
        at = rows.schema.get_field_index(name)
        rows = rows.set_column(at, name, pyarrow.array(values, pyarrow.string()))
    order = place[stays][np.argsort(home[stays], kind="stable")]
    kept = rows.take(pyarrow.array(order)).combine_chunks()
    _check_keys(kept)
    alike = _alike(found, stays)
    left_out = []
    for at in place[~stays].tolist():
        near = alike[at] >= 0
        other = int(alike[at] if near else found.group[at])
        how = "near-duplicate" if near else "relative"
        left_out.append(
            {
                "key": keys[at],
                "set": names[at],
                "same_as": keys[other],
                "same_as_set": columns["set"][other],
                "reason": f"{how} of a {columns['set'][other]} image",
            }
        )
    counts = Counts(
        planned=checked.planned,
        written=len(kept),
        left_out=len(left_out),
        quarantined=checked.quarantined,
        not_downloaded=checked.not_downloaded,
        linked=len(found.linked),
        moved=int((stays & (home != rank)).sum()),
        kept_apart=int(apart.sum()),
    )
    return Decisions(kept, counts, left_out, _crowds(sources, found, columns["set"]))


def _alike(found: Duplicates, stays: Bools) -> Ints:
    """(N,): the first image that each one looks like, one that stays if that can be; or -1."""
    alike = np.full(len(stays), -1, dtype=np.int64)
    pairs = np.concatenate([found.linked, found.linked[:, ::-1]])
    for one, other in sorted(pairs[stays[pairs[:, 1]]].tolist(), reverse=True):
        alike[one] = other
    again = np.flatnonzero(found.same_as >= 0)
    known = found.same_as[again]
    # What stands for it may be left out too, as it looks like something in another set; or, where
    # they are blank, as a relative of something that this one has nothing to do with.
    strange = found.group[again] != found.group[known]
    alike[again] = np.where(stays[known] | strange, known, alike[known])
    return alike


def _crowds(sources: Sequence[str], found: Duplicates, homes: Sequence[str]) -> list[Crowd]:
    """The groups that have so many sources that something unintended may hold them together."""
    group_of = dict(zip(sources, found.group.tolist(), strict=True))
    least = max(CROWD, int(CROWD_SHARE * len(group_of)) + 1)
    return [
        Crowd(count, len(group_of), homes[group])
        for group, count in Counter(group_of.values()).most_common()
        if count >= least
    ]


def _least_of_group(values: Ints, found: Duplicates) -> Ints:
    """The smallest value in each one's group, (N,)."""
    least = values.copy()
    np.minimum.at(least, found.group, values)
    return np.asarray(least[found.group])


def _splits(splits: Sequence[str], rank: Ints, home: Ints) -> list[str]:
    """Each image's split, that of its new set where it moves."""
    of_set = {int(at): split for at, split in zip(rank, splits, strict=True)}
    return [
        split if here == there else of_set[there]
        for split, here, there in zip(splits, rank.tolist(), home.tolist(), strict=True)
    ]


def _check_keys(rows: Any) -> None:
    pairs = Counter(
        zip(rows.column("set").to_pylist(), rows.column("key").to_pylist(), strict=True)
    )
    (name, key), count = max(pairs.items(), key=lambda pair: pair[1], default=(("", ""), 0))
    if count > 1:
        raise ValueError(f"set {name}: {count} images have the key {key!r}: rename all but one")
