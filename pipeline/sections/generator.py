"""Section `pretrain_generator`: the autoencoder, then flow matching."""

from __future__ import annotations

from pydantic import model_validator

from pipeline.sections.base import (
    Count,
    Fraction,
    NonNegative,
    OptimSection,
    Positive,
    Section,
    TokenBudgetSection,
    check_mixture,
)
from unigendet.config import AutoencoderWeights
from unigendet.data.composition import samples_per_step


class AutoencoderWeightsSection(Section):
    """`unigendet.config.AutoencoderWeights` as it is written in params.yaml."""

    l1: NonNegative
    l2: NonNegative
    kl: NonNegative
    gradient: NonNegative
    spectrum: NonNegative
    adversary: NonNegative
    """Above 0, a patch critic is trained beside the autoencoder."""
    adversary_from: Fraction
    """Share of the run after which the critic's opinion counts."""

    def config(self) -> AutoencoderWeights:
        """The same values as the objective takes them."""
        return AutoencoderWeights(**self.model_dump())


class AutoencoderTrainingSection(Section):
    """Training of the image autoencoder."""

    batch_size: Count
    crop: Count
    """Side in pixels of the random crops it trains on; at most the image's side. Small crops buy
    steps, which a convolutional autoencoder needs more than context."""
    critic_width: Count
    """Channels of the critic's first layer; a multiple of 8."""
    weights: AutoencoderWeightsSection
    optim: OptimSection


class FlowTrainingSection(Section):
    """Flow matching on the generation expert."""

    batch_size: Count
    text_dropout: Fraction
    """Share of captions dropped, for classifier-free guidance."""
    token_budget: TokenBudgetSection | None
    """Fills packs by tokens; the numbers per step then only say which streams there are."""
    optim: OptimSection

    @model_validator(mode="after")
    def _mixture_fits(self) -> FlowTrainingSection:
        check_mixture(self.token_budget, samples_per_step(self.batch_size, 0))
        return self


class SampleGridSection(Section):
    """The picture of generated images that a training stage draws."""

    count: Count
    steps: Count
    guidance: Positive


class GeneratorSection(Section):
    """Both trainings, or what takes their place, and the picture of what came out."""

    base: str
    """Folder of a model, as `unigendet import` makes it, to start from; relative ones lie in the
    repository, and empty trains from scratch.
    Its autoencoder and tokenizer come with it, so `autoencoder` trains nothing, and `flow` only
    where its steps are above 0. Another model under the same path is not noticed."""
    autoencoder: AutoencoderTrainingSection
    flow: FlowTrainingSection
    samples: SampleGridSection

    @model_validator(mode="after")
    def _something_is_learned(self) -> GeneratorSection:
        steps = (self.autoencoder.optim.steps, self.flow.optim.steps)
        if not self.base and not all(steps):
            raise ValueError("steps of 0 need a `base`: from scratch, both parts must be trained")
        return self
