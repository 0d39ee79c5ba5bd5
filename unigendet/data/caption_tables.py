"""Captions beside images: a table in their folder or above, a text file per image, or their name.

A table is read line by line: a bad line spoils no other. It keeps its reason, so that it is
reported with the images that cannot be read instead of being guessed at.
"""

from __future__ import annotations

import csv
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from unigendet.data.benchmarks.base import split_of
from unigendet.data.opener import (
    OpenError,
    base_name,
    is_file,
    join,
    list_folder,
    read_bytes,
    walk,
)
from unigendet.data.plain_text import plain
from unigendet.data.splits import SPLITS
from unigendet.data.tables import read_json_list

TABLES = frozenset(
    f"{stem}.{kind}"
    for stem in ("captions", "metadata", "manifest")
    for kind in ("jsonl", "csv", "tsv")
) | {"captions.json"}
"""In any case. Another JSON file may be about anything."""
FILE_KEYS = ("file", "file_name", "filename", "path", "image", "image_path")
CAPTION_KEYS = ("caption", "text", "prompt")
LONGEST_RECORD = 50
"""Lines that a quoted CSV field may run over; an open quote swallows no more of the table."""


@dataclass(frozen=True, slots=True)
class CaptionRow:
    """What a table says of one image."""

    line: int
    """From 1; of a JSON list the number of the entry."""
    file: str = ""
    """Relative to the given folder, with `/`; empty where the line names none."""
    caption: str | None = None
    split: str | None = None
    """`train`, `val` or `test`."""
    source_id: str | None = None
    problem: str = ""
    """Why the line cannot be used."""
    table: str = ""
    """The table's name, relative to the given folder."""


class Captions:
    """Lines by the image that they name, however its accents are put together."""

    def __init__(self, rows: Sequence[CaptionRow]) -> None:
        self._rows = rows
        self._by_name = {_composed(row.file): row for row in rows if row.file}
        # Two files may differ in nothing but that.
        self._by_name |= {row.file: row for row in rows if row.file}

    def find(self, name: str) -> CaptionRow:
        """The line of the image `name`, or one that says nothing."""
        return self._by_name.get(name) or self._by_name.get(_composed(name)) or CaptionRow(0)

    def unmatched(self, names: Iterable[str]) -> list[CaptionRow]:
        """Lines that belong to none of the images `names`."""
        there = set(map(_composed, names))
        return [row for row in self._rows if _composed(row.file) not in there]


def _composed(name: str) -> str:
    """As one path is written on every system: macOS takes letters and accents apart."""
    return unicodedata.normalize("NFC", name.replace("\\", "/"))


def caption_table(folder: str) -> tuple[str | None, list[CaptionRow]]:
    """The location of the folder's own table, where it has one, and every line of it.

    Raises OpenError for two tables, and for one that cannot be read as one.
    """
    there = [entry.name for entry in list_folder(folder) if not entry.is_folder]
    names = [name for name in there if _is_table(name)]
    if not names:
        return None, []
    rows = list(_once(_rows_of(folder, names, folder)))
    return f"{folder.rstrip('/')}/{names[0]}", rows


def caption_tables(root: str, images: Iterable[str]) -> list[CaptionRow]:
    """Every line of the tables in `root` and below it, of folders that `images` lie in or below.

    A table names images relative to its own folder; a row's `file` is relative to `root`. Raises
    OpenError as `caption_table` does.
    """
    start = len(root.rstrip("/")) + 1
    folders = {""} | {name[:at] for name in images for at, sign in enumerate(name) if sign == "/"}
    found: dict[str, list[str]] = {}
    for place, entry in walk(root):
        folder = place[start:].rpartition("/")[0]
        if _is_table(entry.name) and folder in folders:
            found.setdefault(folder, []).append(entry.name)
    rows = (
        row
        for folder in sorted(found)
        for row in _rows_of(f"{root.rstrip('/')}/{folder}".rstrip("/"), found[folder], root)
    )
    return list(_once(rows))


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


def _is_table(name: str) -> bool:
    return name.lower() in TABLES


def _rows_of(folder: str, names: Sequence[str], root: str) -> Iterator[CaptionRow]:
    """The lines of a folder's only table."""
    if len(names) > 1:
        raise OpenError(f"{folder} has {' and '.join(names)}: keep one")
    place = f"{folder.rstrip('/')}/{names[0]}"
    start = len(root.rstrip("/")) + 1
    kind = base_name(place).rpartition(".")[2].lower()
    rows: Iterator[CaptionRow]
    if kind == "json":
        rows = (_row(number, one) for number, one in enumerate(read_json_list(place), start=1))
    elif kind == "jsonl":
        rows = _jsonl_rows(_lines(read_bytes(place)))
    else:
        rows = _csv_rows(place, _lines(read_bytes(place)))
    for row in rows:
        row = replace(row, table=place[start:])
        if row.file:
            try:
                row = replace(row, file=join(folder, row.file)[start:])
            except OpenError as error:
                row = replace(row, file="", problem=row.problem or f"{plain(row.file)} {error}")
        yield row


def _once(rows: Iterable[CaptionRow]) -> Iterator[CaptionRow]:
    """An image named twice keeps its first line; which one was meant nobody knows."""
    seen: dict[str, CaptionRow] = {}
    for row in rows:
        first = seen.setdefault(row.file, row) if row.file else row
        if first is not row:
            where = "" if first.table == row.table else f" of {first.table}"
            told = f"{plain(row.file)} is named already in line {first.line}{where}"
            row = replace(row, problem=told, file="")
        yield row


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
    name = _told(record, FILE_KEYS)
    if not isinstance(name, str):
        return CaptionRow(line, problem=f"no image is named (one of {', '.join(FILE_KEYS)})")
    caption, told, source_id = (
        None if value is None else str(value).strip()
        for value in (_told(record, names) for names in (CAPTION_KEYS, ("split",), ("source_id",)))
    )
    split = split_of(told) if told else None
    problem = ""
    texts = (name, caption or "", told or "", source_id or "")
    if any("\ud800" <= sign <= "\udfff" for text in texts for sign in text):
        problem = "the text is not UTF-8"
    elif told and split is None:
        problem = f"split is {told!r}, not one of {', '.join(SPLITS)}"
    return CaptionRow(line, name, caption, split, source_id, problem)


def _told(record: dict[str, Any], names: Sequence[str]) -> Any:
    """What the first filled one of the columns says, of a list its first entry; or None."""
    for name in names:
        value = record.get(name)
        if isinstance(value, list):
            value = value[0] if value else None
        if value not in (None, ""):
            return value
    return None
