"""One tar of encoded samples, and what a sample is in it: an image and a JSON member."""

from __future__ import annotations

import io
import json
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from unigendet.data.encoding import PNG, Encoding
from unigendet.data.hashing import is_blank, perceptual_hash, pixel_sha256
from unigendet.data.manifest import ShardEntry
from unigendet.data.whole_file import WholeFile
from unigendet.types import Sample

MEMBER_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}")
"""What keys, and names of sets, look like."""
SAMPLE_FIELDS = tuple(name for name in Sample.__slots__ if name != "image")
"""What the JSON member holds: every field of `Sample` but the image."""


@dataclass(frozen=True, slots=True)
class EncodedSample:
    """A sample as it is stored, with what the index says of it."""

    fields: dict[str, Any]
    """Every field of `Sample` but the image."""
    image: bytes
    """Encoded."""
    width: int
    height: int
    pixel_sha256: str
    perceptual_hash: int
    blank: bool
    """Whether there is next to nothing to see (`unigendet.data.hashing`)."""

    @property
    def key(self) -> str:
        return str(self.fields["key"])


def encode(sample: Sample, encoding: Encoding = PNG) -> EncodedSample:
    """Encode `sample`, whose image is (H, W, 3) uint8. Raises ValueError where it is malformed."""
    if not MEMBER_NAME.fullmatch(sample.key):
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
    fields = {name: getattr(sample, name) for name in SAMPLE_FIELDS}
    if broken := [name for name, value in fields.items() if not _is_utf8(value)]:
        raise ValueError(
            f"sample {sample.key}: the text of {' and '.join(broken)} is not UTF-8 (a half of a "
            r"pair such as \ud83d, or bytes of another encoding)"
        )
    return EncodedSample(
        fields=fields,
        image=encoding.encode(image),
        width=image.shape[1],
        height=image.shape[0],
        pixel_sha256=pixel_sha256(image),
        perceptual_hash=perceptual_hash(image),
        blank=is_blank(image),
    )


def _is_utf8(value: object) -> bool:
    """Whether it can be written; True for what is no text."""
    return not isinstance(value, str) or not any("\ud800" <= sign <= "\udfff" for sign in value)


class Tar:
    """A tar of samples, at `path` when it is finished. The same samples give the same bytes.

    Members have no time or owner.
    """

    def __init__(self, path: Path, encoding: Encoding) -> None:
        self._path, self._encoding = path, encoding
        self._file = WholeFile(path)
        self._tar = tarfile.TarFile(
            mode="w", format=tarfile.USTAR_FORMAT, fileobj=cast(IO[bytes], self._file)
        )
        self._count = 0

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return int(self._tar.offset)

    def add(self, fields: dict[str, Any], image: bytes) -> dict[str, int]:
        """Append one sample; the offsets and sizes of its members, as `SampleEntry` names them."""
        meta = json.dumps(fields, ensure_ascii=False, sort_keys=True).encode()
        self._count += 1
        return {
            "image_offset": self._add(f"{fields['key']}.{self._encoding.suffix}", image),
            "image_size": len(image),
            "meta_offset": self._add(f"{fields['key']}.json", meta),
            "meta_size": len(meta),
        }

    def _add(self, name: str, data: bytes) -> int:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        start = self.size
        self._tar.addfile(info, io.BytesIO(data))
        return start + tarfile.BLOCKSIZE

    def finish(self) -> ShardEntry:
        """Give the file its name."""
        self._tar.close()
        return ShardEntry(self._path.name, self._count, *self._file.finish())

    def discard(self) -> None:
        """Delete what was written."""
        self._file.discard()


def shard_path(folder: Path, set_name: str, number: int) -> Path:
    """Where shard `number` of a set lies."""
    return folder / f"{set_name}-{number:05d}.tar"
