"""After the first pass of the stage shard: what cannot be used, and whether that is too much."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifacts import QUARANTINE
from unigendet.data.benchmarks.base import NOT_DOWNLOADED

COMMONEST = 5


@dataclass(frozen=True, slots=True)
class Checked:
    """Planned images, apart by what became of them."""

    usable: Any
    """Their rows, a pyarrow table."""
    quarantined: int
    not_downloaded: int
    """Dead links: there never was an image, so nothing is wrong with the ones that are here."""

    @property
    def planned(self) -> int:
        return len(self.usable) + self.quarantined + self.not_downloaded


def check_quarantine(rows: Any, share: float, folder: Path) -> Checked:
    """Write the rows that have a problem to quarantine.jsonl in `folder` and part them from the
    others.

    Raises ValueError, naming the commonest reasons, where the unusable ones are more than `share`
    of all. Dead links are listed as well, and count for neither.
    """
    import pyarrow.compute as compute

    spoiled = compute.not_equal(rows.column("problem"), "")
    listed = rows.filter(spoiled).select(["key", "set", "path", "problem"]).to_pylist()
    lines = [
        {"key": row["key"], "set": row["set"], "path": row["path"], "reason": row["problem"]}
        for row in listed
    ]
    write_lines(folder / QUARANTINE, lines)
    bad = [row for row in listed if not row["problem"].startswith(NOT_DOWNLOADED)]
    dead = len(listed) - len(bad)
    if len(bad) > share * (len(rows) - dead):
        kinds = Counter(_kind(row["problem"]) for row in bad)
        examples = {_kind(row["problem"]): row["path"] for row in reversed(bad)}
        told = "\n".join(
            f"  {count} x {kind}, {examples[kind]} for instance"
            for kind, count in kinds.most_common(COMMONEST)
        )
        more = f"\n  and {len(kinds) - COMMONEST} other reasons" if len(kinds) > COMMONEST else ""
        raise ValueError(
            f"{len(bad)} of {len(rows) - dead} images cannot be used, more than "
            f"shard.quarantine_share = {share:g} allows:\n{told}{more}\n"
            f"All are listed in {folder / QUARANTINE}: repair or remove them, or raise the share"
        )
    return Checked(rows.filter(compute.invert(spoiled)), len(bad), dead)


def _kind(problem: str) -> str:
    """A reason without the numbers in it, so that like is counted with like."""
    return re.sub(r"\d[\d,.]*", "N", problem)


def write_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Write JSON lines."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
