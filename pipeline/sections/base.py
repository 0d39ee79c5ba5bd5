"""What every section of params.yaml is: strict, frozen, complete (a class gives no default)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from unigendet.config import LossWeights, OptimConfig

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
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
    betas: tuple[Fraction, Fraction]
    eps: Positive
    weight_decay: NonNegative
    clip_norm: Positive
    ema_decay: Fraction
    precision: Literal["fp32", "bf16"]
    compile: bool
    recompute: bool
    log_every: Count
    checkpoint_every: Count
    trainable: tuple[str, ...]

    def config(self) -> OptimConfig:
        """The same values as the training loop takes them."""
        return OptimConfig(**self.model_dump())


class LossWeightsSection(Section):
    """`unigendet.config.LossWeights` as it is written in params.yaml."""

    flow: NonNegative
    text: NonNegative
    det: NonNegative
    align: NonNegative

    def config(self) -> LossWeights:
        """The same values as the objectives take them."""
        return LossWeights(**self.model_dump())
