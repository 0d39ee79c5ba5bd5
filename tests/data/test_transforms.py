"""The resize rule and pixels: what must come out, and what must be refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from unigendet.config import ResizeRule
from unigendet.data.image_files import ImageError
from unigendet.data.transforms import resized_size, to_image, to_pixels

RULE = ResizeRule(max_size=64, min_size=32, stride=8)


@pytest.fixture
def photo() -> np.ndarray:
    y, x = np.mgrid[0:40, 0:60]
    return np.stack([x * 4, y * 6, (x + y) * 2], axis=2).astype(np.uint8)


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


def test_arrays_of_another_shape_or_type_are_refused(photo: np.ndarray) -> None:
    for wrong in (photo[..., 0], photo.astype(np.float32), photo[:0], photo[..., :2]):
        with pytest.raises(ImageError, match="uint8"):
            to_pixels(wrong, RULE)


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (4000, 500)])
def test_thin_and_small_pictures_become_pixels(size: tuple[int, int]) -> None:
    pixels = to_pixels(Image.new("RGB", size, (0, 51, 255)), RULE)
    assert max(pixels.shape) <= 64 and min(pixels.shape[1:]) >= 8
    expected = torch.tensor([-1.0, -0.6, 1.0])[:, None, None].expand_as(pixels)
    torch.testing.assert_close(pixels, expected)


def test_a_picture_without_pixels_is_refused() -> None:
    with pytest.raises(ImageError, match="0 x 5 has no pixels"):
        to_pixels(Image.new("RGB", (0, 5)), RULE)
