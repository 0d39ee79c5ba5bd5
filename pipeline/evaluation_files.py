"""The files of the evaluation's out beside metrics.json and its records: ROC points, pictures."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.artifacts import write_json
from pipeline.sheets import write_sheet
from unigendet.evaluation import SUITES
from unigendet.image_evaluation import MODEL, ImageSet
from unigendet.metrics.detection import roc_curve
from unigendet.metrics.samples import NearestTiles
from unigendet.types import EvalRecord

ROC = "roc.csv"
SAMPLES = "samples.json"
"""What is on the sheets: captions of each, and which pairs are on `closest.png`."""
CLOSEST = "closest"
CLOSEST_COUNT = 16
"""Pairs of generated image and nearest training image, one above the other in the sheet."""


def write_roc(path: Path, records: Sequence[EvalRecord]) -> None:
    """Operating points of each suite that has both classes, for `dvc plots`."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["suite", "false_alarm", "detection"])
        for suite in SUITES:
            rows = [record for record in records if record.suite == suite]
            if len({record.fake for record in rows}) < 2:
                continue
            curve = roc_curve([r.fake for r in rows], [r.score for r in rows])
            for x, y in zip(curve.false_alarm, curve.detection, strict=True):
                writer.writerow([suite, f"{x:.5f}", f"{y:.5f}"])


def write_sheets(
    folder: Path, made: Mapping[str, ImageSet], nearest: NearestTiles, training: ImageSet
) -> list[Path]:
    """A sheet for each set and one of the closest pairs; `samples.json` says what is on them."""
    listing: dict[str, object] = {}
    for name, one in made.items():
        write_sheet(folder / f"{name}.png", one.images)
        listing[name] = {"captions": one.captions, "size": one.images.shape[1:3]}
    closest = np.argsort(nearest.distance)[:CLOSEST_COUNT]
    images = [made[MODEL].images[closest], training.images[nearest.index[closest]]]
    write_sheet(folder / f"{CLOSEST}.png", np.concatenate(images))
    listing[CLOSEST] = {
        "generated": [int(index) for index in closest],
        "distances": [round(float(nearest.distance[index]), 2) for index in closest],
        "size": images[0].shape[1:3],
    }
    write_json(folder / SAMPLES, listing)
    return [folder / f"{name}.png" for name in listing]
