"""captions.jsonl or captions.csv of an image folder, read line by line: a bad line spoils no other.

A line that cannot be used keeps its reason, so that it is reported with the images that cannot be
read instead of being guessed at.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unigendet.data.splits import SPLITS

FILE_KEYS = ("file", "file_name", "path", "image")
CAPTION_KEYS = ("caption", "text")
LONGEST_RECORD = 50
"""Lines that a quoted CSV field may run over; an open quote swallows no more of the table."""


@dataclass(frozen=True, slots=True)
class CaptionRow:
    """What a table says of one image."""

    line: int
    file: str = ""
    """Relative to the folder; empty where the line names none."""
    caption: str | None = None
    split: str | None = None
    source_id: str | None = None
    problem: str = ""
    """Why the line cannot be used."""


def read_caption_table(folder: Path) -> tuple[Path | None, list[CaptionRow]]:
    """The folder's table, where it has one, and every line of it. Raises ValueError for two."""
    jsonl, table = folder / "captions.jsonl", folder / "captions.csv"
    if jsonl.is_file() and table.is_file():
        raise ValueError(f"{folder} has both captions.jsonl and captions.csv: keep one")
    if jsonl.is_file():
        return jsonl, _once(_jsonl_rows(_lines(jsonl)))
    if table.is_file():
        return table, _once(_csv_rows(_lines(table)))
    return None, []


def _lines(path: Path) -> list[str]:
    """Bytes that are not UTF-8 become lone surrogates, which mark the line that they are in."""
    data = path.read_bytes()
    kind = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    errors = "surrogateescape" if kind == "utf-8-sig" else "replace"
    # Not splitlines(): captions may hold separators that are no ends of lines.
    return [line.rstrip("\r") for line in data.decode(kind, errors).split("\n")]


def _once(rows: Iterator[CaptionRow]) -> list[CaptionRow]:
    """An image named twice keeps its first line; which one was meant nobody knows."""
    seen: dict[str, int] = {}
    found = []
    for row in rows:
        first = seen.setdefault(row.file, row.line) if row.file else row.line
        if first != row.line:
            row = replace(row, problem=f"{row.file} is named already in line {first}", file="")
        found.append(row)
    return found


def _jsonl_rows(lines: Sequence[str]) -> Iterator[CaptionRow]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            yield CaptionRow(number, problem=f"not valid JSON ({error})")
            continue
        if isinstance(record, dict):
            yield _row(number, record)
        else:
            yield CaptionRow(number, problem="must be an object with file and caption")


def _csv_rows(lines: Sequence[str]) -> Iterator[CaptionRow]:
    head: list[str] | None = None
    at = 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        values, taken, problem = _csv_record(lines, at)
        number, at = at + 1, at + taken
        if head is None:
            if problem or not set(values) & set(FILE_KEYS):
                raise ValueError(
                    f"the first line of captions.csv must name its columns, "
                    f"one of them {', '.join(FILE_KEYS)}; it is {lines[0]!r}"
                )
            head = values
        elif problem:
            yield CaptionRow(number, problem=problem)
        elif len(values) > len(head):
            row = _row(number, dict(zip(head, values, strict=False)))
            told = f"{len(values)} fields where the first line names {len(head)}"
            yield replace(row, problem=told)
        else:
            yield _row(number, dict(zip(head, values, strict=False)))


def _csv_record(lines: Sequence[str], at: int) -> tuple[list[str], int, str]:
    """The record that begins at a line: its fields, how many lines it has, what is wrong."""
    problem = ""
    for taken in range(1, min(LONGEST_RECORD, len(lines) - at) + 1):
        record = [line + "\n" for line in lines[at : at + taken]]
        try:
            found = list(csv.reader(record, strict=True))
        except csv.Error as error:
            problem = problem or f"not valid CSV ({error})"
            if "unexpected end of data" not in str(error):
                break
        else:
            return found[0], taken, ""
    return [], 1, problem


def _row(line: int, record: dict[str, Any]) -> CaptionRow:
    name = next((record[key] for key in FILE_KEYS if record.get(key)), None)
    if not isinstance(name, str):
        return CaptionRow(line, problem=f"no image is named (one of {', '.join(FILE_KEYS)})")
    caption = next((record[key] for key in CAPTION_KEYS if record.get(key)), None)
    split, source_id = record.get("split") or None, record.get("source_id") or None
    problem = ""
    if any("\ud800" <= sign <= "\udfff" for value in record.values() for sign in str(value)):
        problem = "the text is not UTF-8"
    elif split is not None and split not in SPLITS:
        problem = f"split is {split!r}, not one of {', '.join(SPLITS)}"
    return CaptionRow(
        line,
        file=name,
        caption=str(caption).strip() if caption else None,
        split=split,
        source_id=str(source_id) if source_id else None,
        problem=problem,
    )
