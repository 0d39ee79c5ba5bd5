"""Models and samples to measure with. Weights, words and pictures are random: time is the same."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unigendet.config import (
    AutoencoderConfig,
    ModelConfig,
    ResizeRule,
    TransformerConfig,
    VisionConfig,
)
from unigendet.data.packing import ImageItem, SamplePlan, TextItem
from unigendet.types import Markers

CAPTION_WORDS = 20
QUESTION_WORDS = 20
ANSWER_WORDS = 60
"""Words of each text; a block has two markers more."""


def tiny() -> ModelConfig:
    """The sizes of profile `tiny`: images of 64 px are 64 latent tokens and 64 ViT tokens."""
    return ModelConfig(
        llm=TransformerConfig(
            vocab_size=768,
            hidden_size=192,
            intermediate_size=768,
            num_hidden_layers=6,
            num_attention_heads=6,
            num_key_value_heads=2,
        ),
        vit=VisionConfig(
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=4,
            image_size=64,
            patch_size=8,
        ),
        vae=AutoencoderConfig(
            base_channels=16,
            channel_multipliers=(1, 2, 4),
            num_res_blocks=1,
            latent_channels=8,
            norm_groups=4,
            mid_attention=False,
        ),
        vae_resize=ResizeRule(64, 64, 8, 4096),
        vit_resize=ResizeRule(64, 64, 8, 4096),
        max_latent_size=8,
    )


def miniature() -> ModelConfig:
    """`tiny` with hardly any weights: to see that a script runs."""
    config = tiny()
    return replace(
        config,
        llm=replace(
            config.llm,
            vocab_size=96,
            hidden_size=24,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
        ),
        vit=replace(
            config.vit,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
        ),
        vae=replace(config.vae, base_channels=4),
    )


def bagel_slice(layers: int) -> ModelConfig:
    """BAGEL-7B-MoT with its width, vocabulary and image encoder, but `layers` decoder layers."""
    return ModelConfig(
        llm=TransformerConfig(
            vocab_size=152064,
            hidden_size=3584,
            intermediate_size=18944,
            num_hidden_layers=layers,
            num_attention_heads=28,
            num_key_value_heads=4,
        ),
        vit=VisionConfig(
            hidden_size=1152,
            intermediate_size=4304,
            num_hidden_layers=26,
            num_attention_heads=16,
            image_size=980,
            patch_size=14,
        ),
        vae=AutoencoderConfig(
            base_channels=128,
            channel_multipliers=(1, 2, 4, 4),
            num_res_blocks=2,
            latent_channels=16,
        ),
        vae_resize=ResizeRule(1024, 512, 16),
        vit_resize=ResizeRule(980, 224, 14),
    )


def markers(config: ModelConfig) -> Markers:
    """The last four ids of the vocabulary."""
    return Markers(*range(config.llm.vocab_size - 4, config.llm.vocab_size))


@dataclass(slots=True)
class Samples:
    """Draws samples whose images are `size` pixels a side, each view cut to its own patch."""

    config: ModelConfig
    size: int
    generator: torch.Generator

    def generation(self) -> SamplePlan:
        """Caption, then an image to generate."""
        picture = self._picture(self.latent_patch)
        return SamplePlan([self.caption(), ImageItem("vae", picture, loss=True)])

    def caption(self) -> TextItem:
        """What the generator reads."""
        return self._words(CAPTION_WORDS)

    def question(self) -> list[TextItem | ImageItem]:
        """What the detector reads before it answers."""
        return [
            ImageItem("vae", self._picture(self.latent_patch)),
            ImageItem("vit", self._picture(self.config.vit.patch_size)),
            self._words(QUESTION_WORDS),
        ]

    def detection(self) -> SamplePlan:
        """The same with the answer to learn."""
        answer = replace(self._words(ANSWER_WORDS), loss=True)
        return SamplePlan([*self.question(), answer], fake=True)

    @property
    def latent_patch(self) -> int:
        """Pixels a side that a latent token stands for."""
        return self.config.vae.downsample * self.config.latent_patch_size

    def _picture(self, multiple: int) -> Tensor:
        side = self.size // multiple * multiple
        return torch.rand(3, side, side, generator=self.generator) * 2 - 1

    def _words(self, count: int) -> TextItem:
        words = self.config.llm.vocab_size - 4
        return TextItem(torch.randint(0, words, (count,), generator=self.generator).tolist())
