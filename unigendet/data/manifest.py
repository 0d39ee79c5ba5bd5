"""`index.parquet` beside the shards: what is in them, where each sample lies, and checksums.

One row per sample, set by set, each set in the order in which it was written. The shards' sizes
and checksums, and how each set is encoded, are in the table's metadata under the key `unigendet`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from unigendet.data.encoding import Encoding
from unigendet.data.image_header import HeaderFacts

INDEX_NAME = "index.parquet"
INDEX_VERSION = 2
_METADATA = b"unigendet"
ORIGINAL = "original_"
"""What the columns on the file that a sample was read from begin with."""


class ShardError(ValueError):
    """A shard or an index is missing, truncated or changed; the message says which, what to do."""


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """One tar file."""

    path: str
    """File name, in the folder of the index."""
    count: int
    """Samples in it."""
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class SampleEntry:
    """Where one sample lies, and what is needed to choose it without reading it."""

    key: str
    source_id: str
    fake: bool
    generator: str
    caption: str
    width: int
    height: int
    pixel_sha256: str
    """Of the pixels before they were encoded."""
    perceptual_hash: int
    """64 bits (`unigendet.data.hashing`)."""
    shard: int
    """Index into the set's shards."""
    image_offset: int
    """Of the image's first byte in the tar; sizes and offsets in bytes."""
    image_size: int
    meta_offset: int
    meta_size: int


@dataclass(frozen=True, slots=True)
class SetIndex:
    """One set of samples, `train` for instance, in the order in which they were written."""

    name: str
    shards: tuple[ShardEntry, ...]
    samples: tuple[SampleEntry, ...]
    encoding: Encoding

    @property
    def class_balance(self) -> dict[str, int]:
        """Number of real and of fake samples."""
        fake = sum(sample.fake for sample in self.samples)
        return {"real": len(self.samples) - fake, "fake": fake}

    @property
    def generators(self) -> dict[str, int]:
        """Samples of each generator family, `real` included, by name."""
        return dict(sorted(Counter(sample.generator for sample in self.samples).items()))

    @property
    def source_count(self) -> int:
        """Number of distinct real images (or map cells) that the samples come from."""
        return len({sample.source_id for sample in self.samples})


@dataclass(frozen=True, slots=True)
class SetRows:
    """A set on its way into the index."""

    shards: Sequence[ShardEntry]
    encoding: Encoding
    rows: Any
    """A pyarrow table with the columns of `row_schema`."""


def row_schema() -> Any:
    """The columns of a set's rows: `SampleEntry`, then facts of the original file, null without."""
    import pyarrow

    kinds = {"str": pyarrow.string(), "int": pyarrow.int64(), "bool": pyarrow.bool_()}
    own = [
        pyarrow.field(field.name, kinds[str(field.type)], nullable=False)
        for field in fields(SampleEntry)
    ]
    places = [field.name for field in own]
    own[places.index("perceptual_hash")] = pyarrow.field("perceptual_hash", pyarrow.uint64())
    return pyarrow.schema([*own, *original_fields()])


def original_fields() -> list[Any]:
    """The columns on the original file."""
    import pyarrow

    kinds = {"str": pyarrow.string(), "int": pyarrow.int64()}
    return [
        pyarrow.field(
            ORIGINAL + field.name, kinds.get(str(field.type), pyarrow.list_(pyarrow.float64()))
        )
        for field in fields(HeaderFacts)
    ]


def original_columns(facts: HeaderFacts | None) -> dict[str, Any]:
    """One row's values of those columns."""
    if facts is None:
        return {ORIGINAL + field.name: None for field in fields(HeaderFacts)}
    return {
        ORIGINAL + name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(facts).items()
    }


def read_index(folder: Path) -> dict[str, SetIndex]:
    """Every set of the folder by name. Raises `ShardError` where the index cannot be read."""
    return {name: read_set(folder, name) for name in _read_metadata(folder)}


def read_set(folder: Path, name: str) -> SetIndex:
    """The index of one set."""
    shards, encoding = _known_set(folder, name)
    columns = [field.name for field in fields(SampleEntry)]
    rows = _read_rows(folder, name, columns)
    return SetIndex(name, shards, tuple(SampleEntry(**row) for row in rows.to_pylist()), encoding)


def read_originals(folder: Path, name: str) -> list[HeaderFacts | None]:
    """Facts of the file that each sample of a set was read from, where they are known."""
    _known_set(folder, name)
    columns = [ORIGINAL + field.name for field in fields(HeaderFacts)]
    found: list[HeaderFacts | None] = []
    for row in _read_rows(folder, name, columns).to_pylist():
        values = {key.removeprefix(ORIGINAL): value for key, value in row.items()}
        if values["format"] is None:
            found.append(None)
        else:
            found.append(HeaderFacts(**values | {"table_means": tuple(values["table_means"])}))
    return found


def put_sets(folder: Path, sets: Mapping[str, SetRows]) -> None:
    """Write `sets` into the folder's index, in place of sets of the same names."""
    import pyarrow
    import pyarrow.parquet

    described, tables = {}, {}
    if (folder / INDEX_NAME).exists():
        described = _read_metadata(folder)
        tables = {name: _read_rows(folder, name, row_schema().names) for name in described}
    for name, given in sets.items():
        described[name] = {
            "encoding": asdict(given.encoding),
            "shards": [asdict(shard) for shard in given.shards],
        }
        tables[name] = given.rows.select(row_schema().names).cast(row_schema())
    metadata = {
        "version": INDEX_VERSION,
        "sets": {name: described[name] for name in sorted(described)},
    }
    schema = pyarrow.schema([pyarrow.field("set", pyarrow.string()), *row_schema()])
    schema = schema.with_metadata({_METADATA: json.dumps(metadata, sort_keys=True)})
    part = folder / (INDEX_NAME + ".part")
    with pyarrow.parquet.ParquetWriter(part, schema) as writer:
        # A row group per set or several: reading one set does not read the others.
        for name in sorted(tables):
            column = pyarrow.array([name] * len(tables[name]), pyarrow.string())
            table = tables[name].add_column(0, "set", column)
            writer.write_table(table.cast(schema))
    os.replace(part, folder / INDEX_NAME)


def verify_set(folder: Path, index: SetIndex, *, contents: bool = True) -> None:
    """Compare every shard with the index: that it is there, its size and, if `contents`, sha256."""
    for shard in index.shards:
        path = folder / shard.path
        if not path.is_file():
            raise ShardError(f"shard {path} is missing: run the stage again, or `dvc checkout`")
        size = path.stat().st_size
        if size != shard.bytes:
            raise ShardError(
                f"shard {path} has {size} bytes where the index says {shard.bytes}: "
                f"it was cut short or changed; run the stage again, or `dvc checkout`"
            )
        if contents and file_sha256(path) != shard.sha256:
            raise ShardError(
                f"shard {path} was changed after it was written (its sha256 is not the index's): "
                f"run the stage again, or `dvc checkout`"
            )


def file_sha256(path: Path) -> str:
    """Hex digest of a file's contents."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _known_set(folder: Path, name: str) -> tuple[tuple[ShardEntry, ...], Encoding]:
    sets = _read_metadata(folder)
    if name not in sets:
        known = ", ".join(sorted(sets)) or "none"
        raise ShardError(f"{folder} has no set `{name}`; it has {known}")
    shards = tuple(ShardEntry(**shard) for shard in sets[name]["shards"])
    _check_paths(shard.path for shard in shards)
    return shards, Encoding(**sets[name]["encoding"])


def _read_metadata(folder: Path) -> dict[str, Any]:
    """What the index says of each set as a whole, by its name."""
    import pyarrow
    import pyarrow.parquet

    path = folder / INDEX_NAME
    try:
        raw = json.loads(pyarrow.parquet.read_schema(path).metadata[_METADATA])
        version, sets = raw["version"], dict(raw["sets"])
    except FileNotFoundError:
        raise ShardError(
            f"{path} is missing: run the stage that writes this folder, or `dvc checkout`"
        ) from None
    except (pyarrow.ArrowException, KeyError, TypeError, ValueError) as error:
        raise ShardError(f"{path} is no valid index ({error!r}): write the shards again") from None
    if version != INDEX_VERSION:
        raise ShardError(
            f"{path} has version {version}, this program reads {INDEX_VERSION}: "
            f"write the shards again"
        )
    return sets


def _read_rows(folder: Path, name: str, columns: Sequence[str]) -> Any:
    import pyarrow
    import pyarrow.parquet

    path = folder / INDEX_NAME
    try:
        return pyarrow.parquet.read_table(
            path, columns=list(columns), filters=[("set", "=", name)], partitioning=None
        )
    except pyarrow.ArrowException as error:
        raise ShardError(f"{path} is no valid index ({error!r}): write the shards again") from None


def _check_paths(paths: Iterable[str]) -> None:
    # A shard lies beside its index: a path from elsewhere, or a command, is never opened.
    for path in paths:
        if Path(path).name != path or path in ("", ".", ".."):
            raise ShardError(f"the index names a shard outside its folder: {path!r}")
