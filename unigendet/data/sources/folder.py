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

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unigendet.data.image_files import read_image
from unigendet.data.sources.base import SourceItem
from unigendet.data.sources.caption_table import CaptionRow, read_caption_table
from unigendet.data.splits import SPLITS, hashed_split
from unigendet.data.transforms import FITS
from unigendet.types import Sample

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """Every image below `folder`, scaled by the rule `fit` to `image_size` pixels.

    Images and lines of the table that cannot be used are items with a `problem`.
    """

    folder: Path
    image_size: int = 64
    val_share: float = 0.1
    test_share: float = 0.1
    seed: int = 0
    fit: str = "square"
    """How an image is brought to its size: a rule of `unigendet.data.transforms.FITS`."""

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise ValueError(f"fit is {self.fit!r}, not one of {', '.join(FITS)}")
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
        source, rows = read_caption_table(self.folder)
        paths = sorted(
            path
            for path in self.folder.rglob("*")
            if path.suffix.lower() in SUFFIXES and path.is_file()
        )
        if not paths:
            raise ValueError(f"{self.folder} holds no images ({', '.join(SUFFIXES)})")
        table = {row.file: row for row in rows if row.file}
        items = [self._item(path, table) for path in paths]
        if source is not None:
            names = {_name(path, self.folder) for path in paths}
            items += [self._unused(source, row) for row in rows if row.file not in names]
        return items

    def _item(self, path: Path, table: dict[str, CaptionRow]) -> SourceItem:
        name = _name(path, self.folder)
        row = table.get(name, CaptionRow(0))
        problem = row.problem and f"line {row.line} of the captions: {row.problem}"
        caption = row.caption
        try:
            name.encode()
            caption = caption or _own_caption(path)
        except UnicodeEncodeError:
            problem, name = "the file's name is not UTF-8", ascii(name)
        except UnicodeDecodeError:
            problem = "the caption beside it is not UTF-8"
        source_id = row.source_id or f"{self.domain}/{name}"
        return SourceItem(
            key=_key(name),
            source_id=source_id,
            split=row.split if row.split in SPLITS else self._split(name, source_id),
            path=path,
            caption=caption,
            problem=problem,
        )

    def _unused(self, source: Path, row: CaptionRow) -> SourceItem:
        """A line of the table that no image belongs to."""
        where = f"{source.name}-line-{row.line}"
        return SourceItem(
            key=_key(where),
            source_id=f"{self.domain}/{where}",
            split="train",
            path=source,
            problem=f"line {row.line}: {row.problem or f'there is no image {row.file!a}'}",
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
        scaled = FITS[self.fit](read_image(item.path), self.image_size)
        return Sample(
            key=item.key,
            image=np.asarray(scaled),
            source_id=item.source_id,
            split=item.split,
            domain=self.domain,
            caption=item.caption,
            fake=False,
        )


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


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
    return f"{readable}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:10]}".lstrip("-")
