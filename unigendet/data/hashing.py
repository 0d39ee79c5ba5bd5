"""Two fingerprints of a picture: of its exact pixels, and of what it looks like, if it shows
anything."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 32
"""Pixels of the grey miniature that the perceptual hash is taken of."""
BITS = 64
BLANK_LEVELS, BLANK_SHARE = 4, 0.95
"""A picture is blank where so large a share of it is within so many of 255 grey levels of its
median: a black frame, a white margin, also with noise or with a bit of something in a corner."""


def pixel_sha256(image: NDArray[np.uint8]) -> str:
    """Hex digest of the pixels and the shape of (H, W, 3): equal where the pictures are equal."""
    digest = hashlib.sha256(str(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def perceptual_hash(image: NDArray[np.uint8]) -> int:
    """64 bits that stay nearly the same under scaling, re-encoding and small changes of tone.

    The signs, against their median, of the 64 lowest frequencies (the mean apart) of the discrete
    cosine transform of a 32 x 32 grey miniature. Lowest frequency first, in the highest bit.
    """
    small = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BOX).convert("L")
    waves = _COSINES @ np.asarray(small, dtype=np.float64) @ _COSINES.T
    lowest = waves[_ROWS, _COLUMNS].round(6)
    bits = lowest > np.median(lowest)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def is_blank(image: NDArray[np.uint8]) -> bool:
    """Whether (H, W, 3) shows next to nothing, so that neither its pixels nor its perceptual hash
    tell where it comes from."""
    counts = np.array(Image.fromarray(image).convert("L").histogram())
    median = int(np.searchsorted(counts.cumsum(), counts.sum() / 2))
    near = counts[max(0, median - BLANK_LEVELS) : median + BLANK_LEVELS + 1]
    return bool(near.sum() >= BLANK_SHARE * counts.sum())


def _cosines(count: int) -> NDArray[np.float64]:
    """(count, SIDE): the first rows of the DCT-II matrix, unscaled."""
    frequency, place = np.mgrid[0:count, 0:SIDE]
    return np.asarray(np.cos(np.pi * frequency * (2 * place + 1) / (2 * SIDE)))


def _lowest_frequencies() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    pairs = [(u, v) for u in range(11) for v in range(11) if u + v]
    rows, columns = zip(*sorted(pairs, key=lambda pair: (sum(pair), pair))[:BITS], strict=True)
    return np.array(rows), np.array(columns)


_COSINES = _cosines(11)
_ROWS, _COLUMNS = _lowest_frequencies()
