"""A user's own folder: class folders (`0_real`/`1_fake`, `real`/`fake` ...), or captioned reals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from unigendet.data.benchmarks.base import (
    REAL,
    BenchmarkError,
    BenchmarkItem,
    Found,
    Skipped,
    normalised,
    split_of,
)
from unigendet.data.benchmarks.files import NO_IMAGES, ImageFile, image_files
from unigendet.data.benchmarks.labels import FAKE_FOLDERS, REAL_FOLDERS, SUBJECTS, folder_of_fakes
from unigendet.data.benchmarks.tree import TreeLayout
from unigendet.data.caption_tables import CaptionRow, caption_table, name_caption, sidecar_caption
from unigendet.data.opener import OpenError, base_name, walk

_CLASSES = TreeLayout("folder", REAL_FOLDERS, FAKE_FOLDERS, subjects=SUBJECTS, generator_below=True)


@dataclass(frozen=True)
class Folder:
    """Where any folder is called after a class, only images below such folders count. Where none
    is, every image is a real one for training, with its caption; a folder that looks like one of
    fakes is then an error."""

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
            if fakes := folder_of_fakes(file.parts, base_name(root)):
                raise BenchmarkError(
                    f"{file.name}: {fakes!r} looks like a folder of fakes, and no folder is called "
                    "after a class: call the folders 'real' and 'fake', or put the photographs "
                    "into one called 'real'"
                )
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
    known = (REAL_FOLDERS | FAKE_FOLDERS) - SUBJECTS
    if normalised(base_name(root)) in FAKE_FOLDERS:
        return True
    start = len(root.rstrip("/")) + 1
    return any(
        normalised(part) in known
        for location, _ in walk(root, skip=NO_IMAGES)
        for part in location[start:].split("/")[:-1]
    )


def _split(file: ImageFile, told: str | None) -> str:
    return split_of(told or (file.parts[0] if file.parts else "")) or "train"
