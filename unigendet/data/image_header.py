"""What an image file says of itself, read from its header, and whether the file is whole."""

from __future__ import annotations

import hashlib
import io
import os
import re
import warnings
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from unigendet.data.image_files import (
    KINDS,
    UNREADABLE,
    ImageError,
    decode_image,
    refuse_unfit,
)

SUFFIXES = frozenset(
    (
        *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif"),
        *(".avif", ".ppm", ".pgm", ".pbm", ".pnm"),
    )
)
"""Endings that promise an image. Other files are images where their first bytes say so."""
HEAD_BYTES = 16
_TAIL_BYTES = 64
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82", "GIF": b"\x3b"}
"""How a whole file of a format ends."""
_LUMINANCE = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
"""JPEG's example table for luminance (ITU-T T.81, table K.1), from which qualities are scaled."""
_NETPBM = re.compile(rb"P[1-6]\s+[0-9#]")
_SAME = {"MPO": "JPEG", "DIB": "BMP"}


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Native format (JPEG, PNG, WEBP ...) and size in pixels."""

    format: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class HeaderFacts:
    """Facts of a file's header, and of the file as a whole."""

    format: str
    mode: str
    width: int
    height: int
    table_means: tuple[float, ...]
    """Mean of each JPEG quantisation table; empty for other formats."""
    subsampling: str
    """JPEG: sampling factors of the components; empty for other formats."""
    bytes: int
    sha256: str
    """Of the whole file."""


def starts_like_image(head: bytes) -> bool:
    """Whether the first `HEAD_BYTES` bytes are those of an image file of a common kind."""
    return (
        head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a"))
        or head.startswith((b"II*\x00", b"MM\x00*"))
        or (head.startswith(b"RIFF") and head[8:12] == b"WEBP")
        or (head.startswith(b"BM") and len(head) >= 10 and head[6:10] == bytes(4))
        or head[4:12] in (b"ftypavif", b"ftypavis")
        or _NETPBM.match(head) is not None
    )


def read_header(file: BinaryIO, name: str) -> ImageHeader:
    """Format and size of the image in an open file, without decoding it where it looks whole.

    A file that does not end as its format does is decoded to find out. Raises ImageError calling
    the file `name`: empty, no image, too large, cut off, or of a kind that `decode_image` refuses.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if size == 0:
        raise ImageError(f"{name}: the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own limit is below; odd metadata is no matter
            image = Image.open(file, formats=KINDS)
            kind = str(image.format)
            header = ImageHeader(_SAME.get(kind, kind), image.width, image.height)
            refuse_unfit(image)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not an image, or of a kind that cannot be read") from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: {error}") from None
    except UNREADABLE as error:
        raise ImageError(f"{name}: the header is damaged ({error})") from None
    if not _looks_whole(file, size, header.format):
        file.seek(0)
        decode_image(file.read(), name)
    return header


def jpeg_quality(file: BinaryIO, name: str) -> int | None:
    """The quality, 1 to 100, that libjpeg's own tables were scaled by; None for other tables and
    for other formats. Raises ImageError where there is no image."""
    read_header(file, name)
    file.seek(0)
    with Image.open(file, formats=KINDS) as image:
        tables = getattr(image, "quantization", None) or {}
    luminance = sorted(tables.get(0, ()))
    if len(luminance) != 64:
        return None
    for quality in range(100, 0, -1):
        scale = 5000 // quality if quality < 50 else 200 - 2 * quality
        if sorted(min(255, max(1, (n * scale + 50) // 100)) for n in _LUMINANCE) == luminance:
            return quality
    return None


def header_of(data: bytes, name: str) -> ImageHeader:
    """`read_header` of an encoded image in memory."""
    return read_header(io.BytesIO(data), name)


def header_facts(data: bytes) -> HeaderFacts:
    """Read the header of an image file."""
    with (
        warnings.catch_warnings(action="ignore"),
        Image.open(io.BytesIO(data), formats=KINDS) as picture,
    ):
        tables = getattr(picture, "quantization", None) or {}
        layers = getattr(picture, "layer", None) or []
        return HeaderFacts(
            format=str(picture.format),
            mode=picture.mode,
            width=picture.width,
            height=picture.height,
            table_means=tuple(float(np.mean(tables[key])) for key in sorted(tables)),
            subsampling=" ".join(f"{layer[1]}x{layer[2]}" for layer in layers),
            bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        )


def _looks_whole(file: BinaryIO, size: int, kind: str) -> bool:
    if kind in _ENDS:
        file.seek(max(0, size - _TAIL_BYTES))
        return file.read().rstrip(b"\x00\r\n ").endswith(_ENDS[kind])
    if kind == "WEBP":
        file.seek(4)
        return int.from_bytes(file.read(4), "little") + 8 <= size
    return False
