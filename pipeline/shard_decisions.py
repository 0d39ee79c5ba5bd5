"""Between the passes of the stage shard: what is left out, what is linked, and where it goes.

Works on the rows of all parts, in the plan's order, and reads no image.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artifacts import QUARANTINE
from unigendet.data.duplicates import Duplicates, Ints, find_duplicates

LEFT_OUT = "duplicates.jsonl"
COMMONEST = 5


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the planned images: `planned` is the sum of the next three."""

    planned: int
    written: int
    left_out: int
    """The same picture, of the same class, comes earlier."""
    quarantined: int
    linked: int
    """Pairs of a fake and a real image that look the same: one `source_id`, both written."""
    moved: int
    """Written into another set than planned, with the group that they belong to."""

    def __post_init__(self) -> None:
        assert self.planned == self.written + self.left_out + self.quarantined, self


@dataclass(frozen=True, slots=True)
class Decisions:
    """The rows to write, and an account of the others."""

    rows: Any
    """A pyarrow table; columns `set`, `split` and `source_id` as decided."""
    counts: Counts
    left_out: list[dict[str, Any]]
    """One line per picture left out: its key and set, and those of the one that stays."""


def check_quarantine(rows: Any, share: float, folder: Path) -> Any:
    """Write the rows that have a problem to quarantine.jsonl in `folder` and return the others.

    Raises ValueError, naming the commonest reasons, where they are more than `share` of all.
    """
    bad = rows.filter(_has_problem(rows)).select(["key", "set", "path", "problem"]).to_pylist()
    lines = [
        {"key": row["key"], "set": row["set"], "path": row["path"], "reason": row["problem"]}
        for row in bad
    ]
    write_lines(folder / QUARANTINE, lines)
    if len(bad) > share * len(rows):
        kinds = Counter(_kind(row["problem"]) for row in bad)
        examples = {_kind(row["problem"]): row["path"] for row in reversed(bad)}
        told = "\n".join(
            f"  {count} x {kind}, {examples[kind]} for instance"
            for kind, count in kinds.most_common(COMMONEST)
        )
        more = f"\n  and {len(kinds) - COMMONEST} other reasons" if len(kinds) > COMMONEST else ""
        raise ValueError(
            f"{len(bad)} of {len(rows)} images cannot be used, more than "
            f"shard.quarantine_share = {share:g} allows:\n{told}{more}\n"
            f"All are listed in {folder / QUARANTINE}: repair or remove them, or raise the share"
        )
    import pyarrow.compute as compute

    return rows.filter(compute.invert(_has_problem(rows)))


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


def _has_problem(rows: Any) -> Any:
    import pyarrow.compute as compute

    return compute.not_equal(rows.column("problem"), "")


def _kind(problem: str) -> str:
    """A reason without the numbers in it, so that like is counted with like."""
    return re.sub(r"\d[\d,.]*", "N", problem)


def decide(rows: Any, sets: Sequence[str], *, near_duplicates: int, planned: int) -> Decisions:
    """Leave repeated pictures out, link across classes, keep every group within one set.

    `sets` in the order of precedence: a group goes where the first of its images was planned, so
    that what is in an evaluation set has no relative in training.
    """
    import pyarrow

    names = rows.column("set").to_pylist()
    sources = rows.column("source_id").to_pylist()
    fake = np.array(rows.column("fake").to_pylist(), dtype=bool)
    found = find_duplicates(
        rows.column("pixel_sha256").to_pylist(),
        rows.column("perceptual_hash").to_numpy(),
        fake,
        sources,
        distance=near_duplicates,
    )
    rank = np.array([sets.index(name) for name in names], dtype=np.int64)
    home = _least_of_group(rank, found)
    # A group is called after its first real image, or its first where it has none.
    place = np.arange(len(rows))
    first_real = _least_of_group(np.where(fake, len(rows), place), found)
    named_after = np.where(first_real < len(rows), first_real, found.group)
    stays, moves = found.same_as < 0, home != rank
    columns = {
        "set": [sets[at] for at in home.tolist()],
        "source_id": [sources[at] for at in named_after.tolist()],
        "split": _splits(rows.column("split").to_pylist(), rank, home),
    }
    for name, values in columns.items():
        at = rows.schema.get_field_index(name)
        rows = rows.set_column(at, name, pyarrow.array(values, pyarrow.string()))
    order = place[stays][np.argsort(home[stays], kind="stable")]
    kept = rows.take(pyarrow.array(order)).combine_chunks()
    _check_keys(kept)
    keys = rows.column("key").to_pylist()
    left_out = [
        {
            "key": keys[at],
            "set": names[at],
            "same_as": keys[found.same_as[at]],
            "same_as_set": columns["set"][found.same_as[at]],
        }
        for at in place[~stays].tolist()
    ]
    counts = Counts(
        planned=planned,
        written=len(kept),
        left_out=len(left_out),
        quarantined=planned - len(rows),
        linked=len(found.linked),
        moved=int((stays & moves).sum()),
    )
    return Decisions(kept, counts, left_out)


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


def write_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Write JSON lines."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
