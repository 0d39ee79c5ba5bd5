"""Captions beside images: one table for a folder, a text file per image, or the file's name.

A table is read line by line: a bad line spoils no other. It keeps its reason, so that it is
reported with the images that cannot be read instead of being guessed at.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from unigendet.data.opener import OpenError, base_name, is_file, list_folder, read_bytes
from unigendet.data.plain_text import plain
from unigendet.data.splits import SPLITS

TABLES = ("captions", "metadata", "manifest")
KINDS = ("jsonl", "csv", "tsv")
FILE_KEYS = ("file", "file_name", "filename", "path", "image", "image_path")
CAPTION_KEYS = ("caption", "text", "prompt")
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


def caption_table(folder: str) -> tuple[str | None, list[CaptionRow]]:
    """The location of the folder's table, where it has one, and every line of it.

    Raises OpenError for two tables, and for one whose columns have no names.
    """
    there = {entry.name for entry in list_folder(folder) if not entry.is_folder}
    names = [name for stem in TABLES for kind in KINDS if (name := f"{stem}.{kind}") in there]
    if len(names) > 1:
        raise OpenError(f"{folder} has {' and '.join(names)}: keep one")
    if not names:
        return None, []
    place = f"{folder.rstrip('/')}/{names[0]}"
    lines = _lines(read_bytes(place))
    return place, _once(_jsonl_rows(lines) if place.endswith("jsonl") else _csv_rows(place, lines))


def sidecar_caption(location: str) -> str | None:
    """The text file beside an image, on one line; None where there is none or it is empty.

    Raises OpenError where it cannot be read.
    """
    place = f"{location.rsplit('.', 1)[0]}.txt"
    if place == location or not is_file(place):
        return None
    try:
        return " ".join(read_bytes(place).decode("utf-8-sig").split()) or None
    except UnicodeDecodeError:
        raise OpenError("the caption beside it is not UTF-8") from None


def name_caption(path: str) -> str:
    """The file's name, its signs turned to spaces."""
    stem = base_name(path).rsplit(".", 1)[0]
    return " ".join(re.split(r"[\W_]+", stem)).strip().lower() or "an image"


def _lines(data: bytes) -> list[str]:
    """Bytes that are not UTF-8 become lone surrogates, which mark the line that they are in."""
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
            told = f"{plain(row.file)} is named already in line {first}"
            row = replace(row, problem=told, file="")
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


def _csv_rows(place: str, lines: Sequence[str]) -> Iterator[CaptionRow]:
    head: list[str] | None = None
    sign = ","
    at = 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        if head is None:
            sign = max(",;\t", key=lines[at].count)
        values, taken, problem = _csv_record(lines, at, sign)
        number, at = at + 1, at + taken
        if head is None:
            head = [value.strip() for value in values]
            if problem or not set(head) & set(FILE_KEYS):
                raise OpenError(
                    f"the first line of {place} must name its columns, "
                    f"one of them {', '.join(FILE_KEYS)}; it is {plain(lines[number - 1])!r}"
                )
        elif problem:
            yield CaptionRow(number, problem=problem)
        elif len(values) > len(head):
            row = _row(number, dict(zip(head, values, strict=False)))
            told = f"{len(values)} fields where the first line names {len(head)}"
            yield replace(row, problem=told)
        else:
            yield _row(number, dict(zip(head, values, strict=False)))


def _csv_record(lines: Sequence[str], at: int, sign: str) -> tuple[list[str], int, str]:
    """The record that begins at a line: its fields, how many lines it has, what is wrong."""
    problem = ""
    for taken in range(1, min(LONGEST_RECORD, len(lines) - at) + 1):
        record = [line + "\n" for line in lines[at : at + taken]]
        try:
            found = list(csv.reader(record, strict=True, delimiter=sign))
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
        file=name.removeprefix("./"),
        caption=str(caption).strip() if caption else None,
        split=split,
        source_id=str(source_id) if source_id else None,
        problem=problem,
    )
