"""Configuration of the fake-making families. Values are checked where they are made."""

from __future__ import annotations

from dataclasses import dataclass, field


def _positive(owner: object, **values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{type(owner).__name__}.{name} must be above 0, got {value}")


@dataclass(frozen=True, slots=True)
class FitConfig:
    """How a family's network learns: AdamW with a cosine learning rate, `steps` batches in all.

    A convolutional network may learn from random crops of `crop` pixels (0: whole images), which
    costs less and serves it as well.
    """

    steps: int
    batch_size: int = 16
    lr: float = 1e-3
    crop: int = 0

    def __post_init__(self) -> None:
        _positive(self, steps=self.steps, batch_size=self.batch_size, lr=self.lr)
        if self.crop < 0 or self.crop % 16:
            raise ValueError(f"FitConfig.crop must be 0 or a multiple of 16, got {self.crop}")


@dataclass(frozen=True, slots=True)
class ReconstructionConfig:
    """The project's own autoencoder; nothing to fit."""

    batch_size: int = 64

    def __post_init__(self) -> None:
        _positive(self, batch_size=self.batch_size)


@dataclass(frozen=True, slots=True)
class FlowConfig:
    """The project's own generator: Euler steps and text-guidance scale of its sampler."""

    steps: int = 10
    guidance: float = 1.0
    batch_size: int = 64

    def __post_init__(self) -> None:
        _positive(self, steps=self.steps, guidance=self.guidance, batch_size=self.batch_size)


@dataclass(frozen=True, slots=True)
class DdpmConfig:
    """A pixel-space DDPM used as image to image.

    `strength` in (0, 1) is the share of the noise schedule that a real image is taken up and
    denoised down again, in `sample_steps` DDIM steps; training sees only those timesteps. `width`
    is the UNet's channels at its finest level, `patch` the pixel-unshuffle factor before it.
    """

    fit: FitConfig = field(default_factory=lambda: FitConfig(700, 8, 2e-3, crop=32))
    width: int = 32
    patch: int = 2
    strength: float = 0.03
    sample_steps: int = 3

    def __post_init__(self) -> None:
        _positive(self, width=self.width, patch=self.patch, sample_steps=self.sample_steps)
        if not 0 < self.strength < 1:
            raise ValueError(f"DdpmConfig.strength must lie in (0, 1), got {self.strength}")
        if self.width % 8:
            raise ValueError(f"DdpmConfig.width must be a multiple of 8, got {self.width}")


@dataclass(frozen=True, slots=True)
class GanConfig:
    """A super-resolution GAN: an image made `scale` times smaller is drawn again at full size."""

    fit: FitConfig = field(default_factory=lambda: FitConfig(400, 16, 1e-3, crop=32))
    width: int = 24
    scale: int = 2
    adversarial: float = 0.1

    def __post_init__(self) -> None:
        _positive(self, width=self.width, adversarial=self.adversarial)
        if self.scale not in (2, 4, 8):
            raise ValueError(f"GanConfig.scale must be 2, 4 or 8, got {self.scale}")


VQAR_CELLS = 64
"""Rows, and columns, of cells that the prior of `vqar` has positions for."""


@dataclass(frozen=True, slots=True)
class VqarConfig:
    """A finite-scalar-quantised autoencoder and an autoregressive transformer over its codes.

    `levels` values for each of `code_dims` dimensions of each `patch` x `patch` pixel cell.
    """

    fit_codes: FitConfig = field(default_factory=lambda: FitConfig(400, 16, 3e-3))
    fit_prior: FitConfig = field(default_factory=lambda: FitConfig(600, 16, 3e-3))
    width: int = 32
    patch: int = 8
    levels: int = 5
    code_dims: int = 12
    prior_width: int = 64
    prior_layers: int = 2
    temperature: float = 0.9
    texture: float = 0.3

    def __post_init__(self) -> None:
        _positive(
            self, width=self.width, code_dims=self.code_dims, prior_width=self.prior_width,
            prior_layers=self.prior_layers, temperature=self.temperature,
            texture=self.texture,
        )  # fmt: skip
        if self.patch not in (4, 8, 16):
            raise ValueError(f"VqarConfig.patch must be 4, 8 or 16, got {self.patch}")
        if self.levels < 2:
            raise ValueError(f"VqarConfig.levels must be at least 2, got {self.levels}")
        if self.prior_width % 32:
            raise ValueError(
                f"VqarConfig.prior_width must be a multiple of 32, got {self.prior_width}"
            )

    def check_side(self, side: int) -> None:
        """Raise ValueError where images of `side` pixels have more cells than positions."""
        if side > VQAR_CELLS * self.patch:
            raise ValueError(
                f"family vqar takes images of at most {VQAR_CELLS * self.patch} pixels with "
                f"patches of {self.patch} ({VQAR_CELLS} x {VQAR_CELLS} of them), not of {side}: "
                "make vqar.patch larger or the images smaller"
            )


@dataclass(frozen=True, slots=True)
class InpaintConfig:
    """A hole of `min_side` to `max_side` of the image's side is refilled by a small network.

    `texture` weighs how well the fill's grain must fit, against how near its pixels are.
    """

    fit: FitConfig = field(default_factory=lambda: FitConfig(250, 12, 2e-3))
    width: int = 24
    min_side: float = 0.4
    max_side: float = 0.65
    texture: float = 0.5

    def __post_init__(self) -> None:
        _positive(self, width=self.width, texture=self.texture)
        if not 0 < self.min_side <= self.max_side < 1:
            raise ValueError(
                "InpaintConfig needs 0 < min_side <= max_side < 1, got "
                f"{self.min_side} and {self.max_side}"
            )


@dataclass(frozen=True, slots=True)
class ForgeryConfig:
    """One configuration for each family; the field's name is the family's."""

    reconstruction: ReconstructionConfig = field(default_factory=ReconstructionConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    ddpm: DdpmConfig = field(default_factory=DdpmConfig)
    gan: GanConfig = field(default_factory=GanConfig)
    vqar: VqarConfig = field(default_factory=VqarConfig)
    inpaint: InpaintConfig = field(default_factory=InpaintConfig)
