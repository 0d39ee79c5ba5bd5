"""Frozen configuration of the model and of a training run, checked where it is made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

DEFAULT_STEPS = 30
"""Euler steps of `UniGenDet.generate` and the command line."""
DEFAULT_GUIDANCE = 2.0
"""Their text guidance scale."""
DEFAULT_TIMESTEP_SHIFT = 1.0
"""Their timestep shift; images of many tokens want more, the published value is 3."""


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"The model needs {what}.")


@dataclass(frozen=True, slots=True)
class TransformerConfig:
    """The two-expert language model (specification 1.1). Widths in channels."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1_000_000.0

    def __post_init__(self) -> None:
        heads, kv_heads = self.num_attention_heads, self.num_key_value_heads
        _require(self.hidden_size % 4 == 0, f"hidden_size ({self.hidden_size}) divisible by 4")
        _require(
            self.hidden_size % (2 * heads) == 0,
            f"hidden_size ({self.hidden_size}) divisible by twice num_attention_heads ({heads})",
        )
        _require(
            heads % kv_heads == 0,
            f"num_attention_heads ({heads}) divisible by num_key_value_heads ({kv_heads})",
        )

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads


@dataclass(frozen=True, slots=True)
class VisionConfig:
    """The SigLIP-style image encoder (specification 1.2). Sizes in pixels."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    image_size: int
    patch_size: int
    num_channels: int = 3
    layer_norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        width, heads = self.hidden_size, self.num_attention_heads
        _require(width % heads == 0, f"hidden_size ({width}) divisible by its heads ({heads})")
        _require(
            self.image_size % self.patch_size == 0,
            f"image_size ({self.image_size}) divisible by patch_size ({self.patch_size})",
        )

    @property
    def patches_per_side(self) -> int:
        """Side of the position table; a patch position is `row * patches_per_side + column`."""
        return self.image_size // self.patch_size


@dataclass(frozen=True, slots=True)
class AutoencoderConfig:
    """The FLUX-style autoencoder (specification 1.4), held in diffusers' `AutoencoderKL`."""

    base_channels: int
    channel_multipliers: tuple[int, ...]
    num_res_blocks: int
    latent_channels: int
    scale_factor: float = 0.3611
    shift_factor: float = 0.1159
    norm_groups: int = 32
    mid_attention: bool = True

    @property
    def downsample(self) -> int:
        """Pixels per latent cell along one side."""
        return int(2 ** (len(self.channel_multipliers) - 1))


@dataclass(frozen=True, slots=True)
class ResizeRule:
    """Which sizes an image is brought to (specification 9). Sizes in pixels."""

    max_size: int
    min_size: int
    stride: int
    max_pixels: int = 14 * 14 * 9 * 1024


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Everything that fixes the shapes and the mathematics of a UniGenDet model."""

    llm: TransformerConfig
    vit: VisionConfig
    vae: AutoencoderConfig
    vae_resize: ResizeRule
    vit_resize: ResizeRule
    latent_patch_size: int = 2
    max_latent_size: int = 64
    interpolate_pos: bool = False
    timestep_shift: float = 1.0
    smsa: bool = True
    """Whether the detector reads the generator's latents of the image beside its ViT tokens
    (symbiotic self-attention); as it was trained."""
    alignment_head: bool = False
    """Whether the DIGA projector `diga_mlp` is part of the model."""
    alignment_width: int | None = None
    """Its output channels, those of the teacher's features; None is the published hidden_size."""

    @property
    def head_width(self) -> int:
        """Output channels that the alignment head has, or would have."""
        return self.alignment_width or self.llm.hidden_size


@dataclass(frozen=True, slots=True)
class LossWeights:
    """Weights of the training loss's terms (specification 6 and 7), each at least 0."""

    flow: float = 1.0
    text: float = 1.0
    det: float = 0.2
    align: float = 0.0


@dataclass(frozen=True, slots=True)
class AlignmentSchedule:
    """How the weight of the alignment loss goes over a DIGA phase: a function of the step alone."""

    steps: int
    """Optimizer steps of the whole phase."""
    kind: Literal["constant", "linear", "cosine"] = "constant"
    """As it is, or decaying to 0 at `until`."""
    until: float = 1.0
    """Share of the phase, in (0, 1], that is aligned; the steps after it have weight 0."""

    def __post_init__(self) -> None:
        if self.kind not in ("constant", "linear", "cosine"):
            raise ValueError(f"the schedule is constant, linear or cosine, not {self.kind!r}")
        if not 0.0 < self.until <= 1.0:
            raise ValueError(f"the schedule's until is {self.until}; it must be in (0, 1]")

    def at(self, step: int) -> float:
        """The part of the weight, in [0, 1], that is in force at a step (0-based)."""
        end = round(self.until * self.steps)
        if step >= end:
            return 0.0
        if self.kind == "linear":
            return 1.0 - step / end
        if self.kind == "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * step / end))
        return 1.0


@dataclass(frozen=True, slots=True)
class AutoencoderWeights:
    """Weights of the autoencoder's loss terms, each at least 0. Errors are of pixels in [-1, 1]."""

    l1: float = 1.0
    l2: float = 1.0
    kl: float = 1e-6
    gradient: float = 1.0
    spectrum: float = 0.05
    adversary: float = 0.0
    adversary_from: float = 0.3
    """Share of the run after which the critic's opinion reaches the autoencoder."""


@dataclass(frozen=True, slots=True)
class OptimConfig:
    """AdamW, its schedule, and the running average of the weights. `steps` is the whole run."""

    steps: int
    lr: float
    warmup_steps: int = 0
    schedule: Literal["constant", "cosine"] = "constant"
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-15
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    ema_decay: float = 0.99
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    recompute: bool = False
    """Whether blocks keep their inputs only and compute the rest again: less memory, a third more
    work."""
    log_every: int = 10
    checkpoint_every: int = 100
    trainable: tuple[str, ...] = (".*",)
    """Regular expressions; a parameter learns where one of them fully matches its name."""
