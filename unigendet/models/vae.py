"""The autoencoder between pixels and latents (specification 1.4): diffusers' `AutoencoderKL`.

Weights travel under the names of the published FLUX autoencoder (`encoder.down.0.block.0.norm1`
...), whatever diffusers calls its modules, so that published weights load as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from unigendet.config import AutoencoderConfig
from unigendet.models.weight_specs import compare_specs, spec_of

_LEVELS = re.compile(r"^(encoder\.down|decoder\.up)\.(\d+)\.")
_RENAMES = (
    (re.compile(r"^encoder\.down\."), "encoder.down_blocks."),
    (re.compile(r"^decoder\.up\."), "decoder.up_blocks."),
    (re.compile(r"\.block\.(\d+)\."), r".resnets.\1."),
    (re.compile(r"\.nin_shortcut\."), ".conv_shortcut."),
    (re.compile(r"\.downsample\."), ".downsamplers.0."),
    (re.compile(r"\.upsample\."), ".upsamplers.0."),
    (re.compile(r"\.mid\.block_1\."), ".mid_block.resnets.0."),
    (re.compile(r"\.mid\.block_2\."), ".mid_block.resnets.1."),
    (re.compile(r"\.mid\.attn_1\.norm\."), ".mid_block.attentions.0.group_norm."),
    (re.compile(r"\.mid\.attn_1\.([qkv])\."), r".mid_block.attentions.0.to_\1."),
    (re.compile(r"\.mid\.attn_1\.proj_out\."), ".mid_block.attentions.0.to_out.0."),
    (re.compile(r"\.norm_out\."), ".conv_norm_out."),
)
_FROM_KL = (
    (re.compile(r"^encoder\.down_blocks\."), "encoder.down."),
    (re.compile(r"^decoder\.up_blocks\."), "decoder.up."),
    (re.compile(r"\.mid_block\.resnets\.0\."), ".mid.block_1."),
    (re.compile(r"\.mid_block\.resnets\.1\."), ".mid.block_2."),
    (re.compile(r"\.mid_block\.attentions\.0\.group_norm\."), ".mid.attn_1.norm."),
    (re.compile(r"\.mid_block\.attentions\.0\.to_([qkv])\."), r".mid.attn_1.\1."),
    (re.compile(r"\.mid_block\.attentions\.0\.to_out\.0\."), ".mid.attn_1.proj_out."),
    (re.compile(r"\.resnets\.(\d+)\."), r".block.\1."),
    (re.compile(r"\.conv_shortcut\."), ".nin_shortcut."),
    (re.compile(r"\.downsamplers\.0\."), ".downsample."),
    (re.compile(r"\.upsamplers\.0\."), ".upsample."),
    (re.compile(r"\.conv_norm_out\."), ".norm_out."),
)
_ATTENTION_MATRIX = re.compile(r"\.mid\.attn_1\.(q|k|v|proj_out)\.weight$")


class LatentAutoencoder(nn.Module):
    """Pixels (B, 3, H, W) in [-1, 1] to latents (B, z, H / d, W / d) and back, d = `downsample`.

    Latents are `scale_factor * (z - shift_factor)`, about unit variance. Every draw comes in
    through `noise`; nothing here uses a random generator.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        channels = tuple(config.base_channels * m for m in config.channel_multipliers)
        for count in channels:
            if count % config.norm_groups:
                raise ValueError(
                    f"the autoencoder's norm_groups ({config.norm_groups}) must divide the "
                    f"channels of every level; {count} is not a multiple of it"
                )
        self.config = config
        self.kl = AutoencoderKL(
            in_channels=3,
            out_channels=3,
            down_block_types=("DownEncoderBlock2D",) * len(channels),
            up_block_types=("UpDecoderBlock2D",) * len(channels),
            block_out_channels=channels,
            layers_per_block=config.num_res_blocks,
            latent_channels=config.latent_channels,
            norm_num_groups=config.norm_groups,
            mid_block_add_attention=config.mid_attention,
            scaling_factor=config.scale_factor,
            shift_factor=config.shift_factor,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )

    def posterior(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, (B, z, H / d, W / d) each, neither scaled nor clamped.

        Raises ValueError where H or W is not a multiple of `config.downsample`.
        """
        side = self.config.downsample
        height, width = pixels.shape[-2:]
        if height % side or width % side:
            raise ValueError(
                f"the autoencoder needs sides that are multiples of {side} pixels, "
                f"got {width} x {height}"
            )
        moments = self.kl.encoder(pixels)  # (B, 2z, h, w)
        mean, logvar = moments.chunk(2, dim=1)
        return mean, logvar

    def encode(self, pixels: Tensor, noise: Tensor | None = None) -> Tensor:
        """Scaled latents: the posterior draw by `noise` (B, z, h, w), or the mean without."""
        mean, logvar = self.posterior(pixels)
        if noise is not None:
            mean = mean + torch.exp(0.5 * logvar) * noise
        return self.config.scale_factor * (mean - self.config.shift_factor)

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) of scaled latents (B, z, h, w); about [-1, 1], not clamped."""
        z = latents / self.config.scale_factor + self.config.shift_factor
        pixels: Tensor = self.kl.decoder(z)
        return pixels

    def set_scaling(self, scale_factor: float, shift_factor: float) -> None:
        """Replace the latents' scale and shift, once training has settled their distribution."""
        if not scale_factor > 0:
            raise ValueError(f"scale_factor must be positive, got {scale_factor}")
        self.config = replace(
            self.config, scale_factor=float(scale_factor), shift_factor=float(shift_factor)
        )

    @torch.no_grad()
    def fit_scaling(self, pixels: Tensor) -> None:
        """Set scale and shift so that draws of `pixels` (B, 3, H, W) have mean 0, variance 1."""
        mean, logvar = self.posterior(pixels)
        shift = mean.mean()
        variance = (mean - shift).square().mean() + logvar.exp().mean()
        self.set_scaling(float(variance.rsqrt()), float(shift))

    def published_state_dict(self) -> dict[str, Tensor]:
        """The weights under the published FLUX names."""
        levels = len(self.config.channel_multipliers)
        state: dict[str, Tensor] = {}
        for key, value in self.kl.state_dict().items():
            name = _swap_decoder_levels(_rename(key, _FROM_KL), levels)
            if _ATTENTION_MATRIX.search(name):
                value = value[:, :, None, None]  # published as 1x1 convolutions
            state[name] = value
        return state

    def load_published_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load weights under the published FLUX names.

        Raises ValueError naming the keys that are missing, left over, or of another shape.
        """
        levels = len(self.config.channel_multipliers)
        expected = {key: tuple(value.shape) for key, value in self.published_state_dict().items()}
        problems = compare_specs(expected, {key: spec_of(value) for key, value in state.items()})
        if problems:
            raise ValueError(
                "these weights do not fit the configured autoencoder: " + "; ".join(problems)
            )
        renamed = {
            _rename(_swap_decoder_levels(key, levels), _RENAMES): (
                value[:, :, 0, 0].contiguous() if _ATTENTION_MATRIX.search(key) else value
            )
            for key, value in state.items()
        }
        without_storage = any(parameter.is_meta for parameter in self.kl.parameters())
        self.kl.load_state_dict(renamed, assign=without_storage)


def _rename(key: str, rules: tuple[tuple[re.Pattern[str], str], ...]) -> str:
    for pattern, replacement in rules:
        key = pattern.sub(replacement, key)
    return key


def _swap_decoder_levels(key: str, levels: int) -> str:
    """Published decoders number their levels from the finest, diffusers from the coarsest."""
    match = _LEVELS.match(key)
    if match is None or match[1] != "decoder.up":
        return key
    return f"decoder.up.{levels - 1 - int(match[2])}." + key[match.end() :]
