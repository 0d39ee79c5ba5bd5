"""Fidelity, copying and obedience on images whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from unigendet.metrics.samples import (
    ColourRule,
    copy_check,
    leading_ground,
    nearest_training_tiles,
    obedience,
    psnr,
)


def _images(n: int, seed: int) -> np.ndarray:
    """Smooth random images, so that shrinking keeps them apart."""
    small = np.random.default_rng(seed).integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)
    return small.repeat(8, axis=1).repeat(8, axis=2)


def test_psnr_equals_scikit_image() -> None:
    from skimage.metrics import peak_signal_noise_ratio

    a = _images(3, 0)
    b = np.clip(a.astype(int) + np.random.default_rng(1).integers(-9, 10, a.shape), 0, 255)
    b = b.astype(np.uint8)
    expected = [peak_signal_noise_ratio(x, y, data_range=255) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(psnr(a, b), expected)
    assert np.isfinite(psnr(a, a)).all() and psnr(a, a).min() > 80
    with pytest.raises(ValueError, match="cannot be compared"):
        psnr(a, b[:2])


def test_a_turned_and_brightened_copy_is_found() -> None:
    training = _images(40, 0)
    images = _images(5, 99)
    turned = np.rot90(training[17][:, ::-1], 3).astype(int) + 3
    images[2] = np.clip(turned, 0, 255)
    found = nearest_training_tiles(images, training)
    assert found.index[2] == 17 and found.distance[2] < 4
    assert np.delete(found.distance, 2).min() > 20


def test_copies_are_counted_against_held_out_reals() -> None:
    training, held_out = _images(60, 0), _images(50, 1)
    new, copied = _images(30, 2), training[:30]
    real = nearest_training_tiles(held_out, training)
    names = [f"g{i}" for i in range(30)]
    reals = [f"r{i}" for i in range(50)]
    honest = copy_check(nearest_training_tiles(new, training), real, names, reals, draws=50)
    caught = copy_check(nearest_training_tiles(copied, training), real, names, reals, draws=50)
    assert honest.copies.value < 0.2 and caught.copies.value == 1.0
    assert caught.generated.value < honest.generated.value
    assert honest.real.low <= honest.real.value <= honest.real.high


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a satellite image of pale desert with some dry land", 0),
        ("a satellite image of rugged forest, and a little water", 1),
        ("a satellite image of dry land with some desert", None),
        ("a satellite image of green grassland and forest", None),
    ],
)
def test_the_first_named_ground_decides(caption: str, expected: int | None) -> None:
    assert leading_ground(caption, ("desert", "forest")) == expected


def test_obedience_is_balanced_and_needs_both_classes() -> None:
    sand = np.full((6, 8, 8, 3), (200, 170, 120), dtype=np.uint8)
    wood = np.full((2, 8, 8, 3), (30, 60, 30), dtype=np.uint8)
    rule = ColourRule.fit(np.concatenate([sand, wood]), [0] * 6 + [1] * 2)
    # Six deserts drawn right, two forests drawn as desert: half, not three quarters.
    images = np.concatenate([sand, sand[:2]])
    found = obedience(rule, images, [0] * 6 + [1] * 2, [str(i) for i in range(8)], draws=50)
    assert found.value == 0.5 and found.n == 8
    with pytest.raises(ValueError, match="both classes"):
        ColourRule.fit(sand, [0] * 6)
