"""WebDataset tars of samples, a PNG and a JSON member each, read at random through the index."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unigendet.data.manifest import (
    SampleEntry,
    SetIndex,
    ShardEntry,
    ShardError,
    add_set,
    file_sha256,
    read_set,
    verify_set,
)
from unigendet.types import Sample

_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}")


@dataclass(frozen=True, slots=True)
class EncodedSample:
    """A sample as it is stored: one lossless encoder for real and fake alike."""

    key: str
    source_id: str
    fake: bool
    generator: str
    png: bytes
    meta: bytes
    """UTF-8 JSON of every field of `Sample` but the image."""


def encode(sample: Sample) -> EncodedSample:
    """Encode `sample`, whose image is (H, W, 3) uint8. Raises ValueError where it is malformed."""
    if not _NAME.fullmatch(sample.key):
        raise ValueError(
            f"key {sample.key!r} cannot name a tar member: use up to 80 letters, digits, `_`, `-`"
        )
    image = sample.image
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"sample {sample.key}: the image must be (H, W, 3) uint8, "
            f"got {image.shape} {image.dtype}"
        )
    if sample.fake == (sample.generator == "real"):
        raise ValueError(
            f"sample {sample.key}: fake={sample.fake} does not fit generator={sample.generator!r}"
        )
    meta = {
        "key": sample.key,
        "source_id": sample.source_id,
        "split": sample.split,
        "domain": sample.domain,
        "caption": sample.caption,
        "fake": sample.fake,
        "generator": sample.generator,
        "explanation": sample.explanation,
    }
    return EncodedSample(
        key=sample.key,
        source_id=sample.source_id,
        fake=sample.fake,
        generator=sample.generator,
        png=encode_png(image),
        meta=json.dumps(meta, ensure_ascii=False, sort_keys=True).encode(),
    )


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """(H, W, 3) uint8 -> PNG with fixed settings, so that the header tells nothing of the class."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


def decode(png: bytes, meta: bytes) -> Sample:
    """The inverse of `encode`."""
    with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
        image = np.asarray(picture.convert("RGB"))
    fields: dict[str, Any] = json.loads(meta)
    return Sample(image=image, **fields)


class ShardWriter:
    """Writes one set into `folder`: `<set>-00000.tar` and so on, then its part of index.json.

    Use it in a `with` block. The same samples give the same bytes. A set appears in the index
    when the block ends without an error; else its files are removed.
    """

    def __init__(self, folder: Path, set_name: str, samples_per_shard: int = 512) -> None:
        if not _NAME.fullmatch(set_name):
            raise ValueError(f"set name {set_name!r}: use up to 80 letters, digits, `_`, `-`")
        if samples_per_shard < 1:
            raise ValueError(f"samples_per_shard must be at least 1, got {samples_per_shard}")
        self.folder = folder
        self.set_name = set_name
        self.samples_per_shard = samples_per_shard
        self._shards: list[ShardEntry] = []
        self._samples: list[SampleEntry] = []
        self._keys: set[str] = set()
        self._tar: tarfile.TarFile | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, sample: Sample) -> None:
        """Append one sample. Its key must be new to the set."""
        self.write_encoded(encode(sample))

    def write_encoded(self, sample: EncodedSample) -> None:
        """Append a sample that another process has encoded."""
        if sample.key in self._keys:
            raise ValueError(f"set {self.set_name}: two samples have the key {sample.key!r}")
        self._keys.add(sample.key)
        if self._tar is None:
            self._tar = tarfile.TarFile(self._part_path, "w", format=tarfile.USTAR_FORMAT)
        entry = SampleEntry(
            key=sample.key,
            source_id=sample.source_id,
            fake=sample.fake,
            generator=sample.generator,
            shard=len(self._shards),
            image_offset=self._add(f"{sample.key}.png", sample.png),
            image_size=len(sample.png),
            meta_offset=self._add(f"{sample.key}.json", sample.meta),
            meta_size=len(sample.meta),
        )
        self._samples.append(entry)
        if self._open_count == self.samples_per_shard:
            self._finish_shard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._discard()
            return
        if self._tar is not None:
            self._finish_shard()
        if not self._samples:
            raise ValueError(f"set {self.set_name} has no samples: nothing was written")
        add_set(self.folder, SetIndex(self.set_name, tuple(self._shards), tuple(self._samples)))

    @property
    def _path(self) -> Path:
        return self.folder / f"{self.set_name}-{len(self._shards):05d}.tar"

    @property
    def _part_path(self) -> Path:
        return self._path.with_suffix(".tar.part")

    @property
    def _open_count(self) -> int:
        return len(self._samples) - sum(shard.count for shard in self._shards)

    def _add(self, name: str, data: bytes) -> int:
        """Append a member and give the offset of its first byte."""
        assert self._tar is not None
        info = tarfile.TarInfo(name)
        info.size = len(data)
        start = int(self._tar.offset)
        self._tar.addfile(info, io.BytesIO(data))
        return start + tarfile.BLOCKSIZE

    def _finish_shard(self) -> None:
        assert self._tar is not None
        self._tar.close()
        self._tar = None
        part, path = self._part_path, self._path
        entry = ShardEntry(path.name, self._open_count, part.stat().st_size, file_sha256(part))
        os.replace(part, path)
        self._shards.append(entry)

    def _discard(self) -> None:
        if self._tar is not None:
            self._tar.close()
            self._part_path.unlink()
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
    def entries(self) -> tuple[SampleEntry, ...]:
        """What is known of each sample without reading it, in order."""
        return self.manifest.samples

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
        entry = self.manifest.samples[position]
        sample = decode(self.png(position), self._read(entry, entry.meta_offset, entry.meta_size))
        if sample.key != entry.key:
            raise self._broken(entry)
        return sample

    def png(self, position: int) -> bytes:
        """The image at `position` as stored."""
        entry = self.manifest.samples[position]
        return self._read(entry, entry.image_offset, entry.image_size)

    def images(self) -> NDArray[np.uint8]:
        """(N, H, W, 3), every image of the set; they must be of one size."""
        images = [sample.image for sample in self]
        sizes = {image.shape for image in images}
        if len(sizes) > 1:
            raise ValueError(f"set {self.name} has images of {len(sizes)} sizes: they do not stack")
        return np.stack(images)

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
