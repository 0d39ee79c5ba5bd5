"""records.jsonl: every judged image, one line for each of its suites."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from unigendet.types import EvalRecord

RECORDS = "records.jsonl"
"""One `EvalRecord` per line."""


def write_records(path: Path, records: Sequence[EvalRecord]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            # In ASCII: a stranger's table may hold characters that UTF-8 cannot write.
            file.write(json.dumps(dataclasses.asdict(record)) + "\n")


def read_records(path: Path) -> list[EvalRecord]:
    with path.open(encoding="utf-8") as file:
        return [EvalRecord(**json.loads(line)) for line in file]
