"""Each measure answers to what it is named after, and to nothing that augmentation does."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from unigendet.evidence import MEASURES, Evidence, as_array, measure

Images = NDArray[np.uint8]


@pytest.fixture(scope="module")
def originals(tiles: Images) -> list[Evidence]:
    return [measure(tile) for tile in tiles]


def _measured(images: list[Images]) -> NDArray[np.float64]:
    return np.stack([as_array(measure(image)) for image in images])


def _column(name: str) -> int:
    return MEASURES.index(name)


def test_blur_takes_detail_and_noise(tiles: Images) -> None:
    before = _measured(list(tiles))
    blurred = [
        np.asarray(Image.fromarray(tile).filter(ImageFilter.GaussianBlur(1.0))) for tile in tiles
    ]
    after = _measured(blurred)
    for name, rises in (
        ("fall_off", False), ("fine_detail", False), ("noise", False), ("flatness", True),
    ):  # fmt: skip
        change = after[:, _column(name)] - before[:, _column(name)]
        assert (change > 0).mean() == pytest.approx(float(rises), abs=0.1), name


def test_noise_in_each_channel_raises_noise_and_parts_the_channels(tiles: Images) -> None:
    draw = np.random.default_rng(0)
    noisy = [
        np.clip(tile + draw.normal(0, 8, tile.shape), 0, 255).astype(np.uint8) for tile in tiles
    ]
    before, after = _measured(list(tiles)), _measured(noisy)
    assert (after[:, _column("noise")] > before[:, _column("noise")]).all()
    agreement = _column("channel_agreement")
    assert (after[:, agreement] < before[:, agreement]).mean() > 0.95


@pytest.mark.parametrize("period", [2, 4])
def test_a_pattern_of_upsampling_is_a_grid(tiles: Images, period: int) -> None:
    pattern = np.zeros((32, 32, 1))
    pattern[::period, ::period] = 12
    patterned = [np.clip(tile + pattern, 0, 255).astype(np.uint8) for tile in tiles]
    before, after = _measured(list(tiles)), _measured(patterned)
    assert (after[:, _column("grid")] > before[:, _column("grid")] + 3).mean() > 0.9


def test_a_smooth_patch_is_uneven(tiles: Images) -> None:
    patched = []
    for tile in tiles:
        copy = tile.copy()
        copy[8:24, 8:24] = tile[8:24, 8:24].mean((0, 1))
        patched.append(copy)
    before, after = _measured(list(tiles)), _measured(patched)
    assert (after[:, _column("unevenness")] > before[:, _column("unevenness")]).mean() > 0.9


def test_grey_has_no_saturation(tiles: Images) -> None:
    grey = [np.repeat(tile.mean(-1, keepdims=True), 3, -1).astype(np.uint8) for tile in tiles]
    assert (_measured(grey)[:, _column("saturation")] == 0).all()


def test_turns_and_flips_change_nothing(tiles: Images, originals: list[Evidence]) -> None:
    for tile, original in zip(tiles[:6], originals, strict=False):
        for turned in (tile[:, ::-1], tile[::-1], tile.transpose(1, 0, 2), np.rot90(tile)):
            again = as_array(measure(np.ascontiguousarray(turned)))
            np.testing.assert_allclose(again, as_array(original), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_flat_image_has_finite_measures(value: int) -> None:
    found = measure(np.full((32, 48, 3), value, dtype=np.uint8))
    assert np.isfinite(as_array(found)).all()
    assert found.flatness == 1 and found.noise == 0
    assert found.fall_off == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((32, 32, 3), dtype=np.float32),
        np.zeros((32, 32), dtype=np.uint8),
        np.zeros((32, 32, 4), dtype=np.uint8),
        np.zeros((8, 32, 3), dtype=np.uint8),
    ],
)
def test_other_arrays_are_refused(image: Images) -> None:
    with pytest.raises(ValueError, match="evidence needs"):
        measure(image)
