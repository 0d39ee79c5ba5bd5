"""What every section of params.yaml is: strict, frozen, complete (a class gives no default)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from unigendet.config import LossWeights, OptimConfig
from unigendet.data.composition import Budget
from unigendet.data.packing_loop import PackingLimits

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    """A mapping in params.yaml. Unknown keys, missing keys and other types are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=()
    )


class OptimSection(Section):
    """`unigendet.config.OptimConfig` as it is written in params.yaml."""

    steps: CountOrZero
    """0 leaves the training out; what it starts from is its result."""
    lr: Positive
    warmup_steps: CountOrZero
    schedule: Literal["constant", "cosine"]
    betas: tuple[BelowOne, BelowOne]
    eps: Positive
    weight_decay: NonNegative
    clip_norm: Positive
    ema_decay: BelowOne
    precision: Literal["fp32", "bf16"]
    compile: bool
    recompute: bool
    log_every: Count
    checkpoint_every: Count
    trainable: tuple[str, ...]

    def config(self) -> OptimConfig:
        """The same values as the training loop takes them."""
        return OptimConfig(**self.model_dump())


class MixtureSection(Section):
    """Weights of the streams from an optimizer step on; 0 leaves a stream out."""

    from_step: CountOrZero
    generation: NonNegative
    real: NonNegative
    fake: NonNegative


class TokenBudgetSection(Section):
    """Packs filled by tokens instead of by fixed numbers of samples: for images of many sizes."""

    packs_per_step: Count
    """Of all workers together, which share them equally."""
    expected_num_tokens: Count
    """A pack is full from here on."""
    max_num_tokens: Count
    max_num_tokens_per_sample: Count
    prefer_buffer_before: Count
    """A shorter pack takes a sample that did not fit before, if one waits, before a new one."""
    max_buffer_size: CountOrZero
    """How many samples may wait."""
    mixture: Annotated[tuple[MixtureSection, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _usable(self) -> TokenBudgetSection:
        self.config()
        return self

    def config(self) -> Budget:
        """The same values as the loader takes them."""
        limits = self.model_dump(exclude={"packs_per_step", "mixture"})
        mixture = [(one.from_step, one.model_dump(exclude={"from_step"})) for one in self.mixture]
        return Budget(self.packs_per_step, PackingLimits(**limits), tuple(mixture))


def check_mixture(
    budget: TokenBudgetSection | None,
    per_step: Mapping[str, int],
    *,
    always: Collection[str] = (),
) -> None:
    """Raise ValueError where packs filled by tokens lack what a phase needs.

    Args:
        per_step: samples by stream that the phase has.
        always: streams that it cannot do without at any step.
    """
    if budget is not None:
        budget.config().check(per_step, always=always)


class LossWeightsSection(Section):
    """`unigendet.config.LossWeights` as it is written in params.yaml."""

    flow: NonNegative
    text: NonNegative
    det: NonNegative
    align: NonNegative

    def config(self) -> LossWeights:
        """The same values as the objectives take them."""
        return LossWeights(**self.model_dump())
