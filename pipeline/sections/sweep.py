"""Section `sweep`: which loss weights are tried, how long, and what the trials are judged by."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.sections.base import Count, CountOrZero, NonNegative, Section

RANGES = ("flow_weight", "det_weight", "text_weight", "align_weight")
"""Weights drawn on a log scale; the tap layer is one of a few."""


class DistanceSection(Section):
    """How far from real validation tiles a trial's generator is: what is minimised."""

    measure: Literal["kd", "flow_loss"]
    """`kd`: kernel distance of tiles that it draws. `flow_loss` draws none and is cheaper: a proxy,
    for how well the next step to an image is known, not for the images."""
    images: Annotated[int, Field(ge=2)]
    """Tiles drawn for the captions of as many real validation tiles; `kd` only."""
    steps: Count
    guidance: NonNegative


class SweepSection(Section):
    """Short trials over the alignment weights, each range (lowest, highest) drawn on a log scale.

    A trial is `gduf_steps` of GDUF and `diga_steps` of DIGA with the batches of section coevolve.
    """

    enabled: bool
    """false tries nothing: every weight of section coevolve must then be a number."""
    trials: Count
    repeats: CountOrZero
    """The first trial's weights again with this many other seeds: the noise that the rule for the
    best takes into account. 0 measures none and assumes none."""
    concurrent: Count
    gpu_share: Annotated[float, Field(gt=0, le=1)]
    """Part of a GPU that a trial takes; 0.5 runs two on each."""
    grace_steps: Count
    """Steps between two reports of a trial, and before ASHA's first look; as many as a trial has:
    no look."""
    reduction_factor: Annotated[float, Field(gt=1)]
    """Of the trials that reach a rung, the better one in this many goes on; the rungs, where ASHA
    looks, are at `grace_steps` times its powers."""
    gduf_steps: Count
    diga_steps: Count
    validation_images: Count
    distance: DistanceSection
    flow_weight: tuple[NonNegative, NonNegative]
    det_weight: tuple[NonNegative, NonNegative]
    text_weight: tuple[NonNegative, NonNegative]
    align_weight: tuple[NonNegative, NonNegative]
    tap_layers: Annotated[tuple[CountOrZero, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _ranges_ordered(self) -> SweepSection:
        for name in RANGES:
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name}: needs 0 < lowest <= highest, got {low} and {high}")
        return self

    @model_validator(mode="after")
    def _grace_within_a_trial(self) -> SweepSection:
        if self.grace_steps > self.steps:
            raise ValueError(
                f"grace_steps: {self.grace_steps} is more than the {self.steps} steps of a trial "
                "(gduf_steps + diga_steps); as many means that none is stopped early"
            )
        return self

    @property
    def steps(self) -> int:
        """Optimizer steps of a trial that is trained to its end."""
        return self.gduf_steps + self.diga_steps
