"""A user's own table of images and classes: CSV, TSV, JSON, JSONL or parquet.

One column names the file, relative to the table, and one the class, where 1, true and fake mean
fake. That also reads ForensicHub's JSON ([{path, label}]) and B-Free's CSV (filename, label). What
could mean two things is an error, since a wrong guess would turn every figure round.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from unigendet.data.benchmarks.base import (
    REAL,
    UNKNOWN,
    BenchmarkError,
    BenchmarkItem,
    Found,
    Skipped,
    split_of,
)
from unigendet.data.benchmarks.containers import ParquetCell, ParquetTable
from unigendet.data.benchmarks.labels import ANY, parse_class
from unigendet.data.opener import OpenError, base_name, is_file, join, list_folder, parent
from unigendet.data.tables import SUFFIXES, read_rows

PATHS = ("path", "filename", "file", "file_name", "image_path", "filepath", "image", "img_path")
LABELS = ("label", "is_fake", "fake", "class")
NAMES = ("manifest", "metadata", "labels", "index")


@dataclass(frozen=True)
class Manifest:
    """The table itself, or a folder with one."""

    def scan(self, root: str) -> Iterator[Found]:
        place = root if is_file(root) else find_table(root)
        above = parent(place)
        folder = above if above is not None else place
        seen: dict[str, bool] = {}
        for where, row, cell in _rows(place):
            yield self._row(place, folder, where, row, cell, seen)

    def _row(
        self,
        place: str,
        folder: str,
        where: str,
        row: Mapping[str, Any],
        cell: ParquetCell | None,
        seen: dict[str, bool],
    ) -> Found:
        label = row[_label_column(row, where)]
        try:
            is_fake = parse_class(label, ANY)
        except ValueError as error:
            raise BenchmarkError(f"{where}: {error}") from None
        path = _text(row, PATHS)
        if not path and cell is None:
            raise BenchmarkError(
                f"{where}: no file is named (a column called {', '.join(PATHS[:-1])} "
                f"or {PATHS[-1]}); its columns are {', '.join(row)}"
            )
        name = path or f"{base_name(place)}#{cell.group}.{cell.row}" if cell else path
        location = place
        if cell is None:
            try:
                location = join(folder, path)
            except OpenError as error:
                return Skipped(path, str(error))
            if location in seen:
                if seen[location] != is_fake:
                    raise BenchmarkError(f"{where}: {path} is listed both as real and as fake")
                return Skipped(path, f"listed twice ({where.rsplit(', ', 1)[-1]})")
            seen[location] = is_fake
            if not is_file(location):
                return Skipped(path, f"listed in {base_name(place)}, but there is no such file")
        return BenchmarkItem(
            location=location,
            name=name,
            is_fake=is_fake,
            generator=_text(row, ("generator", "model")) or (UNKNOWN if is_fake else REAL),
            split=_split(row, where),
            native_label=str(label),
            member=cell,
            caption=_text(row, ("caption", "prompt", "text")),
            explanation=_text(row, ("explanation",)),
            source_id=_text(row, ("source_id",)),
        )


def find_table(folder: str) -> str:
    """The manifest in a folder: by its name, or because it is the only table.

    Raises BenchmarkError where there is none, or no telling which.
    """
    tables = [
        entry.name
        for entry in list_folder(folder)
        if not entry.is_folder
        and entry.name.lower().endswith(SUFFIXES)
        and not entry.name.startswith(".")
    ]
    named = [name for name in tables if name.rsplit(".", 1)[0].lower() in NAMES]
    for found in (tables, named):
        if len(found) == 1:
            return f"{folder}/{found[0]}"
    raise BenchmarkError(
        f"{folder} has {'several tables: ' + ', '.join(tables[:5]) if tables else 'no table'}; "
        f"name the manifest itself ({', '.join(SUFFIXES)})"
    )


def _rows(place: str) -> Iterable[tuple[str, dict[str, Any], ParquetCell | None]]:
    """(where it stands, values, image bytes in the row itself if any)."""
    if not place.lower().endswith(".parquet"):
        for where, row in read_rows(place):
            yield where, row, None
        return
    table = ParquetTable(place)
    images = table.image_column(("image", "image_data", "img", "jpg", "png"))
    columns = [name for name, kind in table.columns.items() if "binary" not in kind]
    for number, found in enumerate(table.rows(columns), start=1):
        cell = ParquetCell(found.group, found.row, images) if images else None
        yield f"{place}, row {number}", found.values, cell


def _label_column(row: Mapping[str, Any], where: str) -> str:
    found = [name for name in row if name.lower() in LABELS]
    if len(found) == 1:
        return found[0]
    told = f"the columns {', '.join(found)} all could be it" if found else "there is none"
    raise BenchmarkError(
        f"{where}: exactly one column must say the class, called {' or '.join(LABELS)}, with 1, "
        f"true or fake for a fake and 0, false or real for a real image; {told}. "
        f"Its columns are {', '.join(row)}"
    )


def _split(row: Mapping[str, Any], where: str) -> str:
    told = _text(row, ("split",))
    split = split_of(told) if told else "test"
    if split is None:
        raise BenchmarkError(f"{where}: split is {told!r}, not train, val or test")
    return split


def _text(row: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """What the first filled one of the columns says, their names in any case."""
    lower = {name.lower(): value for name, value in row.items()}
    found = (lower.get(name) for name in names)
    return next((str(value).strip() for value in found if value not in (None, "")), "")
