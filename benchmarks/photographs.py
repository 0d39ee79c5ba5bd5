"""JPEG files like those of a camera: varied crops of the packaged photographs, with noise."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unigendet.data.sources.everyday import EverydayPhotographs

SIZES = ((640, 480), (480, 640), (600, 450), (640, 426))
NOISE_SIDE = 800


def write_photographs(folder: Path, numbers: range) -> None:
    """Photograph `number` is a function of its number; no two are near-duplicates."""
    for number in numbers:
        rng = np.random.default_rng(number)
        sources = _pictures()
        picture = sources[number % len(sources)]
        width, height = SIZES[int(rng.integers(len(SIZES)))]
        share = rng.uniform(0.35, 0.95)
        crop_width = share * min(picture.width, picture.height * width / height)
        crop_height = crop_width * height / width
        left = rng.uniform(0, picture.width - crop_width)
        top = rng.uniform(0, picture.height - crop_height)
        box = (left, top, left + crop_width, top + crop_height)
        image = picture.resize((width, height), Image.Resampling.BICUBIC, box=box)
        pixels = np.asarray(image, dtype=np.float32) + _blobs(rng, width, height)
        x, y = rng.integers(0, NOISE_SIDE - np.array([width, height]))
        pixels += rng.uniform(1, 4) * _noise()[y : y + height, x : x + width]
        path = folder / f"photo-{number:06d}.jpg"
        quality = int(rng.integers(75, 96))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=quality)


def _blobs(rng: np.random.Generator, width: int, height: int) -> NDArray[np.float32]:
    """Soft light and shade that belong to one picture only."""
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6), dtype=np.uint8))
    soft = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
    return (soft[:, :, None] - 128) * 0.5


@lru_cache(maxsize=1)
def _noise() -> NDArray[np.float32]:
    shape = (NOISE_SIDE, NOISE_SIDE, 3)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


@lru_cache(maxsize=1)
def _pictures() -> list[Image.Image]:
    paths = sorted({item.path for item in EverydayPhotographs().items()})
    return [Image.open(path).convert("RGB") for path in paths]
