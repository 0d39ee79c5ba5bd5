"""Tables that others wrote: CSV, TSV, JSON and JSONL as rows of text, numbers and truth values."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from unigendet.data.opener import OpenError, read_text

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")


def read_rows(place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row as (where it stands, values by column). Raises OpenError naming file and line."""
    suffix = place[place.rfind(".") :].lower()
    if suffix in (".csv", ".tsv"):
        yield from _csv(place, read_text(place))
    elif suffix in (".jsonl", ".ndjson"):
        yield from _jsonl(place, read_text(place))
    elif suffix == ".json":
        for number, record in enumerate(read_json_list(place), start=1):
            yield f"{place}, entry {number}", record
    else:
        raise OpenError(f"{place}: a table is one of {', '.join(SUFFIXES)}")


def read_json_list(place: str) -> list[dict[str, Any]]:
    """A JSON list of objects. Raises OpenError for anything else."""
    try:
        content = json.loads(read_text(place))
    except (json.JSONDecodeError, RecursionError) as error:
        raise OpenError(f"{place}: not valid JSON ({error})") from None
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise OpenError(f"{place}: must be a JSON list of objects")
    return content


def _jsonl(place: str, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise OpenError(f"{place}, line {number}: not valid JSON ({error})") from None
        if not isinstance(record, dict):
            raise OpenError(f"{place}, line {number}: must be an object with named values")
        yield f"{place}, line {number}", record


def _csv(place: str, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for record in reader:
            if None in record:
                raise OpenError(
                    f"{place}, line {reader.line_num}: more values than the header has columns"
                )
            yield f"{place}, line {reader.line_num}", {k.strip(): v for k, v in record.items()}
    except csv.Error as error:
        raise OpenError(f"{place}, line {reader.line_num}: not valid CSV ({error})") from None
