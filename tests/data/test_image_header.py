"""Format, size and completeness of a file, from its header."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from unigendet.data.image_files import ImageError, decode_image
from unigendet.data.image_header import (
    HEAD_BYTES,
    header_of,
    jpeg_quality,
    starts_like_image,
)

KINDS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "PPM")


def encoded(kind: str, side: int = 40, **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (side, side + 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_the_header_tells_format_and_size(kind: str) -> None:
    data = encoded(kind)
    header = header_of(data, "x")
    assert (header.format, header.width, header.height) == (kind, 48, 40)
    assert starts_like_image(data[:HEAD_BYTES])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9])
def test_a_cut_file_is_told(kind: str, share: float) -> None:
    data = encoded(kind)
    with pytest.raises(ImageError, match=r"^name\.x: "):
        header_of(data[: int(len(data) * share)], "name.x")


def test_bytes_after_the_image_do_no_harm() -> None:
    for kind in ("JPEG", "PNG", "GIF"):
        for tail in (b"\0" * 20, b"maker's notes" * 30):
            assert header_of(encoded(kind) + tail, "x").format == kind


def test_a_camera_s_jpeg_with_two_pictures_is_a_jpeg() -> None:
    first, second = (Image.new("RGB", (16, 16), shade) for shade in ("red", "blue"))
    buffer = io.BytesIO()
    first.save(buffer, "MPO", save_all=True, append_images=[second])
    assert header_of(buffer.getvalue(), "x").format == "JPEG"


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_netpbm_files_of_every_kind_are_images(mode: str) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (9, 5)).save(buffer, "PPM")
    assert starts_like_image(buffer.getvalue()[:HEAD_BYTES])
    for plain in (b"P1\n# drawn\n2 1\n0 1\n", b"P2 2 1 9 0 9\n", b"P3\t1 1 255 1 2 3\n"):
        assert starts_like_image(plain[:HEAD_BYTES]) and header_of(plain, "x").format == "PPM"


@pytest.mark.parametrize("change", [b"ftyp", b"meta", b"pitm", b"iloc", b"iinf", b"av1C", b"iprp"])
def test_a_damaged_avif_is_told(change: bytes) -> None:
    data = encoded("AVIF")
    with pytest.raises(ImageError, match=r"^name\.x: "):
        header_of(data.replace(change, b"xxxx", 1), "name.x")


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_what_decoding_refuses_is_refused_by_its_header(kind: str) -> None:
    buffer = io.BytesIO()
    shades = [Image.new("RGB", (16, 16), shade) for shade in ("red", "blue")]
    shades[0].save(buffer, kind, save_all=True, append_images=shades[1:])
    for read in (header_of, decode_image):
        with pytest.raises(ImageError, match=r"^x: it holds 2 frames or pages"):
            read(buffer.getvalue(), "x")


def test_32_bit_pixels_are_refused_by_the_header_too() -> None:
    buffer = io.BytesIO()
    Image.new("F", (8, 8)).save(buffer, "TIFF")
    for read in (header_of, decode_image):
        with pytest.raises(ImageError, match=r"^x: its pixels are 32-bit floats"):
            read(buffer.getvalue(), "x")


@pytest.mark.parametrize(
    "text", [b"BM is how this text begins", b"<html>", b"", b"%!PS-Adobe", b"P3 of 7"]
)
def test_texts_do_not_start_like_images(text: bytes) -> None:
    assert not starts_like_image(text[:HEAD_BYTES])


@pytest.mark.parametrize("quality", [1, 30, 50, 75, 90, 96, 100])
def test_jpeg_quality_is_read_from_the_tables(quality: int) -> None:
    assert jpeg_quality(io.BytesIO(encoded("JPEG", quality=quality)), "x") == quality


def test_other_files_have_no_jpeg_quality() -> None:
    assert jpeg_quality(io.BytesIO(encoded("PNG")), "x") is None
    own = encoded("JPEG", qtables=[list(range(1, 65))] * 2)
    assert jpeg_quality(io.BytesIO(own), "x") is None
