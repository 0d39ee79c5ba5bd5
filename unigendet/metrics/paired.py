"""A treatment against its control over seeds: paired differences and their 95 % intervals.

Both arms of a seed share data and first weights, so the difference within a seed is the
observation, and the seeds are what varies. Seeds are few: the interval is Student's, or that of a
bootstrap that draws seeds and sources.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from unigendet.metrics.bootstrap import LEVEL, Floats, Groups, percentile_interval

FEWEST_SEEDS = 3
"""With fewer there is no interval: two seeds say next to nothing about their own spread."""


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Mean over seeds of treatment minus control."""

    value: float
    low: float | None
    """Ends of the 95 % interval; None with fewer than `FEWEST_SEEDS` seeds."""
    high: float | None
    seeds: int


@dataclass(frozen=True, slots=True)
class SeedDifference:
    """One seed's difference as a function of how often each observation counts."""

    statistic: Callable[[Floats], float]
    """Weights (n,) -> treatment minus control; NaN where a draw leaves it undefined."""
    groups: Groups
    """Source id of each of the n observations; an id is the same source in every seed."""


def t_difference(treatment: Sequence[float], control: Sequence[float]) -> PairedDifference:
    """Mean difference of paired values, one of each per seed, with Student's interval.

    `mean +- t(0.975, n - 1) s / sqrt(n)`, s the standard deviation of the n differences. Raises
    ValueError unless there are as many values of either, at least one, all finite.
    """
    if len(treatment) != len(control) or not treatment:
        raise ValueError(
            f"paired values come in pairs, at least one: got {len(treatment)} and {len(control)}"
        )
    differences = np.asarray(treatment, np.float64) - np.asarray(control, np.float64)
    if not np.isfinite(differences).all():
        raise ValueError(f"paired values must be finite, got {treatment} and {control}")
    n, mean = len(differences), float(differences.mean())
    if n < FEWEST_SEEDS:
        return PairedDifference(mean, None, None, n)
    from scipy.stats import t

    half = float(t.ppf((1 + LEVEL) / 2, n - 1)) * float(differences.std(ddof=1)) / math.sqrt(n)
    return PairedDifference(mean, mean - half, mean + half, n)


def hierarchical_difference(
    seeds: Sequence[SeedDifference], *, draws: int = 1000, seed: int = 0
) -> PairedDifference:
    """Mean over seeds of a difference, with the interval of a bootstrap over seeds and sources.

    Each draw takes seeds with replacement, and sources with replacement, once for all seeds: where
    they are judged on the same images, more seeds do not make these images more (Owen, "The
    pigeonhole bootstrap", 2007). Its interval says how far new seeds and new images would move the
    figure. It is too wide for what only one pair of seed and source has in common, and somewhat too
    narrow between few seeds, so it stands beside Student's, which knows these images only.
    """
    if not seeds:
        raise ValueError("a difference over seeds needs at least one seed")
    sizes = [len(one.groups) for one in seeds]
    together = np.concatenate([np.asarray(one.groups, dtype=str) for one in seeds])
    names, places = np.unique(together, return_inverse=True)
    indices = np.split(places, np.cumsum(sizes)[:-1])
    mean = float(np.mean([s.statistic(np.ones(len(s.groups))) for s in seeds]))
    if len(seeds) < FEWEST_SEEDS:
        return PairedDifference(mean, None, None, len(seeds))
    generator = np.random.default_rng(seed)
    means = []
    for _ in range(draws):
        sources = generator.integers(0, len(names), len(names))
        counts = np.bincount(sources, minlength=len(names)).astype(np.float64)
        times = np.bincount(generator.integers(0, len(seeds), len(seeds)), minlength=len(seeds))
        drawn = [k for k in range(len(seeds)) if times[k]]
        found = [seeds[k].statistic(counts[indices[k]]) for k in drawn]
        means.append(float(np.average(found, weights=times[drawn])))
    low, high = percentile_interval(means)
    return PairedDifference(mean, low, high, len(seeds))
