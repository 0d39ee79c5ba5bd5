"""From an image file, whatever its kind, to RGB; or an error that names the file and the reason.

What is opened here may come from anywhere: the size is judged by the header, and only kinds are
read whose decoders notice when a part of the file is missing.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile

MAX_FILE_PIXELS = 100_000_000
"""A file that claims more pixels than this is refused before it is decoded."""
MAX_FILE_BYTES = 500_000_000
"""A larger file is refused before it is read whole."""

KINDS = ("PNG", "JPEG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "PPM")
"""Pillow's names. Its other decoders are seldom wanted; one of them starts Ghostscript."""

UNREADABLE = (
    *(OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, RuntimeError),
    *(struct.error, zlib.error),
)
"""What Pillow raises on damaged files, beside the decompression-bomb error."""


class ImageError(ValueError):
    """An image that cannot be used; the message names it and says why."""


def read_image(path: str | Path, name: str = "") -> Image.Image:
    """The picture in the file at `path`, upright and in RGB.

    Raises ImageError naming the path, or calling it `name`.
    """
    path = Path(path)
    name = name or str(path)
    try:
        with path.open("rb") as file:  # a film of many gigabytes is refused by its first bytes
            return _read(file, name)
    except FileNotFoundError:
        raise ImageError(f"{name}: there is no such file") from None
    except OSError as error:
        raise ImageError(f"{name}: cannot be read ({error.strerror})") from error


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
    return _read(io.BufferedReader(io.BytesIO(data)), name)


def _read(file: io.BufferedReader, name: str) -> Image.Image:
    if not file.peek(1):
        raise ImageError(f"{name}: the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large sizes, which we limit, and of bad metadata
            image = Image.open(file, formats=KINDS)
            refuse_unfit(image)
            _settle_transparent_colour(image)
            image.load()
            if image.format == "PPM" and image.mode == "I":  # 16 bits, kept in 32
                return to_rgb(image.convert("I;16"))
            return to_rgb(_upright(image))
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{name}: it claims more than the {MAX_FILE_PIXELS:,} pixels that are read; shrink the "
            "image first"
        ) from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{name}: not an image, or of a kind that is not read ({', '.join(KINDS)} are)"
        ) from error
    except UNREADABLE as error:
        raise ImageError(f"{name}: the image is damaged ({error})") from error


def refuse_unfit(image: Image.Image) -> None:
    """Refuse, before it is decoded, what would be too large or not come out as it was meant.

    Raises ImageError without the file's name, and what of `UNREADABLE` a damaged file makes Pillow
    raise.
    """
    width, height = image.size
    if width * height > MAX_FILE_PIXELS:
        raise ImageError(
            f"{width} x {height} pixels are more than the {MAX_FILE_PIXELS:,} that are read; "
            "shrink the image first"
        )
    # A camera's JPEG may carry previews and depth maps (MPO): the first picture is the photograph.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise ImageError(
            f"it holds {getattr(image, 'n_frames', 'several')} frames or pages; save the one to be "
            "used as an image of its own"
        )
    tags = getattr(image, "tag_v2", {})  # of a TIFF: 258 bits per sample, 262 what 0 stands for
    if image.mode == "I;16" and tags and (tags.get(258), tags.get(262)) != ((16,), 1):
        raise ImageError("a grey TIFF of 12 bits, or one whose 0 is white, is not read")
    if (
        isinstance(image, PngImageFile)
        and "transparency" in image.info
        and image.tile[0].args == "RGB;16B"
    ):
        raise ImageError("16 bits with a transparent colour are not read; give it an alpha channel")
    if (image.format, image.mode) != ("PPM", "I"):  # 16 bits, kept in 32
        _refuse_32_bits(image)


def _refuse_32_bits(image: Image.Image) -> None:
    if image.mode in ("I", "F"):
        raise ImageError(
            f"its pixels are 32-bit {'integers' if image.mode == 'I' else 'floats'}, which have no "
            "agreed range; save it with 8 or 16 bits"
        )


def _settle_transparent_colour(image: Image.Image) -> None:
    """Pillow compares a PNG's transparent colour with pixels of 8 bits, whatever the file's are."""
    if not isinstance(image, PngImageFile) or "transparency" not in image.info:
        return
    rawmode = image.tile[0].args
    if rawmode in ("L;2", "L;4"):
        image.info["transparency"] *= 85 if rawmode == "L;2" else 17


def _upright(image: Image.Image) -> Image.Image:
    """Turned as the camera was held; as it is where what says so is damaged."""
    with suppress(*UNREADABLE):
        ImageOps.exif_transpose(image, in_place=True)  # most need no turn, and no copy
    return image


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB with any transparency (alpha channel, colour or palette entry) composited on white.

    16-bit greys keep their upper 8 bits. Raises ImageError for 32-bit pixels: nothing says which of
    their values are black and white.
    """
    _refuse_32_bits(image)
    if image.mode.startswith("I;16"):  # Pillow would clip 16-bit greys to 255 instead of scaling
        levels = np.asarray(image)
        greys = np.where(levels == image.info.get("transparency", -1), 255, levels >> 8)
        return Image.fromarray(greys.astype(np.uint8)).convert("RGB")
    if image.getbands()[-1] in ("A", "a") or image.info.get("transparency") is not None:
        layered = image.convert("RGBA")
        flat = Image.new("RGB", layered.size, (255, 255, 255))
        flat.paste(layered, mask=layered.getchannel("A"))
        return flat
    return image if image.mode == "RGB" else image.convert("RGB")
