"""From a picture to the pixels that the model reads, and back (specification 9)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unigendet.config import ResizeRule
from unigendet.data.image_files import ImageError, to_rgb

if TYPE_CHECKING:
    from torch import Tensor


def resized_size(width: int, height: int, rule: ResizeRule, images: int = 1) -> tuple[int, int]:
    """The (width, height) that the resize rule brings an image to; `images` share the pixel limit.

    Every side is a multiple of `rule.stride`. Long thin images end below `rule.min_size`.
    """
    long, short = max(width, height), min(width, height)
    scale = max(min(rule.max_size / long, 1.0), rule.min_size / short)
    width, height = _scaled(width, scale, rule.stride), _scaled(height, scale, rule.stride)
    limit = rule.max_pixels / images
    if width * height > limit:
        # The published rule applies the plain ratio of areas to both sides, not its root.
        scale = limit / (width * height)
        width, height = _scaled(width, scale, rule.stride), _scaled(height, scale, rule.stride)
    if max(width, height) > rule.max_size:
        scale = rule.max_size / max(width, height)
        width, height = _scaled(width, scale, rule.stride), _scaled(height, scale, rule.stride)
    return width, height


def resize(image: Image.Image, rule: ResizeRule) -> Image.Image:
    """An RGB image brought to `resized_size` by Pillow's bicubic filter on uint8."""
    return image.resize(resized_size(*image.size, rule), Image.Resampling.BICUBIC)


def centre_square(image: Image.Image, side: int) -> Image.Image:
    """The centre square of a picture, scaled to `side` pixels."""
    short = min(image.size)
    left, top = (image.width - short) // 2, (image.height - short) // 2
    square = image.crop((left, top, left + short, top + short))
    return square.resize((side, side), Image.Resampling.LANCZOS)


def stretched(image: Image.Image, side: int) -> Image.Image:
    """The whole picture, pressed into a square of `side` pixels."""
    return image.resize((side, side), Image.Resampling.LANCZOS)


def whole_within(image: Image.Image, side: int) -> Image.Image:
    """The whole picture, its longer side at most `side` pixels; never enlarged."""
    scale = min(1.0, side / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


FITS: dict[str, Callable[[Image.Image, int], Image.Image]] = {
    "square": centre_square,
    "stretch": stretched,
    "within": whole_within,
}
"""How an image of any shape is brought to a size, by name."""


def as_rgb(picture: NDArray[np.uint8] | Image.Image) -> Image.Image:
    """A picture, Pillow's or (H, W, 3) uint8, in RGB. Raises ImageError where it is something else,
    or holds no pixels."""
    if not isinstance(picture, Image.Image):
        array = np.asarray(picture)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
            raise ImageError(f"an image must be (H, W, 3) uint8, got {array.shape} {array.dtype}")
        return Image.fromarray(array)
    if 0 in picture.size:
        raise ImageError(f"an image of {picture.width} x {picture.height} has no pixels")
    return to_rgb(picture)


def to_pixels(picture: NDArray[np.uint8] | Image.Image, rule: ResizeRule) -> Tensor:
    """(3, H, W) float32 in [-1, 1] of a picture, Pillow's or (H, W, 3) uint8, resized by `rule`."""
    import torch

    resized = np.array(resize(as_rgb(picture), rule))  # (H, W, 3), writable
    return (
        torch.from_numpy(resized).permute(2, 0, 1).float().div(255).sub(0.5).div(0.5).contiguous()
    )


def to_image(pixels: Tensor) -> NDArray[np.uint8]:
    """(..., H, W, 3) uint8 of (..., 3, H, W) pixels in [-1, 1]: clamped, scaled, truncated."""
    import torch

    scaled = (pixels.float() / 2 + 0.5).clamp(0, 1) * 255
    array: NDArray[np.uint8] = scaled.movedim(-3, -1).to(torch.uint8).cpu().contiguous().numpy()
    return array


def _scaled(side: int, scale: float, stride: int) -> int:
    # `round` is half to even, twice: to whole pixels, then to whole strides.
    return max(stride, round(round(side * scale) / stride) * stride)
