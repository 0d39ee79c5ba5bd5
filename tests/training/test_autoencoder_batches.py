"""Crops for the autoencoder: a function of the step, inside the image, of a usable size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unigendet.config import AutoencoderConfig, ResizeRule
from unigendet.training.autoencoder_batches import AutoencoderBatches
from unigendet.types import Sample

_CONFIG = AutoencoderConfig(8, (1, 1, 1), 1, 3, norm_groups=4, mid_attention=False)
_RULE = ResizeRule(max_size=16, min_size=16, stride=4)


def _batches(crop: int) -> AutoencoderBatches:
    random = np.random.default_rng(0)
    samples = [
        Sample(
            key=f"tile{i}",
            image=random.integers(0, 256, (16, 16, 3), dtype=np.uint8),
            source_id=f"cell{i}",
            split="train",
            domain="test",
            caption="",
            fake=False,
        )
        for i in range(4)
    ]
    return AutoencoderBatches(samples, 2, crop=crop, config=_CONFIG, resize=_RULE, steps=10, seed=1)


def test_a_step_gives_the_same_crops_whenever_it_is_asked() -> None:
    first, again = _batches(8), _batches(8)
    assert torch.equal(first(3).pixels, again(3).pixels)
    assert torch.equal(first(3).noise, again(3).noise)
    assert not torch.equal(first(3).pixels, first(4).pixels)


def test_crops_and_noise_have_the_asked_size() -> None:
    batch = _batches(8)(0)
    assert batch.pixels.shape == (2, 3, 8, 8)
    assert batch.noise.shape == (2, 3, 2, 2)


def test_a_crop_of_the_whole_image_is_the_image() -> None:
    assert _batches(16)(0).pixels.shape == (2, 3, 16, 16)


def test_a_crop_that_is_no_multiple_of_a_latent_cell_is_an_error() -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        _batches(10)


def test_a_crop_larger_than_the_image_is_an_error() -> None:
    with pytest.raises(ValueError, match="too small for crops of 20"):
        _batches(20)(0)
