"""Whether a family's fakes are near enough to real images to count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unigendet.metrics.bootstrap import Estimate
from unigendet.metrics.generation import FeatureSet, frechet_distance, kernel_distances

FLAT = "flat colours"
"""Name of the reference among the distances: images that keep only a mean colour."""


@dataclass(frozen=True, slots=True)
class Distances:
    """Distances of one set of images to real ones, on EfficientNet-Lite0 features."""

    kd: Estimate
    fd: float
    relative: float
    """`kd` over that of the flat colours."""
    above_floor: bool
    """Whether `relative` is below the floor: only then do a family's fakes count."""


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
    worst = table.estimates[FLAT].value
    found = {}
    for name, features in sets.items():
        kd = table.estimates[name]
        relative = kd.value / worst if worst > 0 else float(np.finfo(np.float32).max)
        fd = frechet_distance(real.rows, features.rows)
        found[name] = Distances(kd, fd, relative, relative < floor)
    return found
