"""A user's own folder: class folders (`0_real`/`1_fake` or `real`/`fake`), or captioned reals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from unigendet.data.benchmarks.base import REAL, BenchmarkItem, Found, Skipped, normalised, split_of
from unigendet.data.benchmarks.files import NO_IMAGES, ImageFile, image_files
from unigendet.data.benchmarks.tree import TreeLayout
from unigendet.data.caption_tables import CaptionRow, caption_table, name_caption, sidecar_caption
from unigendet.data.opener import OpenError, base_name, walk

_CLASSES = TreeLayout(
    "folder", frozenset(("0real", "real")), frozenset(("1fake", "fake")), generator_below=True
)


@dataclass(frozen=True)
class Folder:
    """Where any folder is called after a class, only images below such folders count. Where none
    is, every image is a real one for training, with its caption."""

    def scan(self, root: str) -> Iterator[Found]:
        if has_classes(root):
            yield from _CLASSES.scan(root)
            return
        table, rows = caption_table(root)
        unmet = {row.file: row for row in rows if row.file}
        for file in image_files(root):
            row = unmet.pop(file.name, CaptionRow(0))
            if isinstance(file, Skipped):
                yield file
                continue
            if row.problem:
                yield Skipped(file.name, f"line {row.line} of the captions: {row.problem}")
                continue
            try:
                told = row.caption or sidecar_caption(file.location)
            except OpenError as error:
                yield Skipped(file.name, str(error))
                continue
            yield BenchmarkItem(
                location=file.location,
                name=file.name,
                is_fake=False,
                generator=REAL,
                split=_split(file, row.split),
                native_label="",
                caption=told or name_caption(file.name),
                source_id=row.source_id or "",
            )
        for row in rows:
            if not row.file:
                yield Skipped(f"{base_name(table or root)}, line {row.line}", row.problem)
            elif row.file in unmet:
                yield Skipped(row.file, "named in the captions, but there is no such image")


def has_classes(root: str) -> bool:
    """Whether any folder of an image is called after a class, or the given one after the fakes."""
    known = _CLASSES.real | _CLASSES.fake
    if normalised(base_name(root)) in _CLASSES.fake:
        return True
    start = len(root.rstrip("/")) + 1
    return any(
        normalised(part) in known
        for location, _ in walk(root, skip=NO_IMAGES)
        for part in location[start:].split("/")[:-1]
    )


def _split(file: ImageFile, told: str | None) -> str:
    return split_of(told or (file.parts[0] if file.parts else "")) or "train"
