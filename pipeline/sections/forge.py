"""Section `forge`: the generator families that make labelled fakes."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from pipeline.sections.base import Count, CountOrZero, Fraction, Positive, Section
from unigendet.forgeries.config import (
    DdpmConfig,
    FitConfig,
    FlowConfig,
    ForgeryConfig,
    GanConfig,
    InpaintConfig,
    ReconstructionConfig,
    VqarConfig,
)
from unigendet.forgeries.roles import Role, check_roles


class RolesSection(Section):
    """Each family's role: detectors learn on `train`, are chosen on `val`, judged on `test`."""

    reconstruction: Role
    flow: Role
    ddpm: Role
    gan: Role
    vqar: Role
    inpaint: Role

    @model_validator(mode="after")
    def _allow_the_claims(self) -> RolesSection:
        check_roles(self.by_family())
        return self

    def by_family(self) -> dict[str, Role]:
        """Family name -> role."""
        return {name: getattr(self, name) for name in type(self).model_fields}


class FitSection(Section):
    """How a family's network learns; `crop` 0 takes whole images."""

    steps: Count
    batch_size: Count
    lr: Positive
    crop: CountOrZero

    def config(self) -> FitConfig:
        """The same values as the families take them."""
        return FitConfig(**self.model_dump())


class ReconstructionSection(Section):
    """Our own autoencoder."""

    batch_size: Count


class FlowSection(Section):
    """Our own generator: sampling steps and text guidance."""

    steps: Count
    guidance: Positive
    batch_size: Count


class DdpmSection(Section):
    """A pixel-space diffusion model, image to image."""

    fit: FitSection
    width: Count
    patch: Literal[1, 2, 4]
    strength: Fraction
    sample_steps: Count


class GanSection(Section):
    """A super-resolution GAN."""

    fit: FitSection
    width: Count
    scale: Literal[2, 4, 8]
    adversarial: Positive


class VqarSection(Section):
    """Quantised cells and an autoregressive transformer over them."""

    fit_codes: FitSection
    fit_prior: FitSection
    width: Count
    patch: Literal[4, 8, 16]
    levels: Count
    code_dims: Count
    prior_width: Count
    prior_layers: Count
    temperature: Positive
    texture: Positive


class InpaintSection(Section):
    """A refilled hole; sides as shares of the image's side."""

    fit: FitSection
    width: Count
    min_side: Fraction
    max_side: Fraction
    texture: Positive


class ForgeSection(Section):
    """Which families, how each is fitted, and how many fakes are made."""

    roles: RolesSection
    fit_images: Count
    """Training images that a family learns from, at most."""
    samples_per_family: Count
    """Fakes of one family in one set, at most."""
    quality_images: Count
    """Fakes of one family whose distance to real images is measured, at most."""
    quality_floor: Positive
    """A family is flagged unless its kernel distance to real images is below this share of the
    distance of images that keep only each real image's mean colour."""
    least_separation: Fraction
    """By how much the share of fakes beyond a threshold must exceed that of real images for the
    measure to be spoken of in explanations."""
    reconstruction: ReconstructionSection
    flow: FlowSection
    ddpm: DdpmSection
    gan: GanSection
    vqar: VqarSection
    inpaint: InpaintSection

    @model_validator(mode="after")
    def _families_can_be_built(self) -> ForgeSection:
        self.config()
        return self

    def config(self) -> ForgeryConfig:
        """The same values as the families take them."""
        ddpm, gan, vqar, inpaint = (
            section.model_dump(exclude={"fit", "fit_codes", "fit_prior"})
            for section in (self.ddpm, self.gan, self.vqar, self.inpaint)
        )
        return ForgeryConfig(
            reconstruction=ReconstructionConfig(**self.reconstruction.model_dump()),
            flow=FlowConfig(**self.flow.model_dump()),
            ddpm=DdpmConfig(fit=self.ddpm.fit.config(), **ddpm),
            gan=GanConfig(fit=self.gan.fit.config(), **gan),
            vqar=VqarConfig(
                fit_codes=self.vqar.fit_codes.config(),
                fit_prior=self.vqar.fit_prior.config(),
                **vqar,
            ),
            inpaint=InpaintConfig(fit=self.inpaint.fit.config(), **inpaint),
        )
