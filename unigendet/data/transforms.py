"""From an image file to the pixels that the model reads (specification 9)."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from unigendet.config import ResizeRule

if TYPE_CHECKING:
    from torch import Tensor

MAX_FILE_PIXELS = 100_000_000
"""A file that claims more pixels than this is refused before it is decoded."""
MAX_FILE_BYTES = 500_000_000
"""A larger file is refused before it is read."""
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000", "PPM")
"""Decoders that a file may reach, whatever its ending: none of them runs another program."""

_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
"""What Pillow's decoders raise on damaged files, beside the decompression-bomb error."""


class ImageError(ValueError):
    """An image that cannot be used; the message names it and says why."""


def read_image(path: str | Path) -> Image.Image:
    """The picture in the file at `path`, upright and in RGB. Raises ImageError naming the path."""
    path = Path(path)
    return decode_image(read_image_file(path), str(path))


def read_image_file(path: Path) -> bytes:
    """The bytes of an image file. Raises ImageError naming the path."""
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise ImageError(f"{path}: {size:,} bytes are more than the {MAX_FILE_BYTES:,} read")
        return path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{path}: there is no such file") from None
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror})") from error


def decode_image(data: bytes, name: str) -> Image.Image:
    """The picture in an encoded file's bytes, upright, in RGB. ImageError calls the file `name`."""
    if not data:
        raise ImageError(f"{name}: the file is empty")
    try:
        with warnings.catch_warnings():
            # We have our own limit of size; damage that matters is an error below.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            width, height = image.size
            if not width * height:
                raise ImageError(f"{name}: the image has no pixels ({width} x {height})")
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


def to_pixels(image: NDArray[np.uint8] | Image.Image, rule: ResizeRule) -> Tensor:
    """(3, H, W) float32 in [-1, 1] of a picture, Pillow's or (H, W, 3) uint8, resized by `rule`."""
    import torch

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
    import torch

    scaled = (pixels.float() / 2 + 0.5).clamp(0, 1) * 255
    array: NDArray[np.uint8] = scaled.movedim(-3, -1).to(torch.uint8).cpu().contiguous().numpy()
    return array


def _scaled(side: int, scale: float, stride: int) -> int:
    # `round` is half to even, twice: to whole pixels, then to whole strides.
    return max(stride, round(round(side * scale) / stride) * stride)
