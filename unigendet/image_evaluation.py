"""A generator judged by its images: how real, how varied, how new, how obedient to the caption.

Everything is measured against the same held-out real images. Two sets frame the scale: other real
images (what no generator can beat) and an untrained generator of the same architecture behind the
same trained autoencoder (what learning nothing gives).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unigendet.metrics.bootstrap import Estimate, Floats, mean_estimate
from unigendet.metrics.generation import (
    DistanceTable,
    FeatureSet,
    coverage_density,
    frechet_estimate,
    kernel_distances,
)
from unigendet.metrics.samples import (
    ColourRule,
    CopyCheck,
    NearestTiles,
    copy_check,
    leading_ground,
    nearest_training_tiles,
    obedience,
    psnr,
)

FLOOR, RECONSTRUCTED, UNTRAINED = "real", "reconstructed", "untrained"
"""The sets that frame the generated ones: other real images, the autoencoder, no training."""
MODEL, BEFORE_DIGA, PRETRAINED = "model", "before_diga", "pretrained"
"""The generated sets: by the final model, as it entered DIGA, and before co-evolution."""


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Images in one order with all that is known of them."""

    images: NDArray[np.uint8]
    """(N, H, W, 3)."""
    features: NDArray[np.float32]
    """(N, 1280), `metrics.features`."""
    captions: tuple[str, ...]
    groups: tuple[str, ...]
    """Source ids; a generated image belongs to the real image whose caption it was asked for."""

    @property
    def feature_set(self) -> FeatureSet:
        return FeatureSet(self.features, self.groups)


@dataclass(frozen=True, slots=True)
class SetFigures:
    """One set of images against the reference."""

    kd: Estimate
    fd: Estimate
    coverage: Estimate
    density: Estimate


@dataclass(frozen=True, slots=True)
class ImageFigures:
    """All figures about images."""

    sets: Mapping[str, SetFigures]
    ratios: Mapping[str, Estimate]
    """Kernel distances set in relation, draw by draw: see `_ratios`."""
    psnr: Estimate
    """Of reconstructions, in dB, mean over images."""
    obedience: Mapping[str, Estimate]
    """By generated set: captions of either kind told apart by mean colour. Empty where the data
    has no such captions."""
    copies: CopyCheck
    nearest: NearestTiles
    """Of the final model's images, for the picture of the closest pairs."""


def evaluate_images(
    reference: ImageSet,
    sets: Mapping[str, ImageSet],
    training: ImageSet,
    *,
    grounds: tuple[str, str],
    draws: int = 1000,
    seed: int = 0,
) -> ImageFigures:
    """Compute every figure.

    Args:
        reference: held-out real images.
        sets: at least `real`, `reconstructed` (of the reference, in its order), `untrained` and
            `model`; further generated sets by name.
        training: what the generator learned from; its features are not looked at.
        grounds: two words of captions that a colour can tell apart.
        draws: bootstrap resamples.
        seed: fixes them.
    """
    missing = {FLOOR, RECONSTRUCTED, UNTRAINED, MODEL} - sets.keys()
    if missing:
        raise ValueError(f"an evaluation of images needs the sets {', '.join(sorted(missing))}")
    table = kernel_distances(
        reference.feature_set,
        {name: one.feature_set for name, one in sets.items()},
        draws=draws,
        seed=seed,
    )
    figures = {}
    for name, one in sets.items():
        coverage, density = coverage_density(
            reference.feature_set, one.feature_set, draws=draws, seed=seed
        )
        distance = frechet_estimate(reference.feature_set, one.feature_set, seed=seed)
        figures[name] = SetFigures(table.estimates[name], distance, coverage, density)
    nearest = nearest_training_tiles(sets[MODEL].images, training.images)
    return ImageFigures(
        sets=figures,
        ratios=_ratios(table),
        psnr=mean_estimate(
            psnr(reference.images, sets[RECONSTRUCTED].images),
            reference.groups,
            draws=draws,
            seed=seed,
        ),
        obedience=_obedience(sets, training, grounds, draws, seed),
        copies=copy_check(
            nearest,
            nearest_training_tiles(reference.images, training.images),
            sets[MODEL].groups,
            reference.groups,
            draws=draws,
            seed=seed,
        ),
        nearest=nearest,
    )


def _ratios(table: DistanceTable) -> dict[str, Estimate]:
    """Relations between kernel distances, each with the interval of its own joint draws.

    - `reconstructed_to_untrained`, `generated_to_untrained`: plain ratios;
    - `generated_gap`: (generated - reconstructed) / (untrained - reconstructed), what is left of
      the way from an untrained generator to the autoencoder's own limit;
    - `diga_change`: generated - generated before the last DIGA phase.
    """

    def related(values: Mapping[str, float | Floats], name: str) -> float | Floats:
        rec, gen, unt = values[RECONSTRUCTED], values[MODEL], values[UNTRAINED]
        if name == "reconstructed_to_untrained":
            return rec / unt
        if name == "generated_to_untrained":
            return gen / unt
        if name == "generated_gap":
            return (gen - rec) / (unt - rec)
        return gen - values[BEFORE_DIGA]

    names = ["reconstructed_to_untrained", "generated_to_untrained", "generated_gap"]
    names += ["diga_change"] if BEFORE_DIGA in table.estimates else []
    points = {name: one.value for name, one in table.estimates.items()}
    return {
        name: table.derived(
            float(related(points, name)),
            np.asarray(related(table.samples, name)),
            of=RECONSTRUCTED if name == "reconstructed_to_untrained" else MODEL,
        )
        for name in names
    }


def _labels(captions: Sequence[str], grounds: tuple[str, str]) -> list[tuple[int, int]]:
    """(position, class) of the captions that one of the two words leads."""
    found = ((i, leading_ground(caption, grounds)) for i, caption in enumerate(captions))
    return [(index, label) for index, label in found if label is not None]


def _obedience(
    sets: Mapping[str, ImageSet],
    training: ImageSet,
    grounds: tuple[str, str],
    draws: int,
    seed: int,
) -> dict[str, Estimate]:
    fitted = _labels(training.captions, grounds)
    if {label for _, label in fitted} != {0, 1}:
        return {}
    rule = ColourRule.fit(training.images[[i for i, _ in fitted]], [label for _, label in fitted])
    out = {}
    for name, one in sets.items():
        chosen = _labels(one.captions, grounds)
        if {label for _, label in chosen} != {0, 1}:
            continue
        out[name] = obedience(
            rule,
            one.images[[i for i, _ in chosen]],
            [label for _, label in chosen],
            [one.groups[i] for i, _ in chosen],
            draws=draws,
            seed=seed,
        )
    return out
