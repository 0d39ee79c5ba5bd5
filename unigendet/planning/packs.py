"""How many tokens of each kind a rank reads in a step: all that memory depends on.

Samples are laid out as `unigendet.data.prompts` does. Words that are not yet known are given as
numbers (`Texts`); an image is a square of the size that the shards store.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from fractions import Fraction

from unigendet.config import ModelConfig, ResizeRule
from unigendet.data.transforms import resized_size
from unigendet.types import PackedBatch

_MARKERS = 2
"""Of every text and every image."""


@dataclass(frozen=True, slots=True)
class Texts:
    """Words of a sample's texts in tokens, markers not counted."""

    caption: int = 64
    question: int = 12
    answer: int = 96
    instruction: int = 16
    """What DIGA's teacher is told beside the caption."""


@dataclass(frozen=True, slots=True)
class PackShape:
    """Counts of one pack. Everything is 0 for no pack at all."""

    samples: int = 0
    text: int = 0
    """Words and markers."""
    vit: int = 0
    latents: int = 0
    flow: int = 0
    """Latents whose velocity is learned."""
    answers: int = 0
    """Places with a next-token loss: each has logits over the whole vocabulary."""
    places: int = 0
    """Tokens in attention's buckets, their padding included."""
    pairs: int = 0
    """Entries of all attention masks."""
    vit_places: int = 0
    images: int = 0
    """Through the autoencoder."""
    pixels: int = 0
    """Of all these images, padding to the largest included."""

    @property
    def und(self) -> int:
        """Tokens of the understanding expert."""
        return self.text + self.vit

    @property
    def tokens(self) -> int:
        return self.text + self.vit + self.latents

    def times(self, count: int | Fraction) -> PackShape:
        """The pack of `count` such packs, rounded down."""
        return PackShape(**{f.name: int(count * getattr(self, f.name)) for f in _FIELDS})

    def plus(self, other: PackShape) -> PackShape:
        """Both packs as one."""
        return PackShape(
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in _FIELDS}
        )


_FIELDS = fields(PackShape)


def training_pack(
    config: ModelConfig,
    image_size: int,
    *,
    generation: int,
    detection: int,
    texts: Texts,
) -> PackShape:
    """A pack of so many samples of images of `image_size` pixels a side; no caption is dropped."""
    drawn = generation_sample(config, image_size, texts)
    judged = detection_sample(config, image_size, texts)
    return drawn.times(generation).plus(judged.times(detection))


def generation_sample(config: ModelConfig, image_size: int, texts: Texts) -> PackShape:
    """A caption and the image to draw."""
    return _sample(
        caption=texts.caption,
        latents=_latents(config, image_size),
        pixels=_pixels(config, image_size),
    )


def detection_sample(config: ModelConfig, image_size: int, texts: Texts) -> PackShape:
    """An image to judge, the question and the answer."""
    return _sample(
        question=texts.question,
        answer=texts.answer,
        vit=_patches(config, image_size),
        latents=_latents(config, image_size) if config.smsa else 0,
        pixels=_pixels(config, image_size) if config.smsa else 0,
    )


def teacher_pack(config: ModelConfig, image_size: int, images: int, texts: Texts) -> PackShape:
    """What DIGA's teacher reads of `images` images."""
    return _sample(
        question=texts.caption + texts.instruction,
        vit=_patches(config, image_size),
        latents=_latents(config, image_size),
        pixels=_pixels(config, image_size),
    ).times(images)


def shape_of(batch: PackedBatch) -> PackShape:
    """The counts of a real pack."""
    plan, images = batch.attention, len(batch.latent_shapes)
    return PackShape(
        samples=len(batch.sample_lens),
        text=len(batch.text_ids),
        vit=len(batch.vit_tokens),
        latents=len(batch.latent_indexes),
        flow=len(batch.flow_rows),
        answers=len(batch.ce_rows),
        places=len(plan.gather),
        pairs=sum(bucket.mask.numel() for bucket in plan.buckets if bucket.mask is not None),
        vit_places=len(batch.vit_attention.gather),
        images=images,
        pixels=images * batch.pixels.shape[2] * batch.pixels.shape[3],
    )


def _sample(
    *,
    caption: int | None = None,
    question: int | None = None,
    answer: int | None = None,
    vit: int = 0,
    latents: int = 0,
    pixels: int = 0,
) -> PackShape:
    """One sample. None is a text that it does not have; latents after a caption are learned."""
    words = [count for count in (caption, question, answer) if count is not None]
    blocks = len(words) + (vit > 0) + (latents > 0)
    text = sum(words) + blocks * _MARKERS
    length = text + vit + latents
    return PackShape(
        samples=1,
        text=text,
        vit=vit,
        latents=latents,
        flow=latents if caption is not None else 0,
        answers=answer + 1 if answer is not None else 0,
        places=length,
        pairs=length**2,
        vit_places=vit,
        images=int(latents > 0),
        pixels=pixels,
    )


def _latents(config: ModelConfig, size: int) -> int:
    patch = config.vae.downsample * config.latent_patch_size
    return _cells(config.vae_resize, size, patch)


def _patches(config: ModelConfig, size: int) -> int:
    return _cells(config.vit_resize, size, config.vit.patch_size)


def _cells(rule: ResizeRule, size: int, patch: int) -> int:
    width, height = resized_size(size, size, rule)
    return (width // patch) * (height // patch)


def _pixels(config: ModelConfig, size: int) -> int:
    width, height = resized_size(size, size, config.vae_resize)
    return width * height
