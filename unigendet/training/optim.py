"""AdamW on a chosen part of a model, its schedule, and the running average of the weights."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from unigendet.config import OptimConfig


def select_trainable(model: nn.Module, patterns: Sequence[str]) -> dict[str, nn.Parameter]:
    """Let exactly the parameters learn whose whole name matches one of the regular expressions.

    Every other parameter is frozen (`requires_grad` False). Returns the learning ones by name, in
    the model's order. Raises `ValueError` for a pattern that is no regular expression or that
    matches nothing: a mistyped pattern would otherwise train a silently smaller model.
    """
    compiled: list[re.Pattern[str]] = []
    for pattern in patterns:
        try:
            compiled.append(re.compile(pattern))
        except re.error as error:
            raise ValueError(
                f"trainable pattern {pattern!r} is no regular expression: {error}"
            ) from None
    names = [name for name, _ in model.named_parameters()]
    for expression in compiled:
        if not any(expression.fullmatch(name) for name in names):
            raise ValueError(
                f"trainable pattern {expression.pattern!r} matches none of the model's "
                f"{len(names)} parameters (for instance {', '.join(names[:3])}); correct it or "
                "remove it"
            )
    chosen: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        learns = any(expression.fullmatch(name) for expression in compiled)
        parameter.requires_grad_(learns)
        if learns:
            chosen[name] = parameter
        else:
            parameter.grad = None
    if not chosen:
        raise ValueError("no parameter is trainable: give at least one pattern")
    return chosen


def learning_rate(config: OptimConfig, step: int) -> float:
    """Learning rate of step `step` (0-based): linear warm-up, then constant or cosine to 0."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.lr * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))


def build_optimizer(
    parameters: Mapping[str, nn.Parameter], config: OptimConfig
) -> torch.optim.AdamW:
    """AdamW over named parameters in the order given (fused kernels, which CPUs have too)."""
    return torch.optim.AdamW(
        list(parameters.values()),
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=True,
    )


class Ema:
    """Running average of the learning parameters: `shadow <- d * shadow + (1 - d) * weight`.

    The decay rises as `min(decay, (1 + n) / (10 + n))` with the number n of updates, so that a
    short run is not dominated by its first weights.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"ema_decay is {decay}; it must be at least 0 and below 1")
        self.decay = decay
        self._parameters = dict(parameters)
        self.shadow: dict[str, Tensor] = {
            name: parameter.detach().clone() for name, parameter in parameters.items()
        }

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Move the average towards the current weights; `updates` = number of updates before."""
        decay = min(self.decay, (1 + updates) / (10 + updates))
        torch._foreach_lerp_(
            list(self.shadow.values()),
            [parameter.detach() for parameter in self._parameters.values()],
            1.0 - decay,
        )

    @torch.no_grad()
    def copy_to_model(self) -> None:
        """Replace the model's learning weights by their average, for good."""
        for name, parameter in self._parameters.items():
            parameter.copy_(self.shadow[name])

    @contextmanager
    def in_model(self) -> Iterator[None]:
        """The model holds the average inside the block and its own weights again after it."""
        own = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        self.copy_to_model()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in self._parameters.items():
                    parameter.copy_(own[name])
