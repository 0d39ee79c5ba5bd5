"""What is told of a judged set: figures by generator, robustness, and what could not be read."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unigendet.benchmarking.headers import source_of
from unigendet.benchmarking.judging import Outcome
from unigendet.benchmarking.perturbations import KINDS, Perturbation
from unigendet.benchmarking.selection import Selection
from unigendet.data.benchmarks.base import BenchmarkError, Skipped
from unigendet.data.verdicts import parse_verdict
from unigendet.evaluation import (
    ALL,
    MEAN,
    DetectionRow,
    detection_figures,
    detection_row,
    detection_table,
    mean_row,
)
from unigendet.figures import figure
from unigendet.metrics.bootstrap import Estimate
from unigendet.metrics.detection import detection_estimates
from unigendet.types import EvalRecord

ONE_CLASS = ("recall_real", "recall_fake")
"""All that can be told of one class."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A selection with what a detector said of it."""

    label: str
    """The suite of its records."""
    selection: Selection
    records: tuple[EvalRecord, ...]
    """Of what could be read, in the set's order. A real image carries the generator that its set
    counts it under."""
    perturbed: Mapping[Perturbation, tuple[float, ...]]
    """A score for each record."""
    unreadable: tuple[Skipped, ...]

    def table(self, *, draws: int = 1000, seed: int = 0) -> list[DetectionRow]:
        """A row for each generator against its reals, the mean over generators, and all pooled. A
        row of one class has `ONE_CLASS` figures only."""
        suite, against = self.label, self.selection.benchmark.judged_against
        rows = detection_table(
            self.records, suites=(suite,), against=against, draws=draws, seed=seed
        )
        if not rows:  # real images only
            rows = [detection_row(suite, ALL, self.records, draws=draws, seed=seed)]
        mean = mean_row(self.records, suite, against, draws=draws, seed=seed)
        rows[-1:-1] = [] if mean is None else [mean]
        return [_as_far_as_known(row) for row in rows]


def collect(
    label: str,
    selection: Selection,
    outcomes: Sequence[Outcome],
    perturbations: Sequence[Perturbation] = (),
) -> Judged:
    """Put one outcome for each item of the selection, in its order, together.

    Raises BenchmarkError where no image could be read.
    """
    records, unreadable, scores = list[EvalRecord](), list[Skipped](), list[tuple[float, ...]]()
    for item, outcome in zip(selection.items, outcomes, strict=True):
        if outcome.problem:
            unreadable.append(Skipped(item.name, outcome.problem))
            continue
        scores.append(outcome.perturbed)
        records.append(
            EvalRecord(
                key=item.key,
                source_id=source_of(item),
                suite=label,
                generator=_generator(label, item.generator),
                fake=item.is_fake,
                score=outcome.score,
                answer=outcome.answer,
                reference=item.explanation,
                answer_fake=parse_verdict(outcome.answer),
            )
        )
    if not records:
        raise BenchmarkError(
            f"{selection.place}: none of {len(unreadable)} images could be read, "
            f"first {unreadable[0].reason}"
        )
    columns = zip(*scores, strict=True) if perturbations else ()
    perturbed = dict(zip(perturbations, columns, strict=True))
    return Judged(label, selection, tuple(records), perturbed, tuple(unreadable))


def _generator(label: str, name: str) -> str:
    """As the set spells it, unless that is the name of a row about several of them."""
    return f"{name} of {label}" if name in (ALL, MEAN) else name


def robustness(
    records: Sequence[EvalRecord],
    perturbed: Mapping[Perturbation, Sequence[float]],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """`kind`, `strength` and `auroc` of all records together, each kind from untouched onwards;
    empty where a class is missing."""
    if len({record.fake for record in records}) < 2:
        return []

    def auroc(scores: Sequence[float]) -> Estimate:
        fake, groups = [r.fake for r in records], [r.source_id for r in records]
        return detection_estimates(fake, scores, groups, draws=draws, seed=seed)["auroc"]

    untouched = figure(auroc([r.score for r in records]), seed) if perturbed else {}
    out = []
    for kind in dict.fromkeys(one.kind for one in perturbed):
        start = KINDS[kind].untouched
        out.append({"kind": kind, "strength": start, "auroc": untouched})
        own = sorted(
            (one for one in perturbed if one.kind == kind), key=lambda p: abs(p.strength - start)
        )
        for one in own:
            found = figure(auroc(perturbed[one]), seed)
            out.append({"kind": kind, "strength": one.strength, "auroc": found})
    return out


def to_json(
    judged: Judged, audit: Mapping[str, Any] | None, *, draws: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """All of it as metrics.json holds it; `audit` as `AuditResult.to_json` gives it."""
    selection = judged.selection
    rows = judged.table(draws=draws, seed=seed)
    return {
        "set": selection.benchmark.name,
        "title": selection.benchmark.title,
        "split": selection.split,
        "images": {
            "listed": selection.listed,
            "chosen": len(selection.items),
            "judged": len(judged.records),
        },
        "one_class": selection.problem,
        "detection": detection_figures(rows, seed)[judged.label],
        "audit": audit,
        "robustness": robustness(judged.records, judged.perturbed, draws=draws, seed=seed),
        "unreadable": [dataclasses.asdict(one) for one in judged.unreadable],
        "left_out": [dataclasses.asdict(one) for one in selection.left_out],
    }


def provenance(selection: Selection, limit: int | None) -> dict[str, Any]:
    """What was read: the place, how much of it, and the digest that pins it."""
    return {
        "set": selection.benchmark.name,
        "path": selection.place,
        "split": selection.split,
        "limit": limit,
        "images": len(selection.items),
        "sha256_of_list": selection.digest(),
    }


def _as_far_as_known(row: DetectionRow) -> DetectionRow:
    if row.fakes and row.reals:
        return row
    known = {
        name: row.figures[name] for name in ONE_CLASS if math.isfinite(row.figures[name].value)
    }
    return dataclasses.replace(row, figures=known)
