"""Real images from a folder of the user's, with captions from a table, sidecar texts or file names.

    photos/
      captions.jsonl     {"file": "a/cat.jpg", "caption": "a cat", "split": "train"} per line, or
      captions.csv       with the columns file, caption and, if wanted, split, source_id
      a/cat.jpg
      a/cat.txt          a caption of its own, where no table names the image

Without any of these the caption is the file's name, its signs turned to spaces. An image's split is
the table's, else its first folder where that is called train, val or test, else drawn from
`source_id` by hashing. Images that are views of one thing should share a `source_id`.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unigendet.data.sources.base import SourceItem
from unigendet.data.splits import SPLITS, hashed_split
from unigendet.data.transforms import read_image
from unigendet.types import Sample

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
_FILE_KEYS = ("file", "file_name", "path", "image")
_CAPTION_KEYS = ("caption", "text")


@dataclass(frozen=True, slots=True)
class _Row:
    """What a table says of one image."""

    caption: str | None
    split: str | None
    source_id: str | None


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """Every image below `folder`, its centre square scaled to `image_size` pixels."""

    folder: Path
    image_size: int = 64
    val_share: float = 0.1
    test_share: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.folder.is_dir():
            raise ValueError(f"the image folder {self.folder} does not exist")
        if min(self.val_share, self.test_share) < 0 or self.val_share + self.test_share >= 1:
            raise ValueError(
                f"val_share ({self.val_share}) and test_share ({self.test_share}) "
                f"must be at least 0 and leave something for train"
            )

    @property
    def domain(self) -> str:
        return self.folder.resolve().name

    def items(self) -> list[SourceItem]:
        table = self._table()
        paths = sorted(
            path
            for path in self.folder.rglob("*")
            if path.suffix.lower() in SUFFIXES and path.is_file()
        )
        if not paths:
            raise ValueError(f"{self.folder} holds no images ({', '.join(SUFFIXES)})")
        names = {path.relative_to(self.folder).as_posix() for path in paths}
        strangers = sorted(set(table) - names)
        if strangers:
            raise ValueError(
                f"{self.folder}: the captions name {len(strangers)} images that are not there, "
                f"the first is {strangers[0]}"
            )
        return [self._item(path, table) for path in paths]

    def _item(self, path: Path, table: dict[str, _Row]) -> SourceItem:
        name = path.relative_to(self.folder).as_posix()
        row = table.get(name, _Row(None, None, None))
        source_id = row.source_id or f"{self.domain}/{name}"
        return SourceItem(
            key=_key(name),
            source_id=source_id,
            split=row.split or self._split(name, source_id),
            path=path,
            caption=row.caption or _own_caption(path),
        )

    def _split(self, name: str, source_id: str) -> str:
        first = name.split("/", 1)[0]
        if "/" in name and first in SPLITS:
            return first
        train = 1.0 - self.val_share - self.test_share
        shares = {"train": train, "val": self.val_share, "test": self.test_share}
        return hashed_split(source_id, shares, seed=self.seed)

    def read(self, item: SourceItem) -> Sample:
        """Decode one image. Raises ImageError naming the file where it is damaged or no image."""
        assert item.caption is not None
        square = _centre_square(read_image(item.path))
        size = (self.image_size, self.image_size)
        return Sample(
            key=item.key,
            image=np.asarray(square.resize(size, Image.Resampling.LANCZOS)),
            source_id=item.source_id,
            split=item.split,
            domain=self.domain,
            caption=item.caption,
            fake=False,
        )

    def _table(self) -> dict[str, _Row]:
        jsonl, table = self.folder / "captions.jsonl", self.folder / "captions.csv"
        if jsonl.is_file() and table.is_file():
            raise ValueError(f"{self.folder} has both captions.jsonl and captions.csv: keep one")
        rows: dict[str, _Row] = {}
        source = jsonl if jsonl.is_file() else table
        if not source.is_file():
            return rows
        for number, record in _jsonl(source) if source is jsonl else _csv(source):
            name, row = _parse(record, f"{source}, line {number}")
            if name in rows:
                raise ValueError(f"{source}, line {number}: {name} is named twice")
            rows[name] = row
        return rows


def _jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number}: not valid JSON ({error})") from None
            if not isinstance(record, dict):
                raise ValueError(f"{path}, line {number}: must be an object with file and caption")
            yield number, record


def _csv(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        for record in reader:
            yield reader.line_num, record


def _parse(record: dict[str, Any], where: str) -> tuple[str, _Row]:
    name = next((record[key] for key in _FILE_KEYS if record.get(key)), None)
    if not isinstance(name, str):
        raise ValueError(f"{where}: no image is named (one of {', '.join(_FILE_KEYS)})")
    caption = next((record[key] for key in _CAPTION_KEYS if record.get(key)), None)
    split = record.get("split") or None
    if split is not None and split not in SPLITS:
        raise ValueError(f"{where}: split is {split!r}, not one of {', '.join(SPLITS)}")
    source_id = record.get("source_id") or None
    return name, _Row(
        caption=str(caption).strip() if caption else None,
        split=split,
        source_id=str(source_id) if source_id else None,
    )


def _own_caption(path: Path) -> str:
    sidecar = path.with_suffix(".txt")
    if sidecar.is_file():
        text = " ".join(sidecar.read_text(encoding="utf-8").split())
        if text:
            return text
    return " ".join(re.split(r"[\W_]+", path.stem)).strip().lower() or "an image"


def _key(name: str) -> str:
    """A tar-safe name that stays unique: two different files never share one."""
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", name.rsplit(".", 1)[0])[-60:].strip("-")
    return f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:10]}".lstrip("-")


def _centre_square(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))
