"""A detector judged on labelled images: one `EvalRecord` per image and suite, then tables.

Three suites ask three questions. All share the held-out real images of their domain:

- `in_domain`: new tiles, fakes by families that the detector learned from;
- `cross_generator`: the same tiles, fakes by families that it never saw;
- `cross_dataset`: another kind of image altogether, fakes by families that it never saw.

Nothing is dropped: an answer that states no verdict counts as wrong and as unparsed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from unigendet.data.verdicts import parse_verdict
from unigendet.evidence import Evidence
from unigendet.explanations import Explainer, statements_in
from unigendet.metrics.bootstrap import Estimate, Floats, estimate, mean_estimate, weighted_mean
from unigendet.metrics.detection import THRESHOLD, detection_estimates
from unigendet.metrics.text import rouge_l, sentence_similarity, tfidf_similarity
from unigendet.types import EvalRecord, Sample

IN_DOMAIN, CROSS_GENERATOR, CROSS_DATASET = "in_domain", "cross_generator", "cross_dataset"
SUITES = (IN_DOMAIN, CROSS_GENERATOR, CROSS_DATASET)
ALL = "all"
"""The row of a table that holds every family of its suite."""


class Judgement(Protocol):
    """What a detector says of one image (`inference.Detection`)."""

    @property
    def score(self) -> float:
        """P(fake) in [0, 1]."""

    @property
    def explanation(self) -> str:
        """The decoded answer; empty where none was asked for."""


class Detector(Protocol):
    """Whatever judges images, `inference.UniGenDet` or a baseline."""

    def detect(
        self, images: Sequence[NDArray[np.uint8]], *, explain: bool = True
    ) -> Sequence[Judgement]: ...


def suites_of(generator: str, trained_on: frozenset[str], *, home: bool) -> tuple[str, ...]:
    """The suites that an image belongs to.

    Args:
        generator: the family that made it, `real` for a real image.
        trained_on: families whose fakes the detector learned from.
        home: whether it comes from the domain that was trained on.
    """
    if not home:
        return (CROSS_DATASET,)
    if generator == "real":
        return (IN_DOMAIN, CROSS_GENERATOR)
    return (IN_DOMAIN,) if generator in trained_on else (CROSS_GENERATOR,)


def records_of(
    sample: Sample, suites: Sequence[str], score: float, answer: str
) -> Iterator[EvalRecord]:
    """The records of one judged image, one for each of its suites."""
    for suite in suites:
        yield EvalRecord(
            key=sample.key,
            source_id=sample.source_id,
            suite=suite,
            generator=sample.generator,
            fake=sample.fake,
            score=score,
            answer=answer,
            reference=sample.explanation,
            answer_fake=parse_verdict(answer),
        )


def judge(
    detector: Detector,
    samples: Sequence[Sample],
    trained_on: frozenset[str],
    *,
    home: bool,
    explain: bool = True,
) -> list[EvalRecord]:
    """Let a detector judge samples of one domain, in order, none dropped."""
    judgements = detector.detect([sample.image for sample in samples], explain=explain)
    assert len(judgements) == len(samples), "a detector must judge every image"
    return [
        record
        for sample, judged in zip(samples, judgements, strict=True)
        for record in records_of(
            sample,
            suites_of(sample.generator, trained_on, home=home),
            judged.score,
            judged.explanation,
        )
    ]


@dataclass(frozen=True, slots=True)
class DetectionRow:
    """One line of the detection table: fakes of one family against their suite's real images."""

    suite: str
    generator: str
    """A family, or `all`."""
    fakes: int
    reals: int
    figures: Mapping[str, Estimate]
    """Fields of `metrics.detection.DetectionFigures`, from scores."""
    verdicts: Mapping[str, Estimate]
    """What the written answers say; empty where no answer was asked for."""


def rows_of(records: Sequence[EvalRecord], suite: str) -> Iterator[tuple[str, list[EvalRecord]]]:
    """For each family of a suite, then for `all`: the suite's reals and the family's fakes."""
    chosen = [record for record in records if record.suite == suite]
    reals = [record for record in chosen if not record.fake]
    for generator in sorted({record.generator for record in chosen if record.fake}):
        yield generator, [*reals, *(record for record in chosen if record.generator == generator)]
    if len(reals) < len(chosen):
        yield ALL, chosen


def detection_table(
    records: Sequence[EvalRecord], *, draws: int = 1000, seed: int = 0
) -> list[DetectionRow]:
    """Every suite's families and, last, all of them together. Suites without fakes give no row."""
    table = []
    for suite in SUITES:
        for generator, rows in rows_of(records, suite):
            fake = [record.fake for record in rows]
            groups = [record.source_id for record in rows]
            score = [record.score for record in rows]
            table.append(
                DetectionRow(
                    suite=suite,
                    generator=generator,
                    fakes=sum(fake),
                    reals=len(fake) - sum(fake),
                    figures=detection_estimates(fake, score, groups, draws=draws, seed=seed),
                    verdicts=_verdicts(rows, draws, seed),
                )
            )
    return table


def _verdicts(rows: Sequence[EvalRecord], draws: int, seed: int) -> dict[str, Estimate]:
    if not any(record.answer for record in rows):
        return {}
    groups = [record.source_id for record in rows]
    fake = np.array([record.fake for record in rows])
    right = _floats([record.answer_fake == record.fake for record in rows])
    parsed = _floats([record.answer_fake is not None for record in rows])
    agree = _floats([record.answer_fake == (record.score > THRESHOLD) for record in rows])

    def balanced(w: Floats) -> float:
        of_fakes = weighted_mean(right, np.where(fake, w, 0.0))
        return (of_fakes + weighted_mean(right, np.where(fake, 0.0, w))) / 2.0

    return {
        "answer_balanced_accuracy": estimate(balanced, groups, draws=draws, seed=seed),
        "answer_parsed": mean_estimate(parsed, groups, draws=draws, seed=seed),
        "answer_agrees_with_score": mean_estimate(agree, groups, draws=draws, seed=seed),
    }


def _floats(values: Sequence[bool]) -> Floats:
    return np.asarray(values, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Checked:
    """The statements of written answers can be checked: what holds of each image, by sample key."""

    explainer: Explainer
    evidence: Mapping[str, Evidence]

    def share_true(self, answers: Sequence[str], keys: Sequence[str]) -> Floats:
        """Of each answer's statements the share that holds of the image; NaN where none is made."""
        shares = []
        for answer, key in zip(answers, keys, strict=True):
            made = statements_in(answer)
            holds = [self.explainer.holds(statement, self.evidence[key]) for statement in made]
            shares.append(sum(holds) / len(holds) if holds else float("nan"))
        return np.asarray(shares, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class ExplanationRow:
    """How near the written answers of one suite are to the references, and how true."""

    suite: str
    figures: Mapping[str, Estimate]
    """`rouge_l`, `tfidf_css`, `minilm_css` in [0, 1], and `statements_true`, the mean share of an
    answer's statements that hold of its image. Each also with `_other`: the same answers held
    against other images of the same class. Only the difference is about the image."""


def explanation_table(
    records: Sequence[EvalRecord],
    checked: Checked | None = None,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> list[ExplanationRow]:
    """One row for each suite with references; answers without one lower `n` below `n_total`."""
    suites, totals = dict[str, list[EvalRecord]](), dict[str, int]()
    for suite in SUITES:
        every = [record for record in records if record.suite == suite and record.answer]
        rows = [record for record in every if record.reference]
        if rows:
            suites[suite], totals[suite] = rows, len(every)
    values = _text_values(suites, checked, seed)
    return [
        ExplanationRow(suite, _text_figures(rows, values[suite], totals[suite], draws, seed))
        for suite, rows in suites.items()
    ]


def _text_values(
    suites: Mapping[str, Sequence[EvalRecord]], checked: Checked | None, seed: int
) -> dict[str, dict[str, Floats]]:
    """suite -> metric -> one value per row; all suites go through a metric at once, for speed."""
    rows = [record for suite in suites.values() for record in suite]
    partners = [suite[other] for suite in suites.values() for other in _others(suite, seed)]
    answers = [record.answer for record in rows]
    columns: dict[str, Floats] = {}
    for suffix, against in (("", rows), ("_other", partners)):
        references = [record.reference for record in against]
        columns["rouge_l" + suffix] = rouge_l(answers, references)
        columns["tfidf_css" + suffix] = tfidf_similarity(answers, references)
        columns["minilm_css" + suffix] = sentence_similarity(answers, references)
        if checked is not None:
            keys = [record.key for record in against]
            columns["statements_true" + suffix] = checked.share_true(answers, keys)
    ends = np.cumsum([len(suite) for suite in suites.values()])[:-1]
    split = {name: np.split(column, ends) for name, column in columns.items()}
    return {
        suite: {name: parts[place] for name, parts in split.items()}
        for place, suite in enumerate(suites)
    }


def _text_figures(
    rows: Sequence[EvalRecord], values: Mapping[str, Floats], total: int, draws: int, seed: int
) -> dict[str, Estimate]:
    groups = np.asarray([record.source_id for record in rows])
    figures = {}
    for name, column in values.items():
        known = np.isfinite(column)
        if known.any():
            found = mean_estimate(column[known], groups[known], draws=draws, seed=seed)
            figures[name] = replace(found, n_total=total)
    return figures


def _others(rows: Sequence[EvalRecord], seed: int) -> list[int]:
    """For each record the position of another one of its class, by a turn of a shuffled ring."""
    generator = np.random.default_rng(seed)
    found = list(range(len(rows)))
    for fake in (False, True):
        members = [index for index, record in enumerate(rows) if record.fake == fake]
        ring = generator.permutation(members)
        for here, there in zip(ring, np.roll(ring, 1), strict=True):
            found[here] = int(there)
    return found
