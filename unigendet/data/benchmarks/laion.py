"""LAION downloads, all real: the published script's folder, and what img2dataset writes.

- `images/` and `final_metadata.json`, a list of {image_path, prompt};
- tars of `000000001.jpg`, `.txt`, `.json` (WebDataset), with a parquet of URLs beside each;
- parquet with a column of image bytes;
- plain folders of images with a `.txt` beside each, and a parquet of URLs.

A dead link is a `Skipped` whose reason begins with `NOT_DOWNLOADED`: what the published list names
and is not there, and the rows of img2dataset's parquet files whose download failed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from unigendet.data.benchmarks.base import NOT_DOWNLOADED, BenchmarkItem, Found, Skipped
from unigendet.data.benchmarks.containers import (
    ParquetCell,
    ParquetTable,
    TarMember,
    TarSpan,
    tar_members,
)
from unigendet.data.benchmarks.files import ImageFile, find_beside, image_files
from unigendet.data.benchmarks.listing import Listing
from unigendet.data.caption_tables import sidecar_caption
from unigendet.data.image_header import SUFFIXES
from unigendet.data.opener import OpenError, base_name, is_file, walk
from unigendet.data.tables import read_json_list

METADATA = "final_metadata.json"
_TEXTS = (".txt", ".json")
_MAX_TEXT = 1 << 20


@dataclass(frozen=True)
class Laion:
    """Every form; the published script's where its metadata is there."""

    def scan(self, root: str) -> Iterator[Found]:
        if is_file(root):
            yield from _container(root, base_name(root))
            return
        place = find_beside(root, (METADATA,))
        if place is not None:
            yield from _published(root, place)
            return
        tars = False
        for location, entry in walk(root):
            name = location[len(root.rstrip("/")) + 1 :]
            tars = tars or entry.name.lower().endswith(".tar")
            yield from _container(location, name, urls_beside=tars)
        for file in image_files(root):
            if isinstance(file, Skipped):
                yield file
                continue
            try:
                yield _real(file.location, file.name, sidecar_caption(file.location) or "")
            except OpenError as error:
                yield Skipped(file.name, str(error))


def _container(location: str, name: str, urls_beside: bool = False) -> Iterator[Found]:
    if location.lower().endswith(".tar"):
        yield from _tar(location, name)
    elif location.lower().endswith(".parquet"):
        yield from _parquet(location, name, urls_beside)


def _real(
    location: str, name: str, caption: str, member: TarSpan | ParquetCell | None = None
) -> BenchmarkItem:
    return BenchmarkItem(
        location=location,
        name=name,
        is_fake=False,
        generator="laion",
        split="train",
        native_label="",
        member=member,
        caption=" ".join(caption.split()),
    )


def _published(root: str, place: str) -> Iterator[Found]:
    records = read_json_list(place)
    listing = Listing((str(record.get("image_path") or ""), record) for record in records)
    for file in image_files(root):
        found = listing.find(file.name if isinstance(file, ImageFile) else file.path)
        if isinstance(file, Skipped):
            yield file
        elif not found:
            yield Skipped(file.name, f"not listed in {METADATA}: it has no caption")
        else:
            caption = found[0].get("prompt") or found[0].get("caption") or ""
            yield _real(file.location, file.name, str(caption))
    for path, _ in listing.unmatched():
        listed = f"listed in {METADATA}, but there is no such file"
        yield Skipped(path, f"{NOT_DOWNLOADED}: {listed}")


def _tar(location: str, name: str) -> Iterator[Found]:
    """Members of one sample share the name up to its first dot and follow one another."""
    sample: list[TarMember] = []
    for member in tar_members(location):
        if member.problem:
            yield Skipped(f"{name}#{member.name}" if member.name else name, member.problem)
            continue
        if sample and _key(member) != _key(sample[0]):
            yield from _sample(location, name, sample)
            sample = []
        sample.append(member)
    yield from _sample(location, name, sample)


def _sample(location: str, name: str, members: list[TarMember]) -> Iterator[Found]:
    texts = {_ending(member): member for member in members if _ending(member) in _TEXTS}
    caption, problem = "", ""
    for kind in _TEXTS:
        if kind in texts and not caption and texts[kind].span.size <= _MAX_TEXT:
            try:
                caption = _caption(texts[kind].span.read(location), kind)
            except OpenError as error:
                problem = f"its caption: {str(error).removeprefix(f'{location}: ')}"
    for member in members:
        own = f"{name}#{member.name}"
        if _ending(member) in SUFFIXES and problem and not caption:
            yield Skipped(own, problem)
        elif _ending(member) in SUFFIXES:
            yield _real(location, own, caption, member.span)


def _caption(data: bytes, kind: str) -> str:
    text = data.decode("utf-8", errors="replace")
    if kind == ".txt":
        return text
    try:
        record = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return ""
    return str(record.get("caption") or "") if isinstance(record, dict) else ""


def _parquet(location: str, name: str, urls_beside: bool) -> Iterator[Found]:
    try:
        table = ParquetTable(location)
    except OpenError as error:
        yield Skipped(name, str(error).removeprefix(f"{location}: "))
        return
    image = table.image_column(("jpg", "png", "webp", "image", "image_data", "img"))
    if image is None and "status" not in table.columns:
        if not urls_beside and not is_file(f"{location.rsplit('.', 1)[0]}.tar"):
            yield Skipped(name, "no column of image bytes: a list of URLs is not downloaded here")
        return
    captions = [c for c in ("caption", "text", "TEXT", "prompt") if c in table.columns]
    extra = [c for c in ("key", "status", "error_message") if c in table.columns]
    try:
        for row in table.rows([*captions, *extra]):
            own = f"{name}#{row.group}.{row.row}:{row.values.get('key') or row.row}"
            if row.values.get("status") not in (None, "success"):
                yield Skipped(own, _failure(row.values))
            elif image is not None:
                caption = next((str(row.values[c]) for c in captions if row.values[c]), "")
                yield _real(location, own, caption, ParquetCell(row.group, row.row, image))
    except OpenError as error:
        yield Skipped(name, str(error).removeprefix(f"{location}: "))


def _failure(values: dict[str, Any]) -> str:
    """Why img2dataset stored no image: a dead link, or a file that it could not use."""
    status = str(values["status"])
    told = str(values.get("error_message") or status)[:200]
    return f"{NOT_DOWNLOADED if status == 'failed_to_download' else status}: {told}"


def _key(member: TarMember) -> str:
    folder, _, file = member.name.rpartition("/")
    return f"{folder}/{file.split('.', 1)[0]}"


def _ending(member: TarMember) -> str:
    return f".{member.name.rsplit('.', 1)[-1].lower()}"
