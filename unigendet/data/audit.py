"""The codec-and-size audit: can real and fake be told apart without looking at the picture?

A classifier sees facts of the file's header alone: format, colour mode, size, quantisation
tables, chroma subsampling. Where it beats chance, a detector trained on the same files may have
learned the codec. Folds are grouped by `source_id`, and scores are compared within a fold only:
ungrouped folds, or scores pooled over folds of different class balance, push a blind classifier
far from 0.5.

Bytes per pixel and blockiness are measured beside it. They also see the picture (a blurred fake
compresses better), so they are reported and decide nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from unigendet.data.encoding import decode_stored
from unigendet.data.image_header import HeaderFacts, header_facts
from unigendet.data.manifest import SampleEntry, read_originals
from unigendet.data.shards import ShardDataset
from unigendet.metrics.bootstrap import Estimate, estimate

FOLDS = 5
CHANCE, LIMIT = 0.5, 0.6
"""The interval of the AUROC must hold the first and end below the second."""
MOST = 8000
"""Images that are audited, at most: a larger set is represented by some of its sources."""
BLOCK = 8
"""Side of a JPEG block in pixels."""

Floats = NDArray[np.float64]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AuditItem:
    """One image file."""

    facts: HeaderFacts
    source_id: str
    fake: bool
    blockiness: float | None = None
    """None where the picture was not decoded."""

    @classmethod
    def of(cls, data: bytes, source_id: str, fake: bool) -> Self:
        """Measure an encoded image."""
        return cls(header_facts(data), source_id, fake, blockiness(decode_stored(data)))


@dataclass(frozen=True, slots=True)
class AuditResult:
    """AUROCs are P(a fake ranks above a real one), with 95 % intervals over sources."""

    auroc: Estimate
    """Of the header classifier, out of fold."""
    passed: bool
    """Whether its interval holds 0.5 and ends below 0.6."""
    formats: tuple[str, ...]
    sizes: tuple[str, ...]
    bytes_per_pixel: Estimate
    """Reported, not gated; below 0.5 where fakes compress better."""
    blockiness: Estimate | None
    """Reported, not gated; None where it was not measured."""

    @property
    def shortcut(self) -> bool:
        """Whether headers may tell the classes apart: the interval ends above 0.6."""
        return math.isfinite(self.auroc.high) and self.auroc.high > LIMIT

    def to_json(self) -> dict[str, Any]:
        """The fields and `shortcut`; what is undefined is null."""

        def plain(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: plain(inner) for name, inner in value.items()}
            return None if isinstance(value, float) and not math.isfinite(value) else value

        return {**plain(asdict(self)), "shortcut": self.shortcut}


def can_audit(items: Sequence[AuditItem]) -> bool:
    """Whether there are two files of each class, and two sources, to hold one of them out."""
    fakes = sum(item.fake for item in items)
    return min(fakes, len(items) - fakes) > 1 and len({item.source_id for item in items}) > 1


def audit(items: Sequence[AuditItem], *, draws: int = 500, seed: int = 0) -> AuditResult:
    """Audit real against fake files. Raises ValueError where `can_audit` says no."""
    fake = np.array([item.fake for item in items], dtype=bool)
    groups = [item.source_id for item in items]
    if fake.all() or not fake.any():
        raise ValueError("the audit compares real with fake files: one of the classes is missing")
    if not can_audit(items):
        raise ValueError(
            "the audit needs two files of each class, and files of at least two sources, to hold "
            "one of them out"
        )
    facts = [item.facts for item in items]
    scores, folds = _out_of_fold_scores(_features(facts), fake, groups, seed)
    auroc = _ranking_estimate(scores, fake, folds, groups, draws, seed)
    one_fold = np.zeros(len(items), dtype=np.int64)
    densities = np.array([fact.bytes / (fact.width * fact.height) for fact in facts])
    blocks = [item.blockiness for item in items if item.blockiness is not None]
    return AuditResult(
        auroc=auroc,
        passed=auroc.low <= CHANCE <= auroc.high < LIMIT,
        formats=tuple(sorted({fact.format for fact in facts})),
        sizes=tuple(sorted({f"{fact.width}x{fact.height}" for fact in facts})),
        bytes_per_pixel=_ranking_estimate(densities, fake, one_fold, groups, draws, seed),
        blockiness=_ranking_estimate(np.array(blocks), fake, one_fold, groups, draws, seed)
        if len(blocks) == len(items)
        else None,
    )


def stored_items(datasets: Sequence[ShardDataset], *, seed: int = 0) -> list[AuditItem]:
    """The stored image files of some sets."""
    return [
        AuditItem.of(dataset.image_file(position), entry.source_id, entry.fake)
        for dataset, position, entry in _chosen(datasets, seed)
    ]


def original_items(dataset: ShardDataset, *, seed: int = 0) -> list[AuditItem]:
    """The files that a whole set was read from, blockiness as stored; those that are known."""
    originals = read_originals(dataset.folder, dataset.name)
    assert len(originals) == len(dataset), "positions count the whole set"
    items = []
    for _, position, entry in _chosen([dataset], seed):
        facts = originals[position]
        if facts is not None:
            blocks = blockiness(decode_stored(dataset.image_file(position)))
            items.append(AuditItem(facts, entry.source_id, entry.fake, blocks))
    return items


def _chosen(
    datasets: Sequence[ShardDataset], seed: int
) -> list[tuple[ShardDataset, int, SampleEntry]]:
    every = [(data, place, entry) for data in datasets for place, entry in enumerate(data.entries)]
    return some_sources(every, lambda one: one[2].source_id, seed=seed)


def some_sources(every: Sequence[T], source_id: Callable[[T], str], *, seed: int) -> list[T]:
    """Up to `MOST` images, of whole sources, in their order: files are read forward."""
    if len(every) <= MOST:
        return list(every)
    sources = sorted({source_id(one) for one in every})
    rank = dict(zip(sources, np.random.default_rng(seed).permutation(len(sources)), strict=True))
    chosen = sorted(range(len(every)), key=lambda at: rank[source_id(every[at])])[:MOST]
    return [every[at] for at in sorted(chosen)]


def blockiness(image: NDArray[np.uint8]) -> float:
    """(H, W, 3): mean luminance step across the borders of 8 x 8 blocks over that elsewhere."""
    light = image @ np.array([0.299, 0.587, 0.114])
    border, inside = [], []
    for steps in (np.abs(np.diff(light, axis=0)), np.abs(np.diff(light, axis=1)).T):
        at_border = np.arange(1, len(steps) + 1) % BLOCK == 0
        border.append(steps[at_border].mean() if at_border.any() else 0.0)
        inside.append(steps[~at_border].mean())
    return float(np.mean(border) / max(float(np.mean(inside)), 1e-6))


def _features(facts: Sequence[HeaderFacts]) -> Floats:
    """(N, F): sizes and table means as numbers, kinds as one column per value."""
    tables = max(len(fact.table_means) for fact in facts)
    numbers = np.array(
        [
            [fact.width, fact.height, *fact.table_means, *[-1.0] * (tables - len(fact.table_means))]
            for fact in facts
        ]
    )
    named = zip(*((fact.format, fact.mode, fact.subsampling) for fact in facts), strict=True)
    kinds = [
        np.array([value == known for value in values], dtype=np.float64)
        for values in named
        for known in sorted(set(values))
    ]
    return np.column_stack([numbers, *kinds])


def _out_of_fold_scores(
    features: Floats, fake: NDArray[np.bool_], groups: Sequence[str], seed: int
) -> tuple[Floats, NDArray[np.int64]]:
    """Score of each file by a tree that saw no file of its source, and its fold."""
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.tree import DecisionTreeClassifier

    scores = np.zeros(len(fake))
    folds = np.zeros(len(fake), dtype=np.int64)
    splitter = StratifiedGroupKFold(
        n_splits=min(FOLDS, len(set(groups)), fake.sum(), (~fake).sum()),
        shuffle=True,
        random_state=seed,
    )
    for fold, (fit, held_out) in enumerate(splitter.split(features, fake, groups)):
        folds[held_out] = fold
        if fake[fit].all() or not fake[fit].any():
            continue
        tree = DecisionTreeClassifier(
            max_depth=6, min_samples_leaf=5, class_weight="balanced", random_state=seed
        )
        tree.fit(features[fit], fake[fit])
        scores[held_out] = tree.predict_proba(features[held_out])[:, 1].round(9)
    return scores, folds


def _ranking_estimate(
    scores: Floats,
    fake: NDArray[np.bool_],
    folds: NDArray[np.int64],
    groups: Sequence[str],
    draws: int,
    seed: int,
) -> Estimate:
    """P(fake above real) over pairs of one fold, ties half."""
    wins = []
    for fold in np.unique(folds):
        inside = folds == fold
        fakes, reals = np.flatnonzero(fake & inside), np.flatnonzero(~fake & inside)
        difference = scores[fakes][:, None] - scores[reals][None, :]
        wins.append((fakes, reals, 0.5 * (np.sign(difference) + 1.0)))

    def share(weights: Floats) -> float:
        won = sum(float(weights[fakes] @ win @ weights[reals]) for fakes, reals, win in wins)
        pairs = sum(float(weights[f].sum() * weights[r].sum()) for f, r, _ in wins)
        return won / pairs if pairs > 0 else float("nan")

    return estimate(share, groups, draws=draws, seed=seed)
