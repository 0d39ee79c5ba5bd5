"""The detector: its curves, its figures for every family, its explanations beside their images."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

from pipeline.report import charts
from pipeline.report.html import (
    Content,
    Markup,
    element,
    figure,
    join,
    paragraph,
    picture,
    section,
    table,
)
from pipeline.report.inputs import ReportInputs
from pipeline.report.numbers import Measured, with_range
from unigendet.evaluation import ALL, CROSS_DATASET, CROSS_GENERATOR, IN_DOMAIN, SUITES
from unigendet.metrics.detection import THRESHOLD, roc_curve
from unigendet.types import EvalRecord

TITLES = {
    IN_DOMAIN: "familiar generators",
    CROSS_GENERATOR: "unseen generators",
    CROSS_DATASET: "everyday photographs, unseen generators",
}
MOST_LETTERS = 320
SHORT = {IN_DOMAIN: "familiar", CROSS_GENERATOR: "unseen", CROSS_DATASET: "everyday"}
ABOUT = {
    IN_DOMAIN: "New images; fakes by families that it learned from.",
    CROSS_GENERATOR: "The same new images; fakes by families that it never saw.",
    CROSS_DATASET: "Everyday photographs; fakes by families that it never saw.",
}


def detection_section(inputs: ReportInputs) -> Markup:
    suites = [suite for suite in SUITES if suite in inputs.metrics["detection"]]
    records = {suite: [r for r in inputs.records if r.suite == suite] for suite in suites}
    curves = {}
    for suite in suites:
        fake, score = [r.fake for r in records[suite]], [r.score for r in records[suite]]
        curve = roc_curve(fake, score)
        curves[TITLES[suite].replace(", ", ",\n")] = (
            curve.false_alarm.tolist(),
            curve.detection.tolist(),
        )
    histograms = [
        figure(
            charts.scores(
                TITLES[suite].capitalize(),
                [r.score for r in records[suite] if not r.fake],
                [r.score for r in records[suite] if r.fake],
            )
        )
        for suite in suites
    ]
    return section(
        "detection",
        "Telling fakes from real images",
        paragraph(
            "The detector gives each image a score between 0 (surely real) and 1 (surely fake). "
            f"Above {THRESHOLD:g} it says fake; that threshold is fixed beforehand and not tuned "
            "on test images. Three questions, from easy to hard:"
        ),
        element(
            "ul",
            *(
                element("li", element("b", TITLES[suite].capitalize()), ". ", ABOUT[suite])
                for suite in suites
            ),
        ),
        element(
            "div",
            figure(charts.roc("Fakes found over false alarms", curves)),
            figure(_by_family(inputs.metrics["detection"], suites)),
            class_="charts",
        ),
        _table(inputs.metrics["detection"], suites),
        element("h3", "Scores"),
        element("div", *histograms, class_="charts"),
        _fine_print(inputs.metrics["detection"], suites),
    )


def _by_family(detection: dict[str, Any], suites: list[str]) -> Markup:
    rows = {}
    for place, suite in enumerate(suites, start=1):
        for name in sorted(set(detection[suite]) - {ALL}):
            raw = detection[suite][name]["figures"]["auroc"]
            # The spaces keep a family apart that is in two suites.
            rows[f"{name} ({SHORT[suite]})" + " " * place] = Measured.read(raw)
    return charts.intervals("AUROC by family", "AUROC", rows, mark=0.5)


def _table(detection: dict[str, Any], suites: list[str]) -> Markup:
    rows: list[list[Content]] = []
    for suite in suites:
        families = detection[suite]
        rows.append([TITLES[suite].capitalize()])
        for name in [*sorted(set(families) - {ALL}), ALL]:
            row = families[name]
            figures = {key: Measured.read(raw) for key, raw in row["figures"].items()}
            rows.append(
                [
                    element("b", "all of them") if name == ALL else name,
                    f"{row['fakes']} / {row['reals']}",
                    str(figures["auroc"].sources),
                    with_range(figures["auroc"]),
                    with_range(figures["balanced_accuracy"], as_percent=True),
                    with_range(figures["recall_fake"], as_percent=True),
                    with_range(figures["recall_real"], as_percent=True),
                ]
            )
    return table(
        [
            "Fakes by",
            "Fake / real",
            "Sources",
            "AUROC",
            "Balanced accuracy",
            "Fakes found",
            "Reals kept",
        ],
        rows,
        kind="dense",
        caption="Each family's fakes against all real images of its suite. Balanced "
        "accuracy is the mean of the shares of fakes found and of real images kept.",
    )


def _fine_print(detection: dict[str, Any], suites: list[str]) -> Markup:
    names = {
        "average_precision": "Average precision",
        "macro_f1": "Macro F1",
        "eer": "Equal error rate",
        "pd_at_far_10": "Found at 10 % false alarms",
        "pd_at_far_5": "Found at 5 %",
        "pd_at_far_1": "Found at 1 %",
        "balanced_nll": "Balanced NLL, nats",
        "balanced_ece": "Balanced calibration error",
    }
    rows: list[list[Content]] = []
    for key, label in names.items():
        cells = [with_range(Measured.read(detection[s][ALL]["figures"][key])) for s in suites]
        rows.append([label, *cells])
    return element(
        "details",
        element("summary", "More detection figures"),
        table(["All families", *(TITLES[s] for s in suites)], rows, kind="dense"),
    )


def explanation_section(inputs: ReportInputs) -> Markup:
    detection, texts = inputs.metrics["detection"], inputs.metrics["explanations"]
    parts: list[Content] = []
    for suite in SUITES:
        chosen = _examples(inputs, suite)
        if chosen:
            parts.append(element("h3", TITLES[suite].capitalize()))
            parts.append(
                element("div", *(_answer(inputs, record) for record in chosen), class_="answers")
            )
    return section(
        "explanations",
        "Saying why",
        paragraph(
            "After its score the model writes an answer: a verdict and what it sees. Reference "
            "answers are composed from properties measured on the image itself (how its "
            "spectrum falls off, regular grids, noise, colour), so every statement is either true "
            "of the image or not, and can be checked; where an image came with an explanation of "
            "its own, that is the reference."
        ),
        _text_table(detection, texts),
        paragraph(
            "Examples below are evenly spaced through each suite, real and fake in turn, right or "
            "wrong as they come."
        ),
        *parts,
    )


def _text_table(detection: dict[str, Any], texts: dict[str, Any]) -> Markup:
    rows: list[list[Content]] = []
    for suite, figures in texts.items():
        verdicts = detection[suite][ALL]["verdicts"] if suite in detection else {}
        cells: list[Content] = [TITLES[suite]]
        for key in ("answer_parsed", "answer_balanced_accuracy"):
            known = key in verdicts
            shown = with_range(Measured.read(verdicts[key]), as_percent=True) if known else ""
            cells.append(shown)
        for key in ("statements_true", "rouge_l", "tfidf_css", "minilm_css"):
            cells.append(_against_others(figures, key))
        rows.append(cells)
    return table(
        [
            "Suite",
            "States a verdict",
            "Verdict right",
            "Statements true",
            "ROUGE-L",
            "TF-IDF-CSS",
            "MiniLM-CSS",
        ],
        rows,
        kind="dense",
        wrap=True,
        caption="A missing verdict counts as wrong. The last four: mean over answers, and in "
        "brackets the same answers held against other images of their class. Only the difference "
        "is about the image. These scores are on references of this project's own making and "
        "cannot be set beside published ones.",
    )


def _against_others(figures: dict[str, Any], key: str) -> Content:
    if key not in figures:
        return ""
    own, other = figures[key]["value"], figures.get(f"{key}_other", {}).get("value")
    beside = "" if other is None else element("span", f"({other:.2f})", class_="range")
    return join([f"{own:.3f}", beside])


def _examples(inputs: ReportInputs, suite: str) -> list[EvalRecord]:
    """Real and fake in turn, each evenly spaced through the suite."""
    count = inputs.params.report.examples
    records = [r for r in inputs.records if r.suite == suite]
    # Suites share their real images: starting each elsewhere shows more of them.
    shift = (SUITES.index(suite) + 1) / (len(SUITES) + 1)
    halves = []
    for fake, wanted in ((False, count // 2), (True, count - count // 2)):
        members = [r for r in records if r.fake == fake]
        several = min(wanted, len(members))
        places = [int((at + shift) * len(members) / several) for at in range(several)]
        halves.append([members[place] for place in places])
    pairs = zip_longest(*halves)
    return [record for pair in pairs for record in pair if record is not None]


def _shortened(answer: str) -> str:
    """An answer as far as one is willing to read it."""
    if not answer:
        return "no answer"
    return answer if len(answer) <= MOST_LETTERS else answer[:MOST_LETTERS].rstrip() + " \u2026"


def _answer(inputs: ReportInputs, record: EvalRecord) -> Markup:
    sample = inputs.judged(record)
    truth = f"fake, by {record.generator}" if record.fake else "real"
    right = (record.score > THRESHOLD) == record.fake
    verdict = element(
        "span", "right" if right else "wrong", class_=f"mark {'yes' if right else 'no'}"
    )
    return element(
        "div",
        picture(sample.image, truth),
        element(
            "div",
            paragraph("Truth: ", truth, f". Score {record.score:.2f}, ", verdict, "."),
            paragraph("\u201c", _shortened(record.answer), "\u201d"),
            paragraph("Reference: ", record.reference, class_="note"),
        ),
        class_="answer",
    )
