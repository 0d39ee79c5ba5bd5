"""How long it took, what it was, and how to run it again."""

from __future__ import annotations

from pathlib import Path

from pipeline.report.html import (
    Content,
    Markup,
    element,
    join,
    paragraph,
    section,
    table,
)
from pipeline.report.inputs import ReportInputs
from pipeline.report.numbers import seconds

LONGEST = 4
"""Phases named for each stage."""


def timing_section(inputs: ReportInputs) -> Markup:
    timings = inputs.timings()
    longest = max(timing.total_s for timing in timings)
    rows: list[list[Content]] = []
    for timing in timings:
        work = max(timing.total_s - timing.startup_s, 0.0)
        named = sorted(timing.phases.items(), key=lambda pair: -pair[1])[:LONGEST]
        phases = ", ".join(f"{name.replace('_', ' ')} {seconds(s)}" for name, s in named)
        again = f" (attempt {timing.attempts})" if timing.attempts > 1 else ""
        rows.append(
            [
                timing.stage + again,
                _bar(timing.startup_s / longest, work / longest),
                seconds(timing.startup_s),
                seconds(work),
                seconds(timing.total_s),
                element("span", phases, class_="note"),
            ]
        )
    startup = sum(timing.startup_s for timing in timings)
    total = sum(timing.total_s for timing in timings)
    rows.append(["all", "", seconds(startup), seconds(total - startup), seconds(total), ""])
    key = element(
        "span",
        element("i", class_="start"),
        "start-up ",
        element("i"),
        "work",
        class_="key",
    )
    return section(
        "time",
        "Time",
        table(
            ["Stage", key, "Start-up", "Work", "Total", "Longest phases"],
            rows,
            left=(0, 1, 5),
            wrap=True,
            total=True,
            caption="Start-up is what passes before a stage's own work begins: the interpreter, "
            "imports, Ray. This page's own stage is not in the table.",
        ),
    )


def _bar(start: float, work: float) -> Markup:
    pieces = [element("i", style=f"width:{100 * share:.1f}%") for share in (start, work)]
    return element("div", *pieces, class_="bar")


def reproduce_section(inputs: ReportInputs, params_file: Path) -> Markup:
    provenance = inputs.metrics["provenance"]
    commands = "\n".join(
        [
            f"git checkout {inputs.revision.rstrip('+')[:10]}"
            if inputs.revision != "none"
            else "# the workspace was not under git",
            "make repro        # everything, from raw images to this page",
            "make ui           # every run, its curves and pictures, in MLflow",
            "unigendet detect IMAGE...",
            'unigendet generate "a satellite image of pale desert" -o out.png',
        ]
    )
    changed = (
        paragraph("The workspace held changes that are not in that revision.", class_="note")
        if inputs.revision.endswith("+")
        else Markup("")
    )
    rows: list[list[Content]] = [
        ["Figures made by", element("code", str(provenance["command"]))],
        ["Intervals", f"{provenance['interval']}; {provenance['bootstrap_draws']} draws"],
        ["Features", str(provenance["features"])],
        ["Model, SHA-256", element("code", str(provenance["model_sha256"]))],
        ["Autoencoder, SHA-256", element("code", str(provenance["autoencoder_sha256"]))],
        ["Parameters", element("code", str(provenance["params_fingerprint"]))],
        ["Evaluation stage", element("code", str(provenance["stage_fingerprint"]))],
    ]
    details = element(
        "details",
        element("summary", "params.yaml, all of it"),
        element("pre", element("code", params_file.read_text(encoding="utf-8"))),
    )
    facts = table(["", ""], rows, left=(0, 1), wrap=True)
    return section(
        "again",
        "Run it again",
        element("pre", element("code", commands)),
        changed,
        facts,
        paragraph(
            "Every figure on this page is in ",
            element("code", "outputs/eval/metrics.json"),
            " with its n, interval and seed; every judged image is a line of ",
            element("code", "outputs/eval/records.jsonl"),
            "; pictures are made from the images in ",
            element("code", "outputs/"),
            ".",
        ),
        join([details]),
    )
