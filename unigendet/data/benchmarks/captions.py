"""Captions beside images: one table for a folder, a text file per image, or the file's name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unigendet.data.benchmarks.tables import read_rows
from unigendet.data.opener import OpenError, base_name, is_file, list_folder, read_text

FILES = ("file", "file_name", "filename", "path", "image", "image_path")
CAPTIONS = ("caption", "text", "prompt")
TABLES = ("captions", "metadata", "manifest")


@dataclass(frozen=True, slots=True)
class CaptionRow:
    """What a table says of one image."""

    caption: str | None
    split: str | None
    source_id: str | None


def caption_table(folder: str) -> dict[str, CaptionRow]:
    """The rows of `captions.jsonl` (or .csv; or metadata, manifest) by the file's relative path.

    Empty where there is no such table. Raises OpenError naming table and line.
    """
    names = [entry.name for entry in list_folder(folder) if not entry.is_folder]
    places = [
        f"{folder}/{stem}.{kind}"
        for stem in TABLES
        for kind in ("jsonl", "csv", "tsv")
        if f"{stem}.{kind}" in names
    ]
    if not places:
        return {}
    if len(places) > 1:
        both = " and ".join(base_name(place) for place in places)
        raise OpenError(f"{folder} has {both}: keep one")
    rows: dict[str, CaptionRow] = {}
    for where, record in read_rows(places[0]):
        name, row = _parse(record, where)
        if name in rows:
            raise OpenError(f"{where}: {name} is named twice")
        rows[name] = row
    return rows


def _parse(record: Mapping[str, Any], where: str) -> tuple[str, CaptionRow]:
    name = next((record[key] for key in FILES if record.get(key)), None)
    if not isinstance(name, str):
        raise OpenError(f"{where}: no image is named (one of {', '.join(FILES)})")
    caption = next((record[key] for key in CAPTIONS if record.get(key)), None)
    split, source_id = record.get("split"), record.get("source_id")
    return name.removeprefix("./"), CaptionRow(
        caption=str(caption).strip() if caption else None,
        split=str(split) if split else None,
        source_id=str(source_id) if source_id else None,
    )


def sidecar_caption(location: str) -> str | None:
    """The text file beside an image, on one line; None where there is none or it is empty."""
    place = f"{location.rsplit('.', 1)[0]}.txt"
    if place == location or not is_file(place):
        return None
    return " ".join(read_text(place).split()) or None


def name_caption(location: str) -> str:
    """The file's name, its signs turned to spaces."""
    stem = base_name(location).rsplit(".", 1)[0]
    return " ".join(re.split(r"[\W_]+", stem)).strip().lower() or "an image"
