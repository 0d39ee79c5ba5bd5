"""How near a set of generated images is to a set of real ones.

Distances are taken between EfficientNet-Lite0 features (`metrics.features`) and carry its name:

- **KD-EffNetLite0**, the kernel distance: the unbiased squared maximum mean discrepancy with the
  cubic kernel k(x, y) = (x . y / d + 1)^3, d = 1280 (Binkowski et al. 2018, their KID), over all
  pairs of images of different sources instead of over subsets. It can be slightly negative where
  two sets do not differ.
- **FD-EffNetLite0**, the Frechet distance between Gaussians fitted to the features (Heusel et al.
  2017). Biased upward at small n, so it compares only sets of equal size.
- **coverage** and **density** (Naeem et al. 2020) with k = 5 neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unigendet.metrics.bootstrap import (
    Draws,
    Estimate,
    Floats,
    mean_estimate,
    percentile_interval,
)
from unigendet.metrics.features import FEATURE_SIZE, features

__all__ = [
    "FEATURE_SIZE",
    "FeatureSet",
    "coverage_density",
    "features",
    "frechet_distance",
    "frechet_estimate",
    "kernel_distance",
    "kernel_distances",
]

Array = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """Features of one set of images with the source of each, which intervals resample."""

    rows: Array
    """(n, d)."""
    groups: tuple[str, ...]
    """(n) source ids."""

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or len(self.rows) != len(self.groups):
            raise ValueError(
                f"features of shape {self.rows.shape} do not match {len(self.groups)} source ids"
            )

    @classmethod
    def independent(cls, rows: Array, prefix: str = "image") -> FeatureSet:
        """A set each of whose images is a source of its own."""
        return cls(rows, tuple(f"{prefix}-{index}" for index in range(len(rows))))


@dataclass(frozen=True, slots=True)
class _Pairs:
    """The kernel over pairs of images of different sources, ready for weighted means.

    Pairs within a source (an image with itself, a tile with its reconstruction or its overlapping
    neighbour) are no sample of k(x, x') for independent x and x', and neither are the copies that
    a bootstrap makes: leaving all of them out keeps the estimate unbiased.
    """

    kernel: Floats
    """(n, m), 0 where the two sources are one."""
    apart: Floats
    """(n, m), 1 where the sources differ."""

    @classmethod
    def of(cls, x: FeatureSet, y: FeatureSet) -> _Pairs:
        apart = np.asarray(x.groups)[:, None] != np.asarray(y.groups)[None, :]
        d = x.rows.shape[1]
        gram = x.rows.astype(np.float64) @ y.rows.astype(np.float64).T
        return cls((gram / d + 1.0) ** 3 * apart, apart.astype(np.float64))

    def mean(self, wx: Floats, wy: Floats) -> float:
        pairs = float(wx @ self.apart @ wy)
        return float(wx @ self.kernel @ wy) / pairs if pairs > 0 else float("nan")


def _check(x: Array, y: Array) -> None:
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"features must be (n, d) with one d; got {x.shape} and {y.shape}")
    if len(x) < 2 or len(y) < 2:
        raise ValueError(f"a distance needs at least 2 images on each side: {len(x)} and {len(y)}")


def _mmd(xx: _Pairs, yy: _Pairs, xy: _Pairs, wx: Floats, wy: Floats) -> float:
    return xx.mean(wx, wx) + yy.mean(wy, wy) - 2.0 * xy.mean(wx, wy)


def kernel_distance(x: Array | FeatureSet, y: Array | FeatureSet) -> float:
    """Unbiased squared MMD between two sets of features, (n, d) and (m, d).

    Plain arrays are taken as independent images; a `FeatureSet` leaves out pairs of one source.
    """
    first = x if isinstance(x, FeatureSet) else FeatureSet.independent(x, "x")
    second = y if isinstance(y, FeatureSet) else FeatureSet.independent(y, "y")
    _check(first.rows, second.rows)
    pairs = _Pairs.of(first, first), _Pairs.of(second, second), _Pairs.of(first, second)
    return _mmd(*pairs, np.ones(len(first.rows)), np.ones(len(second.rows)))


@dataclass(frozen=True, slots=True)
class DistanceTable:
    """Kernel distances of several sets to one reference, from one set of joint draws."""

    estimates: dict[str, Estimate]
    samples: dict[str, Floats]
    """Bootstrap values by set, draw by draw aligned, for ratios and differences."""

    def derived(self, value: float, samples: Floats, of: str) -> Estimate:
        """An estimate made from these draws, a ratio say; `of` names whose n it carries."""
        low, high = percentile_interval(samples)
        base = self.estimates[of]
        return Estimate(value, low, high, base.n, base.groups, base.n_total)


def kernel_distances(
    reference: FeatureSet, sets: dict[str, FeatureSet], *, draws: int = 200, seed: int = 0
) -> DistanceTable:
    """Kernel distance of each set to the reference with intervals that resample sources.

    A source that is in several sets (a tile and its reconstruction) is drawn for all of them at
    once, so ratios between sets may be taken draw by draw.
    """
    names = list(sets)
    plan = Draws(reference.groups, *(sets[name].groups for name in names), draws=draws, seed=seed)
    for name in names:
        _check(reference.rows, sets[name].rows)
    own = _Pairs.of(reference, reference)
    pairs = {
        name: (_Pairs.of(sets[name], sets[name]), _Pairs.of(reference, sets[name]))
        for name in names
    }
    samples: dict[str, list[float]] = {name: [] for name in names}
    for reference_weights, *weights in plan.counts():
        for name, w in zip(names, weights, strict=True):
            samples[name].append(_mmd(own, *pairs[name], reference_weights, w))
    estimates = {}
    for position, name in enumerate(names, start=1):
        n = len(sets[name].rows)
        value = _mmd(own, *pairs[name], np.ones(len(reference.rows)), np.ones(n))
        low, high = percentile_interval(samples[name])
        estimates[name] = Estimate(value, low, high, n, plan.groups(position), n)
    return DistanceTable(estimates, {name: np.asarray(v) for name, v in samples.items()})


def frechet_distance(x: Array, y: Array) -> float:
    """|mu_x - mu_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^(1/2)) for features (n, d) and (m, d).

    With A the centred rows of x over sqrt(n - 1) and B those of y, S_x = A'A and S_y = B'B, and
    the trace of the root is the sum of the singular values of A B' (n, m): exact also where n < d,
    and without a root of a singular d x d matrix.
    """
    _check(x, y)
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    gap = a.mean(0) - b.mean(0)
    a = (a - a.mean(0)) / np.sqrt(len(a) - 1)
    b = (b - b.mean(0)) / np.sqrt(len(b) - 1)
    # Bring either side to at most d rows, so that the singular values are of a small matrix.
    a, b = _thin(a), _thin(b)
    root = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(gap @ gap + (a**2).sum() + (b**2).sum() - 2.0 * root)


def _thin(rows: Floats) -> Floats:
    """Rows R with R'R unchanged and no more of them than columns."""
    if rows.shape[0] <= rows.shape[1]:
        return rows
    return np.asarray(np.linalg.qr(rows).R)


def frechet_estimate(x: FeatureSet, y: FeatureSet, *, blocks: int = 20, seed: int = 0) -> Estimate:
    """Frechet distance with an interval from a delete-a-block jackknife over sources.

    A bootstrap repeats rows, which lowers the rank of the covariances and so shifts this biased
    statistic; leaving out one block of sources at a time does not. The interval is the value
    plus or minus 1.96 jackknife standard errors.
    """
    value = frechet_distance(x.rows, y.rows)
    gx, gy = np.asarray(x.groups), np.asarray(y.groups)
    names = np.unique(np.concatenate([gx, gy]))
    blocks = min(blocks, len(names))
    np.random.default_rng(seed).shuffle(names)
    left_out = []
    for block in np.array_split(names, blocks):
        keep_x, keep_y = ~np.isin(gx, block), ~np.isin(gy, block)
        if keep_x.sum() >= 2 and keep_y.sum() >= 2:
            left_out.append(frechet_distance(x.rows[keep_x], y.rows[keep_y]))
    spread = np.asarray(left_out)
    count = len(spread)
    error = np.sqrt((count - 1) / count * ((spread - spread.mean()) ** 2).sum()) if count else 0.0
    half = 1.959964 * float(error)
    n = len(y.rows)
    return Estimate(value, value - half, value + half, n, len(np.unique(gy)), n)


def _squared_distances(x: Array, y: Array) -> Floats:
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    cross = a @ b.T
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1)[None, :] - 2.0 * cross
    return np.asarray(np.maximum(squared, 0.0))


def coverage_density(
    real: FeatureSet, fake: FeatureSet, *, k: int = 5, draws: int = 1000, seed: int = 0
) -> tuple[Estimate, Estimate]:
    """Coverage and density of fake features around real ones.

    Coverage is the share of real images whose ball (radius: distance to their k-th real
    neighbour) holds at least one fake; density counts how many such balls a fake lies in, over k.
    Intervals resample the real images' sources for coverage, the fakes' for density.
    """
    _check(real.rows, fake.rows)
    if len(real.rows) <= k:
        raise ValueError(f"coverage with k = {k} needs more than {k} real images")
    own = _squared_distances(real.rows, real.rows)
    np.fill_diagonal(own, np.inf)
    radius = np.partition(own, k - 1, axis=1)[:, k - 1]  # (n_real,)
    inside = _squared_distances(real.rows, fake.rows) <= radius[:, None]  # (n_real, n_fake)
    covered = np.asarray(inside.any(1), dtype=np.float64)
    per_fake = np.asarray(inside.sum(0), dtype=np.float64) / k
    return (
        mean_estimate(covered, real.groups, draws=draws, seed=seed),
        mean_estimate(per_fake, fake.groups, draws=draws, seed=seed),
    )
