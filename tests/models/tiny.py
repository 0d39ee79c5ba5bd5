"""A very small model and packs for it, whose parts all differ in size, so that no mix-up passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from unigendet.config import (
    AutoencoderConfig,
    ModelConfig,
    ResizeRule,
    TransformerConfig,
    VisionConfig,
)
from unigendet.data.packing import ImageItem, SamplePlan, TextItem, pack
from unigendet.models.unified import UniGenDetModel
from unigendet.types import AlignmentBatch, Markers, PackedBatch

MARKERS = Markers(bos=60, eos=61, vision_start=62, vision_end=63)


def tiny_config(**changes: Any) -> ModelConfig:
    """Latent patch 2 of downsample 2 (4 px), ViT patch 6, 3 channels: nothing coincides."""
    config = ModelConfig(
        llm=TransformerConfig(
            vocab_size=64,
            hidden_size=48,
            intermediate_size=80,
            num_hidden_layers=3,
            num_attention_heads=6,
            num_key_value_heads=2,
        ),
        vit=VisionConfig(
            hidden_size=32,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=36,
            patch_size=6,
        ),
        vae=AutoencoderConfig(8, (1, 1), 1, latent_channels=3, norm_groups=4),
        vae_resize=ResizeRule(36, 12, 4),
        vit_resize=ResizeRule(36, 12, 6),
        max_latent_size=9,
    )
    return replace(config, **changes)


def square_config(vocab_size: int, *, layers: int = 2, min_size: int = 32) -> ModelConfig:
    """For images of up to 32 px: a latent token and a ViT patch both stand for 8 x 8 px."""
    return ModelConfig(
        llm=TransformerConfig(vocab_size, 32, 48, layers, 4, 2),
        vit=VisionConfig(24, 32, 1, 2, image_size=32, patch_size=8),
        vae=AutoencoderConfig(8, (1, 1, 2), 1, 4, norm_groups=4, mid_attention=False),
        vae_resize=ResizeRule(max_size=32, min_size=min_size, stride=8),
        vit_resize=ResizeRule(max_size=32, min_size=min_size, stride=8),
        max_latent_size=4,
    )


def tiny_model(config: ModelConfig | None = None, seed: int = 0) -> UniGenDetModel:
    """A model whose every weight is random: the usual start has zeros that would hide errors."""
    torch.manual_seed(seed)
    model = UniGenDetModel(config or tiny_config())
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def image(generator: torch.Generator, height: int = 12, width: int = 12) -> Tensor:
    return torch.rand(3, height, width, generator=generator) * 2 - 1


def words(generator: torch.Generator, count: int) -> list[int]:
    return torch.randint(0, 60, (count,), generator=generator).tolist()


def generation_plan(generator: torch.Generator, count: int = 4, **size: int) -> SamplePlan:
    picture = image(generator, **size)
    return SamplePlan([TextItem(words(generator, count)), ImageItem("vae", picture, loss=True)])


def detection_plan(
    generator: torch.Generator, *, fake: bool = True, count: int = 5, **size: int
) -> SamplePlan:
    picture = image(generator, **size)
    return SamplePlan(
        [
            ImageItem("vae", picture),
            ImageItem("vit", picture),
            TextItem(words(generator, 3)),
            TextItem(words(generator, count), loss=True),
        ],
        fake=fake,
    )


def mixed_plans(seed: int = 0) -> list[SamplePlan]:
    """Generation and detection samples of several sizes and lengths, in no order."""
    generator = torch.Generator().manual_seed(seed)
    return [
        generation_plan(generator),
        detection_plan(generator, fake=True, height=24, width=12),
        generation_plan(generator, 9, height=12, width=24),
        detection_plan(generator, fake=False, count=11),
        generation_plan(generator),
    ]


def tiny_pack(
    plans: Sequence[SamplePlan], config: ModelConfig | None = None, seed: int = 0
) -> PackedBatch:
    return pack(plans, config or tiny_config(), MARKERS, torch.Generator().manual_seed(seed))


def tiny_alignment(count: int = 2) -> AlignmentBatch:
    """Images of 12 x 12, 12 x 24 ... px to generate, and the teacher's view of them."""
    generator = torch.Generator().manual_seed(0)
    config = tiny_config(alignment_head=True)
    pictures = [image(generator, 12, 12 * (index + 1)) for index in range(count)]
    student = [
        SamplePlan([TextItem(words(generator, 3)), ImageItem("vae", p, loss=True)])
        for p in pictures
    ]
    teacher = [
        SamplePlan([ImageItem("vae", p), TextItem(words(generator, 4)), ImageItem("vit", p)])
        for p in pictures
    ]
    return AlignmentBatch(
        generation=tiny_pack(student, config, seed=1), teacher=tiny_pack(teacher, config, seed=2)
    )


class NoiseLatents:
    """An autoencoder whose latents are its noise: a different one for every image."""

    def encode(self, pixels: Tensor, noise: Tensor | None = None) -> Tensor:
        assert noise is not None
        return noise
