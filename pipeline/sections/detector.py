"""Section `pretrain_detector`: image encoder, understanding expert, verdict, explanations."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from pipeline.sections.base import (
    Count,
    CountOrZero,
    Fraction,
    LossWeightsSection,
    OptimSection,
    Section,
    TokenBudgetSection,
    check_mixture,
)
from unigendet.data.composition import samples_per_step

EvenCount = Annotated[int, Field(ge=2, multiple_of=2)]
"""Detection samples of a step: half of them real, half fake."""


class DetectorSection(Section):
    """Training of the detector, from the pretrained generator."""

    detection_per_step: EvenCount
    generation_per_step: CountOrZero
    """Real images with a flow loss in each step: they keep what captions mean to the generator."""
    smsa: bool
    """Whether the detector reads the generator's latents (SMSA) already here."""
    text_dropout: Fraction
    """Share of captions dropped from the generation samples."""
    validation_images: Count
    """Real images, and as many fakes, of the validation set that each validation looks at."""
    whiten_patches: bool
    """Start the patch embedding as a whitening of training patches: for an image encoder trained
    from scratch, not for pretrained weights."""
    weights: LossWeightsSection
    token_budget: TokenBudgetSection | None
    """Fills packs by tokens; the numbers per step then only say which streams there are."""
    optim: OptimSection

    @model_validator(mode="after")
    def _mixture_fits(self) -> DetectorSection:
        per_step = samples_per_step(self.generation_per_step, self.detection_per_step)
        check_mixture(self.token_budget, per_step)
        return self
