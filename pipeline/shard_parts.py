"""First pass of the stage shard: every image is read once and kept, encoded, in the state folder.

A Ray task writes one part of the plan, and holds one image at a time.

A part is two files: `<digest>.images`, the encoded images one after
another, and `<digest>.parquet`, a row per planned image with its hashes and captions, or why it
cannot be used. The second is written last and holds the checksum of the first, so that what an
interrupted attempt finished is used again. The digest covers the items and their files' sizes and
times: a file that was repaired since is read again.
"""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from PIL import UnidentifiedImageError

from unigendet.data.benchmarks.files import shown_name
from unigendet.data.encoding import Encoding
from unigendet.data.image_files import ImageError, read_image_file
from unigendet.data.image_header import HeaderFacts, header_facts
from unigendet.data.manifest import file_sha256, original_columns, original_fields
from unigendet.data.opener import file_state, is_remote
from unigendet.data.sources.base import Source, SourceItem
from unigendet.data.tars import SAMPLE_FIELDS, encode
from unigendet.data.whole_file import WholeFile, remove_partials

IMAGES_PER_PART = 128
_CHECKSUM = b"images_sha256"


@dataclass(frozen=True, slots=True)
class PlannedItem:
    """One image to read: from which source, into which set."""

    source: Source
    item: SourceItem
    set_name: str


@dataclass(frozen=True, slots=True)
class PartOrder:
    """A stretch of the plan."""

    folder: Path
    digest: str
    planned: tuple[PlannedItem, ...]
    encoding: Encoding

    @property
    def rows_path(self) -> Path:
        return self.folder / f"{self.digest}.parquet"

    @property
    def images_path(self) -> Path:
        return images_path(self.folder, self.digest)


@dataclass(frozen=True, slots=True)
class PartDone:
    """What became of a part."""

    images: int
    quarantined: int
    reused: bool
    began: float
    """Unix time."""


def images_path(folder: Path, digest: str) -> Path:
    """Where a part keeps its encoded images."""
    return folder / f"{digest}.images"


def cut_into_parts(
    plan: Sequence[PlannedItem], folder: Path, encoding: Encoding
) -> list[PartOrder]:
    """The plan, in order, as parts of `IMAGES_PER_PART`."""
    folder.mkdir(exist_ok=True)
    remove_partials(folder)
    orders = []
    state = cache(file_state)  # many images may lie in one container
    for start in range(0, len(plan), IMAGES_PER_PART):
        planned = tuple(plan[start : start + IMAGES_PER_PART])
        digest = hashlib.sha256(repr((start, encoding)).encode())
        for one in planned:
            digest.update(repr((one.item, one.set_name, state(one.item.location))).encode())
        orders.append(PartOrder(folder, digest.hexdigest()[:32], planned, encoding))
    return orders


def write_part(order: PartOrder) -> PartDone:
    """Read, check, convert, encode and hash every image of a part, one after another."""
    import pyarrow
    import pyarrow.parquet

    began = time.time()
    if (rows := _finished_rows(order)) is not None:
        problems = rows.column("problem").to_pylist()
        return PartDone(len(problems), sum(map(bool, problems)), True, began)
    found = []
    with WholeFile(order.images_path) as file:
        for planned in order.planned:
            row = _read(planned, order.encoding)
            image = row.pop("image")
            found.append(
                row
                | {
                    "part": order.digest,
                    "part_offset": file.tell(),
                    "image_size": len(image),
                    "image_crc32": zlib.crc32(image),
                }
            )
            file.write(image)
        _, checksum = file.finish()
    schema = _row_schema().with_metadata({_CHECKSUM: checksum})
    table = pyarrow.Table.from_pylist(found, schema=schema)
    encoded = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, encoded)
    with WholeFile(order.rows_path) as file:
        file.write(encoded.getvalue().to_pybytes())
        file.finish()
    return PartDone(len(found), sum(bool(row["problem"]) for row in found), False, began)


def read_rows(orders: Sequence[PartOrder]) -> Any:
    """One table with the rows of all parts, in the plan's order."""
    import pyarrow
    import pyarrow.parquet

    tables = [pyarrow.parquet.read_table(order.rows_path, partitioning=None) for order in orders]
    return pyarrow.concat_tables([table.replace_schema_metadata() for table in tables])


def _finished_rows(order: PartOrder) -> Any:
    """The rows of a part that an earlier attempt finished; None where it has to be written."""
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(order.rows_path, partitioning=None)
        whole = file_sha256(order.images_path) == rows.schema.metadata[_CHECKSUM].decode()
    except (OSError, pyarrow.ArrowException):
        return None
    problems = rows.column("problem").to_pylist()
    # What a remote store failed to give, it may give now.
    failed = any(
        problem and not one.item.problem and is_remote(one.item.location)
        for problem, one in zip(problems, order.planned, strict=True)
    )
    return rows if whole and not failed else None


def _row_schema() -> Any:
    """What is known of each planned image: why it cannot be used, or all that is stored."""
    import pyarrow

    text, number = pyarrow.string(), pyarrow.int64()
    kinds = {
        "fake": pyarrow.bool_(),
        "drawn": pyarrow.bool_(),
        "perceptual_hash": pyarrow.uint64(),
        "blank": pyarrow.bool_(),
    }
    words = ("set", "path", "problem", *SAMPLE_FIELDS, "pixel_sha256", "part")
    numbers = ("width", "height", "part_offset", "image_size", "image_crc32")
    columns = {name: text for name in words} | {name: number for name in numbers} | kinds
    return pyarrow.schema([*columns.items(), *original_fields()])


def _read(planned: PlannedItem, encoding: Encoding) -> dict[str, Any]:
    """One row, with the encoded image under `image`; a bad image gives its problem."""
    item = planned.item
    row = {
        "set": planned.set_name,
        "path": shown_name(item.place),
        "problem": shown_name(item.problem),
        "key": item.key,
        "source_id": shown_name(item.source_id),
        "drawn": item.drawn,
        "image": b"",
        **original_columns(None),
    }
    if item.problem:
        return row
    try:
        sample = encode(planned.source.read(item), encoding)
        facts = _facts_of(item)
    except (ValueError, OSError) as error:
        reason = str(error).removeprefix(f"{item.place}: ")
        return row | {"problem": shown_name(reason) or type(error).__name__}
    return (
        row
        | sample.fields
        | original_columns(facts)
        | {
            "image": sample.image,
            "width": sample.width,
            "height": sample.height,
            "pixel_sha256": sample.pixel_sha256,
            "perceptual_hash": sample.perceptual_hash,
            "blank": sample.blank,
        }
    )


def _facts_of(item: SourceItem) -> HeaderFacts | None:
    """Facts of the user's file, or of the member that the image is."""
    if item.stored is None or (item.stored.member is None and not is_remote(item.location)):
        return _facts_of_file(Path(item.location))
    return header_facts(item.stored.read_bytes())


@lru_cache(maxsize=16)
def _facts_of_file(path: Path) -> HeaderFacts | None:
    """Cached for sources that cut many images out of one file."""
    try:
        return header_facts(read_image_file(path))
    except (ImageError, UnidentifiedImageError):
        # Something else than an image, which the source knows how to read: an archive, say.
        return None
