"""From an image file to the pixels that the model reads (specification 9)."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from unigendet.config import ResizeRule

MAX_FILE_PIXELS = 100_000_000
"""A file that claims more pixels than this is refused before it is decoded."""

_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
"""What Pillow's decoders raise on damaged files, beside the decompression-bomb error."""


class ImageError(ValueError):
    """An image that cannot be used; the message names it and says why."""


def read_image(path: str | Path) -> Image.Image:
    """The picture in the file at `path`, upright and in RGB. Raises ImageError naming the path."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{path}: there is no such file") from None
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror})") from error
    return decode_image(data, str(path))


def decode_image(data: bytes, name: str) -> Image.Image:
    """The picture in an encoded file's bytes, upright, in RGB. ImageError calls the file `name`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # we have our own limit
            image = Image.open(io.BytesIO(data))
            width, height = image.size
            if width * height > MAX_FILE_PIXELS:
                raise ImageError(
                    f"{name}: {width} x {height} pixels are more than the {MAX_FILE_PIXELS:,} "
                    "that are read; shrink the image first"
                )
            image.load()
            return to_rgb(ImageOps.exif_transpose(image))
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: {error}") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: not an image, or of a kind that cannot be read") from error
    except _UNREADABLE as error:
        raise ImageError(f"{name}: the image is damaged ({error})") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB with any transparency (alpha channel or palette entry) composited on white."""
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        layered = image.convert("RGBA")
        flat = Image.new("RGB", layered.size, (255, 255, 255))
        flat.paste(layered, mask=layered.getchannel("A"))
        return flat
    if image.mode.startswith("I;16"):  # Pillow would clip 16-bit greys to 255 instead of scaling
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


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


def to_pixels(image: NDArray[np.uint8] | Image.Image, rule: ResizeRule) -> Tensor:
    """(3, H, W) float32 in [-1, 1] of a picture, Pillow's or (H, W, 3) uint8, resized by `rule`."""
    if not isinstance(image, Image.Image):
        array = np.asarray(image)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
            raise ImageError(f"an image must be (H, W, 3) uint8, got {array.shape} {array.dtype}")
        image = Image.fromarray(array)
    resized = np.array(resize(to_rgb(image), rule))  # (H, W, 3), writable
    return (
        torch.from_numpy(resized).permute(2, 0, 1).float().div(255).sub(0.5).div(0.5).contiguous()
    )


def to_image(pixels: Tensor) -> NDArray[np.uint8]:
    """(..., H, W, 3) uint8 of (..., 3, H, W) pixels in [-1, 1]: clamped, scaled, truncated."""
    scaled = (pixels.float() / 2 + 0.5).clamp(0, 1) * 255
    array: NDArray[np.uint8] = scaled.movedim(-3, -1).to(torch.uint8).cpu().contiguous().numpy()
    return array


def _scaled(side: int, scale: float, stride: int) -> int:
    # `round` is half to even, twice: to whole pixels, then to whole strides.
    return max(stride, round(round(side * scale) / stride) * stride)
