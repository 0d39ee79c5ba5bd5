"""Reading files and the resize rule: what must come out, and what must be refused."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unigendet.config import ResizeRule
from unigendet.data import transforms
from unigendet.data.transforms import (
    ImageError,
    read_image,
    resized_size,
    to_image,
    to_pixels,
    to_rgb,
)

RULE = ResizeRule(max_size=64, min_size=32, stride=8)


@pytest.fixture
def photo() -> np.ndarray:
    y, x = np.mgrid[0:40, 0:60]
    return np.stack([x * 4, y * 6, (x + y) * 2], axis=2).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("size", [(64, 64), (40, 60), (1, 1), (3000, 5), (33, 97), (640, 481)])
def test_sizes_are_multiples_of_the_stride_within_the_maximum(size: tuple[int, int]) -> None:
    width, height = resized_size(*size, RULE)
    assert width % 8 == 0 and height % 8 == 0
    assert min(width, height) >= 8 and max(width, height) <= 64


def test_pixel_limit_is_shared_by_the_images() -> None:
    rule = ResizeRule(max_size=64, min_size=32, stride=8, max_pixels=64 * 64)
    assert resized_size(64, 64, rule) == (64, 64)
    assert resized_size(64, 64, rule, images=2) == (32, 32)


def test_pixels_range_and_layout(photo: np.ndarray) -> None:
    pixels = to_pixels(photo, ResizeRule(max_size=64, min_size=40, stride=20))
    assert pixels.shape == (3, 40, 60) and pixels.dtype == torch.float32
    np.testing.assert_allclose(pixels[0, 3, 5].item(), photo[3, 5, 0] / 127.5 - 1, atol=1e-6)
    assert np.abs(to_image(pixels).astype(int) - photo).max() <= 1  # truncation, not rounding
    extremes = torch.tensor([-3.0, -1.0, 1.0, 3.0]).reshape(1, 1, 4).expand(3, 1, 4)
    assert to_image(extremes)[0, :, 0].tolist() == [0, 0, 255, 255]


def test_transparency_is_white() -> None:
    rgba = Image.new("RGBA", (2, 1), (10, 20, 30, 255))
    rgba.putpixel((1, 0), (10, 20, 30, 0))
    expected = [[[10, 20, 30], [255, 255, 255]]]
    assert np.asarray(to_rgb(rgba)).tolist() == expected
    grey = Image.new("LA", (1, 1), (7, 0))
    assert np.asarray(to_rgb(grey)).tolist() == [[[255, 255, 255]]]
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    reopened = Image.open(io.BytesIO(encoded(palette, "PNG", transparency=1)))
    assert np.asarray(to_rgb(reopened)).tolist() == expected


def test_sixteen_bit_greys_keep_their_contrast() -> None:
    ramp = Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16))
    assert np.asarray(to_rgb(ramp))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF"])
def test_reads_the_common_kinds(kind: str, photo: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(encoded(Image.fromarray(photo), kind))
    image = read_image(path)
    assert image.mode == "RGB" and image.size == (60, 40)


def test_camera_orientation_is_applied(photo: np.ndarray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    path = tmp_path / "turned.png"
    path.write_bytes(encoded(Image.fromarray(photo), "PNG", exif=exif))
    assert read_image(path).size == (40, 60)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF"])
def test_a_damaged_file_is_refused_by_name(kind: str, photo: np.ndarray, tmp_path: Path) -> None:
    noisy = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(noisy), kind)
    for part in (0, 10, len(whole) // 2):
        path = tmp_path / f"broken-{part}.img"
        path.write_bytes(whole[:part])
        with pytest.raises(ImageError, match=f"broken-{part}"):
            read_image(path)


def test_flipped_bytes_never_escape_as_another_error(photo: np.ndarray) -> None:
    whole = bytearray(encoded(Image.fromarray(photo), "PNG"))
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(100):
        damaged = bytearray(whole)
        for place in generator.integers(8, len(whole), 4):
            damaged[place] ^= int(generator.integers(1, 256))
        try:
            transforms.decode_image(bytes(damaged), "x")
        except ImageError:
            refused += 1
    assert refused > 50


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.jpg"
    text.write_text("not an image")
    with pytest.raises(ImageError, match=r"notes\.jpg: not an image"):
        read_image(text)
    with pytest.raises(ImageError, match="no such file"):
        read_image(tmp_path / "absent.png")
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(tmp_path)


def test_an_oversized_image_is_refused_before_decoding(
    monkeypatch: pytest.MonkeyPatch, photo: np.ndarray
) -> None:
    monkeypatch.setattr(transforms, "MAX_FILE_PIXELS", 2000)
    with pytest.raises(ImageError, match=r"huge: 60 x 40 pixels"):
        transforms.decode_image(encoded(Image.fromarray(photo), "PNG"), "huge")


def test_arrays_of_another_shape_or_type_are_refused(photo: np.ndarray) -> None:
    for wrong in (photo[..., 0], photo.astype(np.float32), photo[:0], photo[..., :2]):
        with pytest.raises(ImageError, match="uint8"):
            to_pixels(wrong, RULE)
