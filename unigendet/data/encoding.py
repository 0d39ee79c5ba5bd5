"""How images are stored: one encoder for real and fake alike, so that the file tells nothing."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SUFFIXES = {"png": "png", "jpeg": "jpg", "webp": "webp"}
"""File ending of each format that images can be stored in."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """The re-encoding policy of a set. PNG is lossless; JPEG and WebP take `quality`."""

    format: str = "png"
    quality: int = 95
    """1 to 100; without effect for PNG."""

    def __post_init__(self) -> None:
        if self.format not in SUFFIXES:
            raise ValueError(f"images are stored as {', '.join(SUFFIXES)}, not as {self.format!r}")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality must lie in 1..100, got {self.quality}")

    @property
    def suffix(self) -> str:
        """Ending of a member's name in the tar."""
        return SUFFIXES[self.format]

    def encode(self, image: NDArray[np.uint8]) -> bytes:
        """(H, W, 3) uint8 -> a file's bytes, always with the same settings."""
        settings: dict[str, Any] = (
            {"compress_level": 6} if self.format == "png" else {"quality": self.quality}
        )
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, format=self.format.upper(), **settings)
        return buffer.getvalue()


PNG = Encoding()


def decode_stored(data: bytes) -> NDArray[np.uint8]:
    """(H, W, 3): the inverse of `Encoding.encode`, exact for PNG."""
    formats = [name.upper() for name in SUFFIXES]
    with Image.open(io.BytesIO(data), formats=formats) as picture:
        return np.asarray(picture.convert("RGB"))
