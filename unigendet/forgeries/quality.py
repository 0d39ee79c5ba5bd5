"""Whether a family's fakes are near enough to real images to count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unigendet.metrics.bootstrap import Estimate
from unigendet.metrics.generation import FeatureSet, frechet_distance, kernel_distances

LEAST_VARIETY = 0.25
"""A family whose `Distances.variety` is below it has collapsed: real images have 1, images that
repeat a few others nearly 0."""
FLAT = "flat colours"
"""Name of the reference among the distances: images that keep only a mean colour."""


@dataclass(frozen=True, slots=True)
class Distances:
    """Distances of one set of images to real ones, on EfficientNet-Lite0 features."""

    kd: Estimate
    fd: float
    relative: float
    """`kd` over that of the flat colours."""
    variety: float
    """Mean distance of an image to the nearest one of another source, over that of real images."""
    above_floor: bool
    """Whether `relative` is below the floor and `variety` above `LEAST_VARIETY`: only then do a
    family's fakes count among those of several families."""


@dataclass(frozen=True, slots=True)
class FamilyQuality:
    """One family: what it is, what it took, and how near its fakes come."""

    family: str
    role: str
    aligned: bool
    own_decoder: bool
    evaluated_set: str
    n_total: int
    """Fakes of the family in that set; `distances.kd.n` of them were measured."""
    distances: Distances
    flat: Estimate
    """Kernel distance of the flat colours."""
    floor: float
    """Least `distances.relative` that is too much."""
    least_variety: float
    fit_loss: float
    fit_seconds: float
    make_seconds: float


def flat_colours(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N, H, W, 3): each image painted over with its mean colour, the poorest of imitations."""
    means = images.mean(axis=(1, 2), keepdims=True)
    return np.broadcast_to(means.round().astype(np.uint8), images.shape).copy()


def measure_distances(
    real: FeatureSet, flat: FeatureSet, fakes: Mapping[str, FeatureSet], *, floor: float, seed: int
) -> dict[str, Distances]:
    """Distances to `real` of `flat` (under the name `FLAT`) and of each set of `fakes`.

    A kernel distance near 0 may come out slightly negative; it counts as near. Where even the flat
    images are no farther than that, there are too few images to judge by, and no family is above
    the floor.
    """
    sets = {FLAT: flat, **fakes}
    table = kernel_distances(real, sets, seed=seed)
    apart = nearest_other(real)
    worst = table.estimates[FLAT].value
    found = {}
    for name, features in sets.items():
        kd = table.estimates[name]
        relative = kd.value / worst if worst > 0 else float(np.finfo(np.float32).max)
        fd = frechet_distance(real.rows, features.rows)
        variety = nearest_other(features) / apart if apart > 0 else 0.0
        good = relative < floor and variety >= LEAST_VARIETY
        found[name] = Distances(kd, fd, relative, variety, good)
    return found


def nearest_other(images: FeatureSet) -> float:
    """Mean distance from an image's features to the nearest ones of another source.

    Crops of one source, and fakes made from them, may well be alike. 0 where all have one source.
    """
    rows, groups = images.rows.astype(np.float64), np.asarray(images.groups)
    squares = np.sum(rows**2, axis=1)
    distances = squares[:, None] + squares - 2.0 * rows @ rows.T
    distances[groups[:, None] == groups] = np.inf
    nearest = distances.min(axis=1)
    if not np.isfinite(nearest).all():
        return 0.0
    return float(np.sqrt(nearest.clip(min=0.0)).mean())
