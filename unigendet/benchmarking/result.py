"""What is told of a judged set: figures by generator, robustness, and what could not be read."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unigendet.benchmarking.headers import Progress, source_of
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
    mean_row,
    rows_of,
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
    """A score for each record; NaN where the picture could not be changed so."""
    unreadable: tuple[Skipped, ...]
    unperturbed: tuple[Skipped, ...]
    """Pictures that could not be changed by some perturbation."""
    repeats: frozenset[str]
    """Keys of records whose image, linked into several folders, another record stands for: all
    images pooled hold it once."""

    def table(
        self, *, draws: int = 1000, seed: int = 0, progress: Progress | None = None
    ) -> list[DetectionRow]:
        """A row for each generator against its reals, the mean over generators, and all pooled. A
        row of one class has `ONE_CLASS` figures only."""
        suite, against = self.label, self.selection.benchmark.judged_against
        generators = {record.generator for record in self.records if record.fake}
        rows, total = list[DetectionRow](), len(generators) + 1 + (len(generators) > 1)

        def add(row: DetectionRow) -> None:
            rows.append(row)
            if progress is not None:
                progress(len(rows), total)

        for generator, records in rows_of(self.records, suite, against, self.repeats):
            if generator == ALL:
                mean = mean_row(self.records, suite, against, draws=draws, seed=seed)
                if mean is not None:
                    fakes = sum(record.fake for record in records)
                    add(dataclasses.replace(mean, fakes=fakes, reals=len(records) - fakes))
            add(detection_row(suite, generator, records, draws=draws, seed=seed))
        if not rows:  # real images only
            once = [record for record in self.records if record.key not in self.repeats]
            add(detection_row(suite, ALL, once, draws=draws, seed=seed))
        return [_as_far_as_known(row) for row in rows]

    def pooled(self) -> tuple[list[EvalRecord], dict[Perturbation, list[float]]]:
        """Every image once, and its perturbed scores."""
        once = [at for at, record in enumerate(self.records) if record.key not in self.repeats]
        scores = {kind: [column[at] for at in once] for kind, column in self.perturbed.items()}
        return [self.records[at] for at in once], scores


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
    unperturbed, met, repeats = list[Skipped](), set[str](), set[str]()
    for item, outcome in zip(selection.items, outcomes, strict=True):
        if outcome.problem:
            unreadable.append(Skipped(item.name, outcome.problem))
            continue
        scores.append(outcome.perturbed)
        failed = [
            str(one)
            for one, score in zip(perturbations, outcome.perturbed, strict=True)
            if math.isnan(score)
        ]
        if failed:
            reason = f"{item.place}: too large to be judged after {', '.join(failed)}"
            unperturbed.append(Skipped(item.name, reason))
        original = item.original or item.name
        repeats.update([item.key] if original in met else [])
        met.add(original)
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
    return Judged(
        label,
        selection,
        tuple(records),
        perturbed,
        tuple(unreadable),
        tuple(unperturbed),
        frozenset(repeats),
    )


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
    empty where a class is missing. Of NaN scores only the number is told."""
    if len({record.fake for record in records}) < 2:
        return []

    def auroc(scores: Sequence[float]) -> Estimate:
        known = [at for at, score in enumerate(scores) if math.isfinite(score)]
        fake, groups = [records[at].fake for at in known], [records[at].source_id for at in known]
        if len(set(fake)) < 2:
            return Estimate(math.nan, math.nan, math.nan, len(known), 0, len(records))
        of = [scores[at] for at in known]
        found = detection_estimates(fake, of, groups, draws=draws, seed=seed)["auroc"]
        return dataclasses.replace(found, n_total=len(records))

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
    judged: Judged,
    audit: Mapping[str, Any] | None,
    *,
    draws: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """All of it as metrics.json holds it; `audit` as `AuditResult.to_json` gives it."""
    selection = judged.selection
    rows = judged.table(draws=draws, seed=seed, progress=progress)
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
        "robustness": robustness(*judged.pooled(), draws=draws, seed=seed),
        "unreadable": [dataclasses.asdict(one) for one in judged.unreadable],
        "unperturbed": [dataclasses.asdict(one) for one in judged.unperturbed],
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
