"""Sets in parquet files with the images inside: one table row each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from unigendet.data.benchmarks.base import (
    REAL,
    UNKNOWN,
    BenchmarkItem,
    Found,
    Skipped,
    split_of,
)
from unigendet.data.benchmarks.containers import ParquetCell, ParquetRow, ParquetTable
from unigendet.data.benchmarks.labels import ANY, WORDS, parse_class
from unigendet.data.opener import OpenError, base_name, is_file, walk

_SHARD = re.compile(r"[-_.]?\d+-of-\d+.*$|\.parquet$", re.IGNORECASE)


@dataclass(frozen=True)
class ParquetLayout:
    """Column names as published, the first that is there counts."""

    image: tuple[str, ...] = ("image", "image_data", "img", "jpg", "png")
    label: tuple[str, ...] = ("label",)
    labels: Mapping[str, bool] = field(default_factory=lambda: ANY)
    """The set's words for a class -> is fake."""
    generator: tuple[str, ...] = ("model_name", "model", "generator")
    real_source: tuple[str, ...] = ()
    """Where a real image comes from."""
    caption: tuple[str, ...] = ("prompt", "caption")
    key: tuple[str, ...] = ("image_name", "key", "img_id", "name")
    generators_by_label: Mapping[str, str] = field(default_factory=dict)
    """For sets whose label says how the image was made."""
    generator_in_name: bool = False
    """The file's name begins with the generator's: `sd15-00000-of-00019.parquet`."""
    explanation: tuple[str, ...] = ()
    source_id: tuple[str, ...] = ()
    split: str = "test"
    """Where neither a row nor a name tells one."""
    label_needed: bool = True
    """Without: the images of a file that has no column of labels are real."""

    def scan(self, root: str) -> Iterator[Found]:
        """Every row of every parquet file below `root`, or of the one file that is given."""
        if is_file(root):
            yield from self._table(root, base_name(root))
            return
        for location, entry in walk(root):
            if entry.name.lower().endswith(".parquet"):
                name = location[len(root.rstrip("/")) + 1 :]
                yield from self._table(location, name)

    def _table(self, location: str, name: str) -> Iterator[Found]:
        try:
            table = ParquetTable(location)
        except OpenError as error:
            yield Skipped(name, str(error).removeprefix(f"{location}: "))
            return
        image = table.image_column(self.image)
        label = _first(self.label, table)
        if image is None or (label is None and self.label_needed):
            wanted = self.image if image is None else self.label
            held = ", ".join(table.columns)
            what = "images" if image is None else "labels"
            yield Skipped(name, f"no column of {what} ({' or '.join(wanted)}); it has {held}")
            return
        texts = (*self.caption, *self.explanation, *self.source_id)
        used = (*self.generator, *self.real_source, *texts, *self.key, "split")
        columns = dict.fromkeys((*([label] if label else []), *used))
        try:
            for row in table.rows([c for c in columns if c in table.columns and c != image]):
                yield self._item(location, name, image, label, row)
        except OpenError as error:
            yield Skipped(name, str(error).removeprefix(f"{location}: "))

    def _item(
        self, location: str, name: str, image: str, label: str | None, row: ParquetRow
    ) -> Found:
        values = row.values
        key = _value(values, self.key) or str(row.row)
        own = f"{name}#{row.group}.{row.row}:{key}"
        native = str(values[label]) if label else ""
        try:
            is_fake = parse_class(values[label], self.labels) if label else False
        except ValueError as error:
            return Skipped(own, str(error))
        return BenchmarkItem(
            location=location,
            name=own,
            is_fake=is_fake,
            generator=self._generator(values, native, is_fake, name),
            split=_split(values, name) or self.split,
            native_label=native,
            member=ParquetCell(row.group, row.row, image),
            caption=_value(values, self.caption),
            explanation=_value(values, self.explanation),
            source_id=_value(values, self.source_id),
        )

    def _generator(self, values: dict[str, Any], native: str, is_fake: bool, name: str) -> str:
        if self.generators_by_label:
            return self.generators_by_label[native.strip().lower().removesuffix(".0")]
        if not is_fake and (source := _value(values, self.real_source)):
            return source
        if told := _value(values, self.generator):
            return told
        stem = _SHARD.sub("", base_name(name))
        if self.generator_in_name and stem and split_of(stem) is None:
            return stem
        return UNKNOWN if is_fake else REAL


@dataclass(frozen=True)
class Either:
    """A set that is published, or kept by its users, in two forms: both are read."""

    folders: Any
    rows: ParquetLayout

    def scan(self, root: str) -> Iterator[Found]:
        if not is_file(root):
            yield from self.folders.scan(root)
        yield from self.rows.scan(root)


def _first(names: tuple[str, ...], table: ParquetTable) -> str | None:
    return next((name for name in names if name in table.columns), None)


def _value(values: dict[str, Any], names: tuple[str, ...]) -> str:
    """The first of the columns that holds something, as text."""
    found = (values.get(name) for name in names)
    return next((str(value).strip() for value in found if value not in (None, "")), "")


def _split(values: dict[str, Any], name: str) -> str | None:
    """The row's own split, else that of the file's or a folder's name."""
    parts = [_SHARD.sub("", part) for part in reversed(name.split("/"))]
    return next((s for word in (values.get("split"), *parts) if (s := split_of(word))), None)


OWN = ParquetLayout(
    label=("label", "is_fake", "fake", "class"),
    caption=("caption", "text", "prompt"),
    explanation=("explanation",),
    source_id=("source_id",),
    split="train",
    label_needed=False,
)
"""A user's own files, for training."""

OPENFAKE = ParquetLayout(labels=WORDS)
"""`{core,reddit}/*.parquet` with image, prompt, label, model, type, release_date: the label is the
word real or fake; a number is refused, since nobody says what it means."""

OPENSDI = ParquetLayout(generator_in_name=True)
"""`data/{generator}-00000-of-00019.parquet` with key, image, mask, label: 1 is fake, as a whole or
in part. Masks are not read."""

COMMUNITY_FORENSICS = ParquetLayout(real_source=("real_source",))
"""image_data, model_name, real_source, split, label, prompt ...: 1 is fake."""

SID_SET = ParquetLayout(
    labels={
        **{"0": False, "1": True, "2": True},
        **{"real": False, "full_synthetic": True, "tampered": True},
    },
    generators_by_label={
        **{"0": "real", "1": "full_synthetic", "2": "tampered"},
        **{"real": "real", "full_synthetic": "full_synthetic", "tampered": "tampered"},
    },
)
"""img_id, image, mask, label: 0 real, 1 full_synthetic, 2 tampered."""
