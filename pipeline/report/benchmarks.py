"""The final model on published sets, and how its scores bear up where images are disturbed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.report import charts
from pipeline.report.files import audit_verdict
from pipeline.report.html import (
    Content,
    Markup,
    element,
    figure,
    join,
    paragraph,
    section,
    table,
)
from pipeline.report.inputs import ReportInputs
from pipeline.report.numbers import Measured, with_range
from unigendet.benchmarking.perturbations import KINDS
from unigendet.data.plain_text import plain
from unigendet.evaluation import ALL, CROSS_DATASET, CROSS_GENERATOR, IN_DOMAIN, MEAN
from unigendet.metrics.detection import THRESHOLD

NAMED = {MEAN: "mean over generators", ALL: "all pooled"}
SUITE_NAMES = {
    IN_DOMAIN: "familiar generators",
    CROSS_GENERATOR: "unseen generators",
    CROSS_DATASET: "everyday photographs",
}
SHOWN = 10
"""Images that could not be read are named up to here; metrics.json names all."""
Curve = Sequence[Mapping[str, Any]]


def benchmarks_section(inputs: ReportInputs) -> Markup:
    """Empty where nothing was asked for."""
    benchmarks: dict[str, Any] = inputs.metrics["benchmarks"]
    curves: dict[str, Curve] = {
        SUITE_NAMES[suite]: curve for suite, curve in inputs.metrics["robustness"].items() if curve
    }
    curves |= {label: found["robustness"] for label, found in benchmarks.items()}
    disturbed = _robustness({name: curve for name, curve in curves.items() if curve})
    if not benchmarks and not disturbed:
        return Markup("")
    return section(
        "benchmarks",
        "Other benchmarks",
        _figures(benchmarks, inputs.metrics["provenance"]["benchmarks"]) if benchmarks else "",
        disturbed,
    )


def _figures(benchmarks: Mapping[str, Any], read: Mapping[str, Any]) -> Markup:
    alarm = Markup("")
    if any((found["audit"] or {}).get("shortcut") for found in benchmarks.values()):
        alarm = paragraph(
            "evaluate.allow_codec_shortcut is set: this run went on although the headers of the "
            "files of a benchmark tell real from fake. Its figures may measure the codec.",
            class_="alarm",
        )
    return join(
        [
            paragraph(
                "Sets that were made elsewhere, judged by the same model: nothing was trained or "
                f"chosen on them, and the threshold stays {THRESHOLD:g}. Each generator's fakes "
                "stand against the real images that the set pairs with them."
            ),
            alarm,
            _table(benchmarks),
            element("h3", "What was read, and do the files give the fakes away?"),
            _audits(benchmarks),
            *(_problems(label, found) for label, found in benchmarks.items()),
            element(
                "details",
                element("summary", "Where it lies"),
                table(
                    ["Benchmark", "Path", "SHA-256 of names, classes and sizes"],
                    [
                        [label, plain(one["path"]), element("code", one["sha256_of_list"][:16])]
                        for label, one in read.items()
                    ],
                    left=(0, 1, 2),
                    wrap=True,
                ),
            ),
        ]
    )


def _table(benchmarks: Mapping[str, Any]) -> Markup:
    rows: list[list[Content]] = []
    for label, found in benchmarks.items():
        rows.append([f"{label} ({found['title']})"])
        for name, row in found["detection"].items():
            known = row["figures"]
            shown = NAMED.get(name)
            rows.append(
                [
                    plain(name, 60) if shown is None else element("b", shown),
                    f"{row['fakes']} / {row['reals']}",
                    _cell(known, "auroc"),
                    _cell(known, "average_precision"),
                    _cell(known, "balanced_accuracy", as_percent=True),
                    _cell(known, "recall_fake", as_percent=True),
                    _cell(known, "recall_real", as_percent=True),
                ]
            )
    return table(
        [
            "Fakes by",
            "Fake / real",
            "AUROC",
            "Average precision",
            "Balanced accuracy",
            "Fakes found",
            "Reals kept",
        ],
        rows,
        kind="dense",
    )


def _cell(known: Mapping[str, Any], key: str, *, as_percent: bool = False) -> Content:
    """Empty where the set's one class does not tell it."""
    return with_range(Measured.read(known[key]), as_percent=as_percent) if key in known else ""


def _audits(benchmarks: Mapping[str, Any]) -> Markup:
    rows: list[list[Content]] = []
    for label, found in benchmarks.items():
        audit, images = found["audit"], found["images"]
        rows.append(
            [
                label,
                found["split"],
                f"{images['judged']:,} of {images['listed']:,}",
                str(len(found["unreadable"])),
                str(len(found["left_out"])),
                with_range(Measured.read(audit["auroc"])) if audit else _unaudited(found),
                "" if audit is None else audit_verdict(audit),
            ]
        )
    return table(
        ["Benchmark", "Split", "Judged", "Unreadable", "Left out", "AUROC, headers", ""],
        rows,
        left=(0, 1),
        caption="A classifier that sees format, size and codec tables only. Where its interval "
        "ends above 0.6, a detector that learned to tell codecs apart would shine too. Left out: "
        "files of any split that the set's reader could not take.",
    )


def _unaudited(found: Mapping[str, Any]) -> str:
    return "one class" if found["one_class"] else "too few files"


def _problems(label: str, found: Mapping[str, Any]) -> Markup:
    parts: list[Content] = []
    if found["one_class"]:
        parts.append(paragraph(f"{label}, recall only: {found['one_class']}.", class_="note"))
    for key, what in (
        ("unreadable", "could not be read"),
        ("unperturbed", "too large for a disturbance"),
    ):
        left = found[key]
        if left:
            more = f", and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
            names = ", ".join(plain(one["path"], 120) for one in left[:SHOWN])
            parts.append(paragraph(f"{label}, {what}: {names}{more}.", class_="note"))
    return join(parts)


def _robustness(curves: Mapping[str, Curve]) -> Markup:
    kinds = dict.fromkeys(point["kind"] for curve in curves.values() for point in curve)
    if not kinds:
        return Markup("")
    drawn = []
    for kind in kinds:
        series = {
            name: (
                [point["strength"] for point in curve if point["kind"] == kind],
                [point["auroc"]["value"] for point in curve if point["kind"] == kind],
            )
            for name, curve in curves.items()
        }
        about = KINDS[kind]
        drawn.append(
            figure(charts.strengths(f"AUROC under {kind}", about.strength, series, about.untouched))
        )
    points = dict.fromkeys(
        (point["kind"], point["strength"]) for curve in curves.values() for point in curve
    )
    rows: list[list[Content]] = []
    for kind, strength in points:
        cells: list[Content] = []
        for curve in curves.values():
            own = [p for p in curve if (p["kind"], p["strength"]) == (kind, strength)]
            cells.append(with_range(Measured.read(own[0]["auroc"])) if own else "")
        at = "untouched" if strength == KINDS[kind].untouched else f"{strength:g}"
        rows.append([f"{kind}, {at}", *cells])
    return join(
        [
            element("h3", "Disturbed images"),
            paragraph(
                "Real and fake images alike are compressed, blurred or scaled before they are "
                "judged once more, as pictures are on their way through the web. AUROC of all "
                "fakes of a set against all its real images."
            ),
            element("div", *drawn, class_="charts"),
            table(["Disturbed by", *curves], rows, kind="dense", wrap=True),
        ]
    )
