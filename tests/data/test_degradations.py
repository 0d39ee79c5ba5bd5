"""Degradations: the same for real and fake, a function of (seed, key, epoch), off when off."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unigendet.config import (
    AutoencoderConfig,
    ModelConfig,
    ResizeRule,
    TransformerConfig,
    VisionConfig,
)
from unigendet.data.degradations import (
    Degradations,
    blurred,
    compressed,
    cropped,
    noisy,
    rescaled,
)
from unigendet.data.loader import MixedBatches
from unigendet.data.prompts import prompt_corpus
from unigendet.data.shards import ShardDataset, ShardWriter
from unigendet.data.streams import dihedral
from unigendet.data.tokenizer import train_tokenizer
from unigendet.types import Sample

STRONG = Degradations(probability=0.5, crop=0.6, resize=0.4, blur=2.0, noise=10.0, quality=40)


def picture(height: int = 48, width: int = 40) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (9, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


def sample(key: str = "k", **changes: object) -> Sample:
    real = Sample(key, picture(), "s", "train", "d", "a thing", False, explanation="It is real.")
    return replace(real, **changes)


def test_seed_key_and_epoch_decide_and_the_class_does_not() -> None:
    first = STRONG.apply(sample(), seed=1, epoch=0)
    fake = STRONG.apply(
        sample(fake=True, generator="gan", source_id="t", caption="other"), seed=1, epoch=0
    )
    assert np.array_equal(first.image, fake.image)
    assert not np.array_equal(first.image, sample().image)
    others = [
        STRONG.apply(sample(), seed=2, epoch=0),
        STRONG.apply(sample(), seed=1, epoch=1),
        STRONG.apply(sample("other"), seed=1, epoch=0),
    ]
    assert all(not np.array_equal(first.image, other.image) for other in others)


def test_shape_is_kept_and_every_step_taken_as_often_as_asked() -> None:
    untouched = 0
    for number in range(400):
        made = STRONG.apply(sample(f"k{number}"), seed=0, epoch=0)
        assert made.image.shape == (48, 40, 3) and made.image.dtype == np.uint8
        untouched += made.image is sample().image or bool(made.explanation)
    assert untouched / 400 == pytest.approx(0.5**5, abs=0.03)


def test_off_is_off() -> None:
    off, before = replace(STRONG, probability=0.0), sample()
    assert off.apply(before, seed=0, epoch=0) is before


def test_a_changed_image_loses_its_explanation() -> None:
    always = replace(STRONG, probability=1.0)
    assert always.apply(sample(), seed=0, epoch=0).explanation == ""


def test_steps_do_what_they_say() -> None:
    image = picture()

    def roughness(one: np.ndarray) -> float:
        return float(np.abs(np.diff(one.astype(float), axis=0)).mean())

    assert roughness(blurred(image, 2.0)) < roughness(image)
    assert roughness(rescaled(image, 0.25)) < roughness(image)
    grey = np.full((64, 64, 3), 128, np.uint8)
    assert noisy(grey, 5.0, np.random.default_rng(0)).std() == pytest.approx(5.0, rel=0.05)
    for kind in ("JPEG", "WEBP"):
        errors = [
            np.abs(compressed(image, kind, quality).astype(int) - image).mean()
            for quality in (95, 20)
        ]
        assert 0 < errors[0] < errors[1]
    corner = cropped(image, 0.5, (0.0, 0.0))
    direct = Image.fromarray(image[:24, :20]).resize((40, 48), Image.Resampling.BICUBIC)
    assert np.abs(corner.astype(int) - np.asarray(direct)).mean() < 2
    assert np.array_equal(cropped(image, 1.0), image) and np.array_equal(rescaled(image, 1), image)


@pytest.mark.parametrize(
    "wrong",
    [{"probability": 1.1}, {"crop": 0.0}, {"resize": 1.5}, {"blur": -1.0}, {"quality": 99}],
)
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(STRONG, **wrong)


def test_detection_samples_are_degraded_alike_and_images_to_generate_never(
    tmp_path: Path,
) -> None:
    tokenizer = train_tokenizer(prompt_corpus(), 300)
    rule = ResizeRule(max_size=16, min_size=16, stride=8)
    config = ModelConfig(
        llm=TransformerConfig(len(tokenizer), 16, 32, 1, 2, 1),
        vit=VisionConfig(16, 32, 1, 2, image_size=16, patch_size=8),
        vae=AutoencoderConfig(8, (1, 2, 2), 1, 4),
        vae_resize=rule,
        vit_resize=rule,
        max_latent_size=2,
    )
    for name, fake in (("real", False), ("fake", True)):
        with ShardWriter(tmp_path, name) as writer:
            for number in range(4):
                family = "gan" if fake else "real"
                writer.write(sample(f"{name}{number}", fake=fake, generator=family, explanation=""))
    stored = {(s.key, s.image.tobytes()) for n in ("real", "fake") for s in _rotations(tmp_path, n)}

    def samples(probability: float, step: int) -> tuple[list[Sample], list[Sample]]:
        batches = MixedBatches(
            [ShardDataset(tmp_path, "real")],
            [ShardDataset(tmp_path, "fake")],
            generation_per_step=4,
            detection_per_step=4,
            tokenizer=tokenizer,
            config=config,
            seed=3,
            degradations=replace(STRONG, probability=probability),
        )
        return batches.samples(step)

    changed = {False: 0, True: 0}
    for step in range(8):
        generation, detection = samples(1.0, step)
        assert all((s.key, s.image.tobytes()) in stored for s in generation)
        for one in detection:
            changed[one.fake] += (one.key, one.image.tobytes()) not in stored
        for plain, again in zip(detection, samples(1.0, step)[1], strict=True):
            assert np.array_equal(plain.image, again.image)
        assert all((s.key, s.image.tobytes()) in stored for s in samples(0.0, step)[1])
    assert changed == {False: 16, True: 16}


def _rotations(folder: Path, name: str) -> list[Sample]:
    """Every stored image in the eight positions that the loader shows it in."""
    return [
        replace(one, image=dihedral(one.image, symmetry))
        for one in ShardDataset(folder, name)
        for symmetry in range(8)
    ]
