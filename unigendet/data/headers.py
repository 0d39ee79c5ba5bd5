"""What an image file says of itself before its picture is decoded."""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image


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


def header_facts(data: bytes) -> HeaderFacts:
    """Read the header of an image file."""
    with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as picture:
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
