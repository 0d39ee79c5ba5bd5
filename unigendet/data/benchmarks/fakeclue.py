"""FakeClue: folders that say the class, and conversations that explain it.

`{train,test}/{category}/{fake,real}/[sub]/*.jpg` and `data_json/{train,test}.json`, a list of
{image, label, conversations}. Its label is 1 for real and 0 for fake, the opposite of this
project's. Where folder and label disagree, the image is left out; where most do, nothing is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from unigendet.data.benchmarks.base import BenchmarkError, BenchmarkItem, Found, Skipped, split_of
from unigendet.data.benchmarks.files import ImageFile, find_beside, image_files
from unigendet.data.benchmarks.labels import WORDS, parse_class
from unigendet.data.benchmarks.listing import Listing
from unigendet.data.benchmarks.tree import TreeLayout
from unigendet.data.tables import read_json_list

_FOLDERS = TreeLayout("fakeclue", frozenset(("real",)), frozenset(("fake",)))
_LABELS = {"1": False, "0": True, **WORDS}
MOST = 0.5
"""Above this share of disagreements the labels are taken to be inverted."""


@dataclass(frozen=True)
class FakeClue:
    """The set as published; also with a doubled split folder (`test/test`), as some mirrors are."""

    def scan(self, root: str) -> Iterator[Found]:
        listings = _listings(root)
        context = _FOLDERS.context(root)
        on_disk: set[str] = set()
        compared: Counter[str] = Counter()
        differing: Counter[str] = Counter()
        for file in image_files(root):
            if isinstance(file, Skipped):
                _records(listings, file.path, None)  # it is there, if unusable
                yield file
                continue
            item = _FOLDERS.place(file, context)
            placed = item if isinstance(item, BenchmarkItem) else None
            split = next((s for part in (*file.parts, *context) if (s := split_of(part))), None)
            on_disk.update([split] if split else [])
            records = _records(listings, file.name, split)
            if not records:
                yield item
                continue
            found = _labelled(file, placed, records, split)
            if placed is not None:
                compared[records[0][0]] += 1
                differing[records[0][0]] += isinstance(found, Skipped)
            yield found
        for split, listing in listings.items():
            if listing.matched or split in on_disk:
                for path, _ in listing.unmatched():
                    reason = f"listed in data_json/{split}.json, but there is no such file"
                    yield Skipped(path, reason)
        for split in compared:
            if differing[split] > MOST * compared[split]:
                raise BenchmarkError(
                    f"{differing[split]} of {compared[split]} labels in data_json/{split}.json "
                    "disagree with the folder that the image is in: the labels look inverted "
                    "(FakeClue's own are 1 = real, 0 = fake)"
                )


def _records(
    listings: dict[str, Listing[dict[str, Any]]], name: str, split: str | None
) -> list[tuple[str, dict[str, Any]]]:
    """What is listed of a file, each record with the split whose list it is in."""
    return [
        (listed, record)
        for listed, listing in listings.items()
        if split in (None, listed)
        for record in listing.find(name)
    ]


def _labelled(
    file: ImageFile,
    placed: BenchmarkItem | None,
    records: list[tuple[str, dict[str, Any]]],
    split: str | None,
) -> Found:
    try:
        classes = {parse_class(record.get("label"), _LABELS) for _, record in records}
    except ValueError as error:
        return Skipped(file.name, str(error))
    if len(classes) > 1:
        return Skipped(file.name, "data_json lists it both as real and as fake")
    is_fake = classes.pop()
    if placed is not None and placed.is_fake != is_fake:
        said = "fake" if placed.is_fake else "real"
        label = records[0][1].get("label")
        return Skipped(file.name, f"its folder says {said}, its label {label} the opposite")
    listed, record = records[0]
    item = placed or BenchmarkItem(
        location=file.location,
        name=file.name,
        is_fake=is_fake,
        generator=next((p for p in file.parts if not split_of(p)), "fakeclue"),
        split=split or listed,
        native_label="",
    )
    return replace(
        item,
        split=split or listed,
        native_label=str(record.get("label")),
        explanation=_answer(record),
    )


def _answer(record: dict[str, Any]) -> str:
    """The first reply of the conversation."""
    turns = record.get("conversations")
    for turn in turns if isinstance(turns, list) else []:
        if isinstance(turn, dict) and turn.get("from") in ("gpt", "assistant"):
            return str(turn.get("value") or "").strip()
    return ""


def _listings(root: str) -> dict[str, Listing[dict[str, Any]]]:
    """The records of every split, from `data_json` in the folder, beside or above it."""
    found: dict[str, Listing[dict[str, Any]]] = {}
    for split in ("train", "val", "test"):
        place = find_beside(root, (f"data_json/{split}.json",))
        if place is not None:
            records = read_json_list(place)
            found[split] = Listing((str(record.get("image") or ""), record) for record in records)
    return found
