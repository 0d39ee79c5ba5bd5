"""A detector over many images, a batch in memory at a time: scores, answers, perturbed scores."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from unigendet.benchmarking.perturbations import Perturbation
from unigendet.data.benchmarks.base import BenchmarkItem
from unigendet.data.benchmarks.samples import read_picture
from unigendet.data.degradations import Pixels
from unigendet.data.image_files import ImageError
from unigendet.evaluation import Judgement


class Detect(Protocol):
    """Whatever judges images: `inference.UniGenDet.detect`, or a stand-in."""

    def __call__(self, images: Sequence[Pixels], *, explain: bool) -> Sequence[Judgement]: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one image."""

    score: float
    """P(fake) in [0, 1]; NaN where the image could not be read."""
    answer: str = ""
    perturbed: tuple[float, ...] = ()
    """P(fake) after each perturbation, or NaN where the picture could not be changed so."""
    problem: str = ""
    """Why the image could not be read."""


def judge_pictures(
    detect: Detect,
    images: Sequence[Pixels],
    keys: Sequence[str],
    *,
    explain: bool,
    perturbations: Sequence[Perturbation] = (),
) -> list[Outcome]:
    """Judge (H, W, 3) uint8 images as they are, then after each perturbation, all alike."""
    found = detect(images, explain=explain)
    assert len(found) == len(images), "a detector must judge every image"
    columns = []
    for one in perturbations:
        changed = [_changed(one, image, key) for image, key in zip(images, keys, strict=True)]
        there = [image for image in changed if image is not None]
        scores = iter([judged.score for judged in detect(there, explain=False)] if there else ())
        columns.append([math.nan if image is None else next(scores) for image in changed])
    perturbed = zip(*columns, strict=True) if columns else [()] * len(images)
    return [
        Outcome(judged.score, judged.explanation, tuple(scores))
        for judged, scores in zip(found, perturbed, strict=True)
    ]


def _changed(perturbation: Perturbation, image: Pixels, key: str) -> Pixels | None:
    try:
        return perturbation.apply(image, key)
    except ImageError:
        return None


def judge_items(
    detect: Detect,
    items: Sequence[BenchmarkItem],
    *,
    batch_size: int,
    explain: bool,
    perturbations: Sequence[Perturbation] = (),
) -> Iterator[Outcome]:
    """One outcome for each item, in their order. A batch is read while another is judged."""
    unknown = (math.nan,) * len(perturbations)
    for batch, pictures in _batches(items, batch_size):
        readable = [at for at, picture in enumerate(pictures) if not isinstance(picture, str)]
        images = [picture for picture in pictures if not isinstance(picture, str)]
        keys = [batch[at].key for at in readable]
        judged = (
            judge_pictures(detect, images, keys, explain=explain, perturbations=perturbations)
            if images
            else []
        )
        found = dict(zip(readable, judged, strict=True))
        for at, picture in enumerate(pictures):
            yield found[at] if at in found else Outcome(math.nan, "", unknown, str(picture))


def _batches(
    items: Sequence[BenchmarkItem], size: int
) -> Iterator[tuple[Sequence[BenchmarkItem], list[Pixels | str]]]:
    batches = [items[start : start + size] for start in range(0, len(items), size)]
    # One thread: rows of a parquet group are unpacked together, and several would each do it.
    with ThreadPoolExecutor(1) as reader:
        ahead = [reader.submit(_read, batch) for batch in batches[:1]]
        for at, batch in enumerate(batches):
            pictures = ahead.pop().result()
            ahead += [reader.submit(_read, following) for following in batches[at + 1 : at + 2]]
            yield batch, pictures


def _read(items: Sequence[BenchmarkItem]) -> list[Pixels | str]:
    """Pictures, or why one could not be read."""
    found: list[Pixels | str] = []
    for item in items:
        try:
            found.append(np.asarray(read_picture(item)))
        except ImageError as error:
            found.append(str(error))
    return found
