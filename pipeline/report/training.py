"""How it was trained: loss curves, and the rounds of co-evolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.artifacts import SUMMARY, read_json
from pipeline.report import charts
from pipeline.report.html import (
    Content,
    Markup,
    element,
    figure,
    paragraph,
    section,
)
from pipeline.report.inputs import HistoryRow, ReportInputs

STAGES = {
    "pretrain_generator": "Learning to draw",
    "pretrain_detector": "Learning to detect",
    "coevolve": "Learning together",
}
TERMS = {
    "text_loss": "explanation loss",
    "det_loss": "verdict loss",
    "align_loss": "alignment loss",
    "align_weight": "weight of the alignment loss",
    "total": "total loss",
}


def training_section(inputs: ReportInputs) -> Markup:
    parts: list[Content] = []
    for stage, title in STAGES.items():
        rows = inputs.history(stage)
        if rows:
            parts += [element("h3", title), element("div", *_curves(rows), class_="charts small")]
    return section(
        "training",
        "Training",
        paragraph(
            "Each curve is the mean of a loss term over the steps since the point before it. "
            "Phases that repeat are drawn one after another, so a step in a curve is the start of "
            "a new phase with its own mix of tasks."
        ),
        *parts,
    )


def _curves(rows: Sequence[HistoryRow]) -> list[Markup]:
    """A chart for each loss term: of each phase by itself, or of all rounds along one axis."""
    phases = list(dict.fromkeys(row.phase for row in rows))
    if all("_" in phase and phase.startswith("round") for phase in phases):
        return _of_rounds(rows, phases)
    shown = []
    for phase in phases:
        mine = [row for row in rows if row.phase == phase]
        for term in _terms(mine):
            points = [row for row in mine if term in row.terms]
            line = ([float(r.step) for r in points], [r.terms[term] for r in points])
            title = f"{phase.replace('_', ' ')}: {_words(term)}"
            shown.append(figure(charts.lines(title, "optimizer steps", "", {phase: line})))
    return shown


def _of_rounds(rows: Sequence[HistoryRow], phases: Sequence[str]) -> list[Markup]:
    """One axis of steps for all phases, a colour for each kind of phase, a gap between phases."""
    offset, start = dict[str, int](), 0
    for phase in phases:
        offset[phase] = start
        start += max(row.step for row in rows if row.phase == phase)
    kinds = list(dict.fromkeys(phase.split("_")[1] for phase in phases))
    shown = []
    for term in _terms(rows):
        series: dict[str, charts.Line] = {}
        for kind in kinds:
            xs, ys = list[float](), list[float]()
            for phase in phases:
                mine = [r for r in rows if r.phase == phase and phase.endswith(f"_{kind}")]
                points = [r for r in mine if term in _terms(mine)]
                if points:
                    xs += [*(float(offset[phase] + r.step) for r in points), float("nan")]
                    ys += [*(r.terms[term] for r in points), float("nan")]
            if xs:
                series[kind.upper()] = (xs, ys)
        title = _words(term)
        shown.append(figure(charts.lines(title, "optimizer steps", "", series, until=start)))
    return shown


def _terms(rows: Sequence[HistoryRow]) -> list[str]:
    """The loss terms that are in use; their total only where it is the sum of several."""
    terms = list(dict.fromkeys(t for row in rows for t, value in row.terms.items() if value != 0.0))
    return [term for term in terms if term != "total" or len(terms) > 2]


def _words(term: str) -> str:
    return TERMS.get(term, term.replace("_", " "))


def _summary(inputs: ReportInputs) -> dict[str, Any]:
    path = inputs.file("coevolve", SUMMARY)
    loaded: dict[str, Any] = read_json(path) if path else {}
    return loaded
