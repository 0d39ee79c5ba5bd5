"""Written answers held against references and against their images: one row for each suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from unigendet.evaluation import SUITES
from unigendet.evidence import Evidence
from unigendet.explanations import Explainer, statements_in
from unigendet.metrics.bootstrap import Estimate, Floats, mean_estimate
from unigendet.metrics.text import rouge_l, sentence_similarity, tfidf_similarity
from unigendet.types import EvalRecord


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
