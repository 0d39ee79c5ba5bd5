"""Section `model`: the shapes of the network (specification 1)."""

from __future__ import annotations

from pydantic import model_validator

from pipeline.sections.base import Count, Positive, Section
from unigendet.config import (
    AutoencoderConfig,
    ModelConfig,
    ResizeRule,
    TransformerConfig,
    VisionConfig,
)


class TransformerSection(Section):
    """The two-expert language model; its vocabulary size comes from the tokenizer."""

    hidden_size: Count
    intermediate_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    num_key_value_heads: Count
    rms_norm_eps: Positive
    rope_theta: Positive

    @model_validator(mode="after")
    def _heads_divide(self) -> TransformerSection:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError("hidden_size must be a multiple of num_attention_heads")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError("num_attention_heads must be a multiple of num_key_value_heads")
        return self


class VisionSection(Section):
    """The image encoder. Sizes in pixels."""

    hidden_size: Count
    intermediate_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    image_size: Count
    patch_size: Count
    num_channels: Count
    layer_norm_eps: Positive


class AutoencoderSection(Section):
    """The image autoencoder. Scale and shift factor bring latents to about unit variance."""

    base_channels: Count
    channel_multipliers: tuple[Count, ...]
    num_res_blocks: Count
    latent_channels: Count
    scale_factor: Positive
    shift_factor: float
    norm_groups: Count
    mid_attention: bool


class ResizeSection(Section):
    """Which sizes an image is brought to, in pixels (specification 9)."""

    max_size: Count
    min_size: Count
    stride: Count
    max_pixels: Count

    @model_validator(mode="after")
    def _ordered(self) -> ResizeSection:
        if self.min_size > self.max_size:
            raise ValueError("min_size must not be above max_size")
        return self


class ModelSection(Section):
    """Everything that fixes the model's shapes but the vocabulary size."""

    llm: TransformerSection
    vit: VisionSection
    vae: AutoencoderSection
    vae_resize: ResizeSection
    vit_resize: ResizeSection
    latent_patch_size: Count
    max_latent_size: Count
    interpolate_pos: bool
    timestep_shift: Positive

    def config(self, vocab_size: int, *, alignment_head: bool = False) -> ModelConfig:
        """The model's configuration for a tokenizer of `vocab_size` entries, markers included."""
        return ModelConfig(
            llm=TransformerConfig(vocab_size=vocab_size, **self.llm.model_dump()),
            vit=VisionConfig(**self.vit.model_dump()),
            vae=AutoencoderConfig(**self.vae.model_dump()),
            vae_resize=ResizeRule(**self.vae_resize.model_dump()),
            vit_resize=ResizeRule(**self.vit_resize.model_dump()),
            latent_patch_size=self.latent_patch_size,
            max_latent_size=self.max_latent_size,
            interpolate_pos=self.interpolate_pos,
            timestep_shift=self.timestep_shift,
            alignment_head=alignment_head,
        )
