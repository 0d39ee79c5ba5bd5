"""`index.json` beside the shards: what is in them, where each sample lies, and their checksums."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

INDEX_NAME = "index.json"
INDEX_VERSION = 1


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
    shard: int
    """Index into the set's shards."""
    image_offset: int
    """Of the PNG's first byte in the tar; sizes and offsets in bytes."""
    image_size: int
    meta_offset: int
    meta_size: int


@dataclass(frozen=True, slots=True)
class SetIndex:
    """One set of samples, `train` for instance, in the order in which they were written."""

    name: str
    shards: tuple[ShardEntry, ...]
    samples: tuple[SampleEntry, ...]

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


def read_index(folder: Path) -> dict[str, SetIndex]:
    """Every set of the folder by name. Raises `ShardError` where the index cannot be read."""
    path = folder / INDEX_NAME
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ShardError(
            f"{path} is missing: run the stage that writes this folder, or `dvc checkout`"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ShardError(f"{path} is no valid index ({error}): write the shards again") from None
    try:
        if raw["version"] != INDEX_VERSION:
            raise ShardError(
                f"{path} has version {raw['version']}, this program reads {INDEX_VERSION}: "
                f"write the shards again"
            )
        return {name: _parse_set(name, value) for name, value in raw["sets"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ShardError(f"{path} is no valid index ({error!r}): write the shards again") from None


def read_set(folder: Path, name: str) -> SetIndex:
    """The index of one set."""
    sets = read_index(folder)
    if name not in sets:
        known = ", ".join(sorted(sets)) or "none"
        raise ShardError(f"{folder} has no set `{name}`; it has {known}")
    return sets[name]


def add_set(folder: Path, index: SetIndex) -> None:
    """Put `index` into the folder's index.json, in place of a set of the same name."""
    sets = read_index(folder) if (folder / INDEX_NAME).exists() else {}
    sets[index.name] = index
    text = json.dumps(
        {"version": INDEX_VERSION, "sets": {name: _dump_set(sets[name]) for name in sorted(sets)}},
        indent=1,
    )
    part = folder / (INDEX_NAME + ".part")
    part.write_text(text + "\n", encoding="utf-8")
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


def _dump_set(index: SetIndex) -> dict[str, Any]:
    return {
        "count": len(index.samples),
        "sources": index.source_count,
        "class_balance": index.class_balance,
        "generators": index.generators,
        "shards": [asdict(shard) for shard in index.shards],
        "samples": [asdict(sample) for sample in index.samples],
    }


def _parse_set(name: str, raw: Mapping[str, Any]) -> SetIndex:
    index = SetIndex(
        name=name,
        shards=tuple(ShardEntry(**shard) for shard in raw["shards"]),
        samples=tuple(SampleEntry(**sample) for sample in raw["samples"]),
    )
    _check_paths(shard.path for shard in index.shards)
    return index


def _check_paths(paths: Iterable[str]) -> None:
    # A shard lies beside its index: a path from elsewhere, or a command, is never opened.
    for path in paths:
        if Path(path).name != path or path in ("", ".", ".."):
            raise ShardError(f"the index names a shard outside its folder: {path!r}")
