"""Section `pretrain_generator`: the autoencoder, then flow matching."""

from __future__ import annotations

from pipeline.sections.base import Count, Fraction, NonNegative, OptimSection, Positive, Section
from unigendet.config import AutoencoderWeights


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
    optim: OptimSection


class SampleGridSection(Section):
    """The picture of generated images that a training stage draws."""

    count: Count
    steps: Count
    guidance: Positive


class GeneratorSection(Section):
    """Both trainings and the picture of what came out."""

    autoencoder: AutoencoderTrainingSection
    flow: FlowTrainingSection
    samples: SampleGridSection
