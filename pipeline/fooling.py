"""Who fools whom: every detector of a co-evolution judges what every generator of it drew.

All generators draw for the same real validation images, so a row shows how one detector does
against generators that grew, a column how one generator fares with detectors that did. A worse
generator makes a better-looking detector: these scores are read here, as a matrix, and are in no
other figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.artifacts import write_json
from pipeline.half_rounds import HalfRounds
from pipeline.heat_map import WHO_FOOLS_WHOM, draw_heat_map, size_of
from pipeline.phases import phase_label
from unigendet.figures import Figure, figure

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unigendet.metrics.bootstrap import Estimate

PICTURE = "who_fools_whom.png"
_REAL = "real"
_DRAWS = 500


def who_fools_whom(half_rounds: HalfRounds, models: Mapping[str, Path], folder: Path) -> None:
    """Let each of `models` (half-round -> folder) judge what all drew; write JSON and picture."""
    session = half_rounds.session
    if not session.leader:
        return
    asked = half_rounds.asked()
    images = {_REAL: [sample.image for sample in asked]}
    images |= {name: list(half_rounds.drawn(name)) for name in models}
    scores = {}
    for name, model in models.items():
        session.say(f"who fools whom: {phase_label(name)} judges")
        scores[name] = _scores(half_rounds, model, images)
    sources = [sample.source_id for sample in asked]
    drawing, seed = half_rounds.section.samples, half_rounds.data.seed
    matrix = {
        "images": len(sources),
        "steps": drawing.steps,
        "guidance": drawing.guidance,
        "half_rounds": list(models),
        **matrix_of(scores, sources, seed),
        "kd": {
            name: figure(estimate, seed)
            for name, estimate in _distances(half_rounds, sources, list(models)).items()
        },
    }
    write_json(folder / WHO_FOOLS_WHOM, matrix)
    _draw(folder / PICTURE, matrix)


def _scores(
    half_rounds: HalfRounds, detector: Path, images: Mapping[str, Sequence[NDArray[np.uint8]]]
) -> dict[str, Sequence[float]]:
    """P(fake) of every image, by the same names; all in the same batches."""
    from unigendet.inference import UniGenDet

    model = UniGenDet.from_pretrained(detector, half_rounds.session.device)
    together = [image for part in images.values() for image in part]
    found = model.detect(together, explain=False)
    scores = np.array([one.score for one in found]).reshape(len(images), -1)
    return dict(zip(images, scores.tolist(), strict=True))


def matrix_of(
    scores: Mapping[str, Mapping[str, Sequence[float]]],
    sources: Sequence[str],
    seed: int,
) -> dict[str, Any]:
    """The cells (detector -> generator -> figures), and each detector's figures on real images.

    A cell has `auroc` of the generator's images against the real ones, `mean_score` (P(fake)) of
    the generator's, and `fooled`, the share of them with a score of at most 0.5. Intervals
    resample sources; an image and the real one of its caption share theirs.

    Args:
        scores: detector -> generator, or `real` -> (n,) P(fake), in the order of `sources`.
        sources: (n,) source ids of the real images.
    """
    from unigendet.metrics.bootstrap import mean_estimate
    from unigendet.metrics.detection import THRESHOLD

    def mean(values: NDArray[np.float64]) -> Figure:
        return figure(mean_estimate(values, sources, draws=_DRAWS, seed=seed), seed)

    def above(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return (values > THRESHOLD).astype(np.float64)

    cells: dict[str, dict[str, dict[str, Figure]]] = {}
    reals: dict[str, dict[str, Figure]] = {}
    for detector, given in scores.items():
        arrays = {name: np.array(values, dtype=np.float64) for name, values in given.items()}
        real = arrays.pop(_REAL)
        reals[detector] = {"mean_score": mean(real), "called_fake": mean(above(real))}
        cells[detector] = {
            generator: {
                "auroc": figure(_auroc(real, drawn, sources, seed), seed),
                "mean_score": mean(drawn),
                "fooled": mean(1.0 - above(drawn)),
            }
            for generator, drawn in arrays.items()
        }
    return {"reals": reals, "cells": cells}


def _auroc(
    real: NDArray[np.float64], drawn: NDArray[np.float64], sources: Sequence[str], seed: int
) -> Estimate:
    from unigendet.metrics.bootstrap import estimate
    from unigendet.metrics.detection import area_under, roc_curve

    fake = np.repeat([False, True], len(sources))
    scores = np.concatenate([real, drawn])
    return estimate(
        lambda weights: area_under(roc_curve(fake, scores, weights)),
        [*sources, *sources],
        draws=_DRAWS,
        seed=seed,
    )


def _distances(
    half_rounds: HalfRounds, sources: Sequence[str], names: Sequence[str]
) -> dict[str, Estimate]:
    """Kernel distance of what each half-round drew to real validation images."""
    from unigendet.metrics.generation import FeatureSet, kernel_distances

    reference = tuple(sample.source_id for sample in half_rounds.reference())
    table = kernel_distances(
        FeatureSet(half_rounds.features(), reference),
        {name: FeatureSet(half_rounds.features(name), tuple(sources)) for name in names},
        seed=half_rounds.data.seed,
    )
    return table.estimates


def _draw(path: Path, matrix: Mapping[str, Any]) -> None:
    from matplotlib import figure as matplotlib_figure

    drawing = matplotlib_figure.Figure(figsize=size_of(matrix), layout="constrained", dpi=110)
    draw_heat_map(drawing.add_subplot(), matrix)
    drawing.savefig(path)
