"""The rounds of co-evolution: how both sides did after each half-round, and who fools whom."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.artifacts import SUMMARY, read_json
from pipeline.heat_map import WHO_FOOLS_WHOM
from pipeline.phases import START, phase_label
from pipeline.report import charts
from pipeline.report.html import Content, Markup, element, figure, join, paragraph, section, table
from pipeline.report.inputs import ReportInputs
from pipeline.report.numbers import Measured

FIGURES = {
    "auroc": "AUROC",
    "det_loss": "verdict loss",
    "text_loss": "explanation loss",
    "flow_loss": "flow loss",
    "kd": "KD",
}
CHARTED = ("auroc", "flow_loss", "kd")
MOST = {"auroc": 1.0}


def coevolution_section(inputs: ReportInputs) -> Markup:
    path = inputs.file("coevolve", SUMMARY)
    phases: dict[str, dict[str, float]] = read_json(path).get("phases", {}) if path else {}
    if not phases:
        return Markup("")
    path = inputs.file("coevolve", WHO_FOOLS_WHOM)
    matrix: dict[str, Any] | None = read_json(path) if path else None
    return section(
        "coevolution",
        "Learning from each other",
        paragraph(_rounds(inputs)),
        _table(phases),
        _course(phases, matrix),
        _who_fools_whom(matrix) if matrix else Markup(""),
    )


def _rounds(inputs: ReportInputs) -> str:
    asked = inputs.params.coevolve
    told = f"{asked.rounds} round{'s' if asked.rounds > 1 else ''} of GDUF and DIGA. "
    if asked.rounds > 1 and asked.fresh_fakes:
        told += (
            f"Between rounds the improved generator draws {asked.fresh_fakes} fresh fakes; from "
            f"then on fresh ones are {100 * asked.fresh_share:g} % of the fakes in a batch, and "
            "the rest replays the forged families. "
        )
    return told + "After each half-round the model was validated on images it does not learn from:"


def _table(phases: Mapping[str, Mapping[str, float]]) -> Markup:
    shown = {k: label for k, label in FIGURES.items() if any(k in one for one in phases.values())}
    rows: list[list[Content]] = [
        [
            "before" if name == START else f"after {phase_label(name)}",
            *(f"{figures[key]:.4f}" if key in figures else "" for key in shown),
        ]
        for name, figures in phases.items()
    ]
    return table(
        ["", *shown.values()],
        rows,
        caption="Validation set, one seed, no interval: to follow the course, not to compare.",
    )


def _course(phases: Mapping[str, Mapping[str, float]], matrix: Mapping[str, Any] | None) -> Markup:
    """Small charts of the detector's and the generator's progress; KD has an interval."""
    names = [phase_label(name) for name in phases]
    distances: Mapping[str, Any] = matrix["kd"] if matrix else {}
    drawn = []
    for key in CHARTED:
        if not any(key in one for one in phases.values()):
            continue
        points = [
            Measured.read(distances[name])
            if key == "kd" and name in distances
            else Measured(figures.get(key), None, None, 0, 0, 0)
            for name, figures in phases.items()
        ]
        drawn.append(
            figure(charts.course(f"{FIGURES[key]}, validation", names, points, most=MOST.get(key)))
        )
    return join(
        [
            element("div", *drawn, class_="charts small"),
            paragraph(
                "AUROC: higher is better, for the detector. Flow loss, and the kernel distance "
                "(KD) of what it draws to real validation images: lower is better, for the "
                "generator. The KD's bars are 95 % intervals over sources.",
                class_="note",
            ),
        ]
    )


def _who_fools_whom(matrix: Mapping[str, Any]) -> Markup:
    first = next(iter(next(iter(matrix["cells"].values())).values()))["auroc"]
    return join(
        [
            element("h3", "Who fools whom"),
            paragraph(
                "Every detector of the co-evolution judges what every generator of it drew: a row "
                "is one detector against generators in the order of time, a column one generator "
                "against detectors in that order. Read down a column to see whether the detector "
                "learns to see through a generator, and along a row to see whether the generator "
                "learns to pass. A worse generator makes a better-looking detector, so a high "
                "value alone is praise for neither; these scores are in no other figure."
            ),
            figure(
                charts.matrix("AUROC of detector on generator", matrix),
                f"{matrix['images']} images of each generator for the captions of as many real "
                f"validation images ({first['sources']} sources), from the same noise, with "
                f"{matrix['steps']} steps and guidance {matrix['guidance']:g}. A cell: AUROC "
                "of the generator's images against those real ones with its 95 % interval over "
                "sources, the mean score P(fake) of the generator's images, and the share of "
                "them that the detector takes for real (score at most 0.5). Start is the model "
                "that co-evolution began with. Blue: seen through; pale: chance; rust: fooled.",
            ),
        ]
    )
