"""Checks on pixels, with no network between: fidelity, copying, obedience to captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unigendet.metrics.bootstrap import Estimate, Floats, estimate, mean_estimate, weighted_mean

Images = NDArray[np.uint8]
_COPY_SIDE = 16
"""Copies are looked for at 16 x 16 pixels, so that a blurred or shifted copy counts too."""


def psnr(original: Images, copy: Images) -> Floats:
    """Peak signal-to-noise ratio in dB of each image, peak 255, over all pixels and channels.

    Args:
        original, copy: (N, H, W, 3) uint8.

    Returns:
        (N,); an exact copy gets the figure of one pixel value wrong by one, so that means stay
        finite.
    """
    if original.shape != copy.shape or original.ndim != 4:
        raise ValueError(f"images of shape {original.shape} and {copy.shape} cannot be compared")
    error = ((original.astype(np.float64) - copy.astype(np.float64)) ** 2).mean((1, 2, 3))
    error = np.maximum(error, 1.0 / original[0].size)
    return np.asarray(10.0 * np.log10(255.0**2 / error))


@dataclass(frozen=True, slots=True)
class NearestTiles:
    """For each image its nearest training image, over the eight turns and flips of the square."""

    index: NDArray[np.int64]
    """(n,) which training image."""
    distance: Floats
    """(n,) root mean squared difference at 16 x 16 pixels, in pixel values."""


def _small(images: Images) -> NDArray[np.float32]:
    """(N, H, W, 3) to (N, 16, 16, 3) by averaging."""
    n, height, width, _ = images.shape
    if height % _COPY_SIDE or width % _COPY_SIDE:
        raise ValueError(f"sides must be multiples of {_COPY_SIDE} pixels, not {height} x {width}")
    shape = (n, _COPY_SIDE, height // _COPY_SIDE, _COPY_SIDE, width // _COPY_SIDE, 3)
    return np.asarray(images.reshape(shape).mean((2, 4)), dtype=np.float32)


def nearest_training_tiles(images: Images, training: Images) -> NearestTiles:
    """Search all training images in all eight orientations for the nearest to each image."""
    table = _small(training).reshape(len(training), -1)
    squares = (table**2).sum(1)
    small = _small(images)
    best = np.full(len(images), np.inf)
    index = np.zeros(len(images), dtype=np.int64)
    for flip in (False, True):
        for turns in range(4):
            view = np.rot90(small[:, :, ::-1] if flip else small, turns, axes=(1, 2))
            rows = np.ascontiguousarray(view).reshape(len(small), -1)
            distance = (rows**2).sum(1)[:, None] + squares - 2.0 * rows @ table.T
            nearest = distance.argmin(1)
            found = distance[np.arange(len(rows)), nearest]
            index = np.where(found < best, nearest, index)
            best = np.minimum(best, found)
    return NearestTiles(index, np.sqrt(np.maximum(best, 0.0) / table.shape[1]).astype(np.float64))


@dataclass(frozen=True, slots=True)
class CopyCheck:
    """Whether generated images lie nearer to training images than new real ones do."""

    generated: Estimate
    """Median distance of generated images to their nearest training image."""
    real: Estimate
    """The same of held-out real images: what novelty looks like."""
    copies: Estimate
    """Share of generated images nearer than all but one in a hundred held-out real ones."""
    threshold: float
    """That hundredth part's distance."""


def copy_check(
    generated: NearestTiles,
    held_out: NearestTiles,
    generated_groups: Sequence[str],
    held_out_groups: Sequence[str],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> CopyCheck:
    """Compare distances to the training set; about 1 % of `copies` is what chance gives."""
    threshold = float(np.quantile(held_out.distance, 0.01))
    near = (generated.distance < threshold).astype(np.float64)

    def median(values: Floats, groups: Sequence[str]) -> Estimate:
        order = np.argsort(values)

        def weighted(w: Floats) -> float:
            mass = np.cumsum(w[order])
            return float(values[order[np.searchsorted(mass, mass[-1] / 2.0)]])

        return estimate(weighted, groups, draws=draws, seed=seed)

    return CopyCheck(
        generated=median(generated.distance, generated_groups),
        real=median(held_out.distance, held_out_groups),
        copies=mean_estimate(near, generated_groups, draws=draws, seed=seed),
        threshold=threshold,
    )


def leading_ground(caption: str, words: tuple[str, str]) -> int | None:
    """Which of two words the caption's first-named ground is; None where neither or both."""
    head = caption
    for cut in (",", " with some ", " and "):
        head = head.split(cut)[0]
    found = [word in head.split() for word in words]
    return found.index(True) if sum(found) == 1 else None


def mean_colours(images: Images) -> Floats:
    """(N, H, W, 3) to (N, 3) mean RGB."""
    return np.asarray(images.astype(np.float64).mean((1, 2)))


@dataclass(frozen=True, slots=True)
class ColourRule:
    """Two mean colours; an image belongs to the nearer. Fitted on real training images."""

    centres: Floats
    """(2, 3)."""

    @classmethod
    def fit(cls, images: Images, labels: Sequence[int]) -> ColourRule:
        """Raises ValueError where one of the two classes (labels 0 and 1) has no image."""
        colours, which = mean_colours(images), np.asarray(labels)
        if set(which.tolist()) != {0, 1}:
            raise ValueError("a colour rule needs images of both classes")
        return cls(np.stack([colours[which == label].mean(0) for label in (0, 1)]))

    def __call__(self, images: Images) -> NDArray[np.int64]:
        gaps = mean_colours(images)[:, None, :] - self.centres[None, :, :]
        return np.asarray((gaps**2).sum(-1).argmin(1))


def obedience(
    rule: ColourRule,
    images: Images,
    labels: Sequence[int],
    groups: Sequence[str],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Estimate:
    """How often the rule reads the class that was asked for: mean of the two classes' rates."""
    asked = np.asarray(labels)
    right = (rule(images) == asked).astype(np.float64)

    def balanced(w: Floats) -> float:
        rates = [weighted_mean(right, np.where(asked == label, w, 0.0)) for label in (0, 1)]
        return sum(rates) / 2.0

    return estimate(balanced, groups, draws=draws, seed=seed)
