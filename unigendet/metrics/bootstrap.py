"""Intervals that respect where images come from: resampling sources, never single images.

A fake made from a real tile and that tile are not two independent observations. Every bootstrap
here draws whole sources (`source_id`) with replacement and hands each observation the number of
times that its source was drawn, as a weight. Statistics that take weights are then exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Groups = Sequence[str] | NDArray[np.str_]
"""The source id of each observation."""
LEVEL = 0.95
"""Coverage of every interval."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval and what it was computed from."""

    value: float
    low: float
    high: float
    n: int
    """Images (or texts) that went in."""
    groups: int
    """Independent sources among them; the interval resamples these."""
    n_total: int
    """Images there were; less than `n` never, and more only where a figure is about a part."""


class Draws:
    """Bootstrap draws over the union of several sets' sources.

    Sets that share sources (a tile and its reconstruction) get the same draw, so that paired
    differences keep their pairing.

    Args:
        groups: one sequence of source ids per set.
        draws: number of resamples.
        seed: fixes every resample.
    """

    def __init__(self, *groups: Groups, draws: int = 1000, seed: int = 0) -> None:
        if not groups or any(len(group) == 0 for group in groups):
            raise ValueError("a bootstrap needs at least one observation in every set")
        names, inverse = np.unique(
            np.concatenate([np.asarray(group, dtype=object) for group in groups]).astype(str),
            return_inverse=True,
        )
        ends = np.cumsum([len(group) for group in groups])
        self.index = np.split(inverse, ends[:-1])
        self.sources = len(names)
        self.draws = draws
        self.seed = seed

    def counts(self) -> Iterator[list[Floats]]:
        """Per draw, per set: how often each observation's source was drawn, (n_set,)."""
        generator = np.random.default_rng(self.seed)
        for _ in range(self.draws):
            drawn = generator.integers(0, self.sources, self.sources)
            count = np.bincount(drawn, minlength=self.sources).astype(np.float64)
            yield [count[index] for index in self.index]

    def groups(self, which: int = 0) -> int:
        """Number of sources in one set."""
        return len(np.unique(self.index[which]))


def percentile_interval(values: Sequence[float] | Floats) -> tuple[float, float]:
    """The central 95 % of bootstrap values; draws where the figure is undefined do not count."""
    array = np.asarray(values, dtype=np.float64)
    array = array[np.isfinite(array)]
    if array.size == 0:
        return float("nan"), float("nan")
    tail = (1.0 - LEVEL) / 2.0
    low, high = np.quantile(array, [tail, 1.0 - tail])
    return float(low), float(high)


def estimate(
    statistic: Callable[[Floats], float],
    groups: Groups,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Value and percentile interval of a statistic that takes one weight per observation.

    Args:
        statistic: weights (n,) -> figure; called once with ones and once per draw.
        groups: source id of each observation.
        draws: number of resamples.
        seed: fixes them.
    """
    plan = Draws(groups, draws=draws, seed=seed)
    n = len(groups)
    values = [statistic(weights) for (weights,) in plan.counts()]
    low, high = percentile_interval(values)
    return Estimate(statistic(np.ones(n)), low, high, n, plan.sources, n)


def mean_estimate(
    values: Sequence[float] | Floats,
    groups: Groups,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Estimate:
    """The mean of one value per observation, sources resampled."""
    array = np.asarray(values, dtype=np.float64)
    return estimate(lambda w: weighted_mean(array, w), groups, draws=draws, seed=seed)


def weighted_mean(values: Floats, weights: Floats) -> float:
    total = float(weights.sum())
    return float(values @ weights) / total if total > 0 else float("nan")
