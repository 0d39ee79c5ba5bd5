"""WebDataset tars of samples, an image and a JSON member each, read at random through the index."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from unigendet.data.encoding import PNG, Encoding, decode_stored
from unigendet.data.manifest import (
    SampleEntry,
    SetRows,
    ShardEntry,
    ShardError,
    original_columns,
    put_sets,
    read_set,
    row_schema,
    verify_set,
)
from unigendet.data.tars import MEMBER_NAME, Tar, encode, shard_path
from unigendet.types import Sample

SHARD_BYTES = 64 * 2**20
"""Size that a shard is meant to have where the caller does not say."""


class ShardWriter:
    """Writes one set into `folder`: `<set>-00000.tar` and so on, then its part of the index.

    Use it in a `with` block. The same samples give the same bytes. A set appears in the index
    when the block ends without an error; else its files are removed. A shard is closed by the
    sample that brings it to `shard_bytes`.
    """

    def __init__(
        self,
        folder: Path,
        set_name: str,
        *,
        shard_bytes: int = SHARD_BYTES,
        encoding: Encoding = PNG,
    ) -> None:
        if not MEMBER_NAME.fullmatch(set_name):
            raise ValueError(f"set name {set_name!r}: use up to 80 letters, digits, `_`, `-`")
        if shard_bytes < 1:
            raise ValueError(f"shard_bytes must be at least 1, got {shard_bytes}")
        self.folder = folder
        self.set_name = set_name
        self.shard_bytes = shard_bytes
        self.encoding = encoding
        self._shards: list[ShardEntry] = []
        self._rows: list[dict[str, Any]] = []
        self._keys: set[str] = set()
        self._tar: Tar | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, sample: Sample) -> None:
        """Append one sample. Its key must be new to the set."""
        if sample.key in self._keys:
            raise ValueError(f"set {self.set_name}: two samples have the key {sample.key!r}")
        encoded = encode(sample, self.encoding)
        self._keys.add(sample.key)
        if self._tar is None:
            path = shard_path(self.folder, self.set_name, len(self._shards))
            self._tar = Tar(path, self.encoding)
        places = self._tar.add(encoded.fields, encoded.image)
        known = {name: encoded.fields.get(name) for name in SampleEntry.__slots__}
        self._rows.append(
            known
            | places
            | original_columns(None)
            | {
                "width": encoded.width,
                "height": encoded.height,
                "pixel_sha256": encoded.pixel_sha256,
                "perceptual_hash": encoded.perceptual_hash,
                "shard": len(self._shards),
            }
        )
        if self._tar.size >= self.shard_bytes:
            self._finish_shard(self._tar)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        import pyarrow

        if kind is not None:
            self._discard()
            return
        if self._tar is not None:
            self._finish_shard(self._tar)
        if not self._rows:
            raise ValueError(f"set {self.set_name} has no samples: nothing was written")
        rows = pyarrow.Table.from_pylist(self._rows, schema=row_schema())
        put_sets(self.folder, {self.set_name: SetRows(self._shards, self.encoding, rows)})

    def _finish_shard(self, tar: Tar) -> None:
        self._shards.append(tar.finish())
        self._tar = None

    def _discard(self) -> None:
        if self._tar is not None:
            self._tar.discard()
        for shard in self._shards:
            (self.folder / shard.path).unlink()


class ShardDataset(Sequence[Sample]):
    """One set of a folder of shards, read at random. Picklable; holds no open file.

    `verify` compares every shard's sha256 with the index first; without it only presence and size.
    """

    def __init__(self, folder: Path, set_name: str, *, verify: bool = True) -> None:
        self.folder = Path(folder)
        self.manifest = read_set(self.folder, set_name)
        verify_set(self.folder, self.manifest, contents=verify)

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def encoding(self) -> Encoding:
        """How the set's images are encoded."""
        return self.manifest.encoding

    @property
    def entries(self) -> tuple[SampleEntry, ...]:
        """What is known of each sample without reading it, in order."""
        return self.manifest.samples

    def only(self, *, fake: bool) -> Self:
        """The set's fakes alone, or its real samples; there may be none."""
        return self.part([at for at, entry in enumerate(self.entries) if entry.fake == fake])

    def part(self, positions: Iterable[int]) -> Self:
        """The samples at some positions, which are counted anew."""
        part = copy(self)
        chosen = tuple(self.entries[position] for position in positions)
        part.manifest = replace(self.manifest, samples=chosen)
        return part

    def __len__(self) -> int:
        return len(self.manifest.samples)

    def __getitem__(self, position: Any) -> Any:
        if isinstance(position, slice):
            return [self.sample(i) for i in range(*position.indices(len(self)))]
        return self.sample(position)

    def __iter__(self) -> Iterator[Sample]:
        return (self.sample(position) for position in range(len(self)))

    def sample(self, position: int) -> Sample:
        """The sample at `position`, decoded."""
        return Sample(image=decode_stored(self.image_file(position)), **self.fields(position))

    def fields(self, position: int) -> dict[str, Any]:
        """Every field of the sample at `position` but the image."""
        entry = self.manifest.samples[position]
        fields: dict[str, Any] = json.loads(self._read(entry, entry.meta_offset, entry.meta_size))
        if fields["key"] != entry.key:
            raise self._broken(entry)
        return fields

    def image_file(self, position: int) -> bytes:
        """The image at `position` as stored, encoded."""
        entry = self.manifest.samples[position]
        return self._read(entry, entry.image_offset, entry.image_size)

    def images(self) -> NDArray[np.uint8]:
        """(N, H, W, 3), every image of the set; they must be of one size."""
        height, width = one_size([self])
        images = np.empty((len(self), height, width, 3), np.uint8)
        for position, sample in enumerate(self):
            images[position] = sample.image
        return images

    def _read(self, entry: SampleEntry, offset: int, size: int) -> bytes:
        with (self.folder / self.manifest.shards[entry.shard].path).open("rb") as file:
            file.seek(offset)
            data = file.read(size)
        if len(data) != size:
            raise self._broken(entry)
        return data

    def _broken(self, entry: SampleEntry) -> ShardError:
        path = self.folder / self.manifest.shards[entry.shard].path
        return ShardError(
            f"sample {entry.key} is not where the index says it is in {path}: "
            f"the shard was changed; run the stage again, or `dvc checkout`"
        )


def one_size(sets: Sequence[ShardDataset]) -> tuple[int, int]:
    """(height, width) in pixels of every image of `sets`. Raises ValueError where they differ."""
    sizes = Counter((entry.width, entry.height) for data in sets for entry in data.entries)
    if len(sizes) != 1:
        names = ", ".join(data.name for data in sets)
        told = ", ".join(f"{n} of {w} x {h}" for (w, h), n in sizes.most_common(3))
        raise ValueError(
            f"the images of {names} have {len(sizes)} sizes ({told or 'there are none'}) where one "
            "is needed: set `data.fit` to square or stretch"
        )
    ((width, height),) = sizes
    return height, width
