"""From a benchmark's item to pixels, and to the sample that the rest of the project knows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unigendet.data.benchmarks.base import REAL, BenchmarkItem
from unigendet.data.image_files import ImageError, decode_image, read_image
from unigendet.data.opener import OpenError, is_remote
from unigendet.data.transforms import FITS
from unigendet.types import Sample


def read_sample(item: BenchmarkItem, domain: str) -> Sample:
    """The image at its native size, for evaluation. Raises ImageError as `read_picture` does."""
    return to_sample(item, domain, np.asarray(read_picture(item)))


def to_sample(item: BenchmarkItem, domain: str, image: NDArray[np.uint8]) -> Sample:
    """`image` (H, W, 3) with all that the set says of it. A real image's generator is `real`."""
    return Sample(
        key=item.key,
        image=image,
        source_id=item.source_id or f"{domain}/{item.name}",
        split=item.split,
        domain=domain,
        caption=item.caption,
        fake=item.is_fake,
        generator=item.generator if item.is_fake else REAL,
        explanation=item.explanation,
    )


def read_picture(item: BenchmarkItem) -> Image.Image:
    """The picture, upright and in RGB.

    Raises ImageError naming the image where it is absent, damaged or no image.
    """
    name = item.place
    if item.member is None and item.recompress is None and not is_remote(item.location):
        return read_image(item.location, name)
    try:
        data = item.read_bytes()
    except OpenError as error:
        raise ImageError(f"{name}: {str(error).removeprefix(f'{item.location}: ')}") from None
    return decode_image(data, name)


def read_fitted(item: BenchmarkItem, size: int, fit: str) -> NDArray[np.uint8]:
    """(H, W, 3): the picture brought to `size` pixels by the rule `fit` of
    `unigendet.data.transforms.FITS`. Raises ImageError as `read_picture` does."""
    return np.asarray(FITS[fit](read_picture(item), size))
