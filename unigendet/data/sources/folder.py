"""Real images from a folder of the user's, with captions from a table, sidecar texts or file names.

    photos/
      captions.jsonl     {"file": "a/cat.jpg", "caption": "a cat", "split": "train"} per line, or
      captions.csv       with the columns file, caption and, if wanted, split, source_id
      a/cat.jpg
      a/cat.txt          a caption of its own, where no table names the image

The table may also be called metadata or manifest, and be a .tsv; `caption_tables` has its columns.
A folder below may have a table of its own, which names images from there on
(`train/metadata.jsonl`). Without any of these the caption is the file's name, its signs turned to
spaces. An image's split is the table's, else its first folder where that is called train, val or
test in any usual spelling (`split_of`), else drawn from `source_id` by hashing. Images that are
views of one thing should share a `source_id`, as the `crops` of one picture do. The folder may be
a URI.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from unigendet.data.benchmarks.base import REAL, BenchmarkItem, Skipped, split_of
from unigendet.data.benchmarks.files import ImageFile, image_files
from unigendet.data.benchmarks.labels import folder_of_fakes
from unigendet.data.benchmarks.samples import read_picture, to_sample
from unigendet.data.caption_tables import (
    CaptionRow,
    Captions,
    caption_tables,
    name_caption,
    sidecar_caption,
)
from unigendet.data.degradations import draws
from unigendet.data.image_header import SUFFIXES
from unigendet.data.opener import OpenError, base_name, is_folder, location
from unigendet.data.plain_text import plain
from unigendet.data.sources.base import SourceItem
from unigendet.data.sources.stored import check_settings, source_item, unusable
from unigendet.data.splits import hashed_split
from unigendet.data.transforms import FITS
from unigendet.types import Sample

_NO_IMAGES = frozenset(("__macosx",))


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """Every image below `folder`, scaled by the rule `fit` to `image_size` pixels.

    Images and lines of the table that cannot be used are items with a `problem`.
    """

    folder: Path | str
    image_size: int = 64
    val_share: float = 0.1
    test_share: float = 0.1
    seed: int = 0
    fit: str = "square"
    """How an image is brought to its size: a rule of `unigendet.data.transforms.FITS`."""
    crops: int = 1
    """Images made of each picture: the centre square, and others of half to all of its short side
    at places drawn from its name. Above 1 only with `fit` square."""

    def __post_init__(self) -> None:
        check_settings(self.fit, self.val_share, self.test_share)
        if self.crops < 1 or (self.crops > 1 and self.fit != "square"):
            raise ValueError(
                f"crops ({self.crops}) must be at least 1, and with fit {self.fit} 1: crops are "
                "squares"
            )
        object.__setattr__(self, "folder", location(self.folder))
        if not is_folder(self._root):
            raise ValueError(f"the image folder {self.folder} does not exist")

    @property
    def _root(self) -> str:
        return str(self.folder)

    @property
    def domain(self) -> str:
        return base_name(self._root)

    def items(self) -> list[SourceItem]:
        found = sorted(image_files(self._root, skip=_NO_IMAGES), key=lambda file: file.name)
        if not found:
            raise ValueError(f"{self.folder} holds no images ({', '.join(sorted(SUFFIXES))})")
        names = [file.name for file in found]
        captions = Captions(caption_tables(self._root, names))
        pictures = [self._item(file, captions.find(file.name)) for file in found]
        items = [crop for picture in pictures for crop in self._crops(picture)]
        return items + [self._unused(row) for row in captions.unmatched(names)]

    def _item(self, file: ImageFile | Skipped, row: CaptionRow) -> SourceItem:
        if fakes := folder_of_fakes(file.name.split("/")[:-1], base_name(self._root)):
            raise ValueError(
                f"{self.folder}: {plain(file.name)} lies in a folder of fakes by its name "
                f"({plain(fakes)}), and this source takes every image for a real one: name the "
                "folder of the real ones (one called real may hold any other)"
            )
        place = f"{self._root}/{file.name}" if isinstance(file, Skipped) else file.location
        caption, problem = row.caption, row.problem
        caption_from = "table"
        # What a line says that cannot be used is not used in part.
        source_id = "" if problem else row.source_id
        if isinstance(file, Skipped):
            problem = file.reason
        elif not file.name_is_utf8:
            problem = "the file's name is not UTF-8"
        elif problem:
            problem = f"line {row.line} of {row.table}: {problem}"
        elif not caption:
            try:
                caption, caption_from = sidecar_caption(place), "text file"
            except OpenError as error:
                problem = str(error)
        source_id = source_id or f"{self.domain}/{file.name}"
        told = row.split or _first_folder(file.name)
        return source_item(
            BenchmarkItem(
                place,
                file.name,
                is_fake=False,
                generator=REAL,
                split=told or self._drawn(source_id),
                native_label="",
                caption=caption or name_caption(file.name),
                source_id=source_id,
            ),
            problem,
            drawn=not told,
            caption_from=caption_from if caption else "file name",
        )

    def _crops(self, item: SourceItem) -> list[SourceItem]:
        """What is made of one picture; one that cannot be used is counted once."""
        more = range(1, 1 if item.problem else self.crops)
        return [item, *(replace(item, key=f"{item.key}-{crop}", crop=crop) for crop in more)]

    def _unused(self, row: CaptionRow) -> SourceItem:
        """A line of a table that no image belongs to."""
        problem = row.problem or f"there is no image {row.file!a}"
        table, name = f"{self._root.rstrip('/')}/{row.table}", f"{row.table}-line-{row.line}"
        return unusable(table, name, f"line {row.line}: {problem}", self.domain)

    def _drawn(self, source_id: str) -> str:
        train = 1.0 - self.val_share - self.test_share
        shares = {"train": train, "val": self.val_share, "test": self.test_share}
        return hashed_split(source_id, shares, seed=self.seed)

    def read(self, item: SourceItem) -> Sample:
        """Decode one image. Raises ImageError naming the file where it is damaged or no image."""
        assert item.stored is not None
        picture = read_picture(item.stored)
        if item.crop:
            drawn = draws(self.seed, item.stored.name, item.crop)
            side = max(1, round(min(picture.size) * drawn.uniform(0.5, 1.0)))
            left, top = (int(drawn.integers(length - side + 1)) for length in picture.size)
            picture = picture.crop((left, top, left + side, top + side))
        image = np.asarray(FITS[self.fit](picture, self.image_size))
        return replace(to_sample(item.stored, self.domain, image), key=item.key)


def _first_folder(name: str) -> str:
    """The split that the first folder is called after, or nothing."""
    first, _, below = name.partition("/")
    return (split_of(first) if below else None) or ""
