"""The files: what became of every planned image, and whether headers give the fakes away."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pipeline.artifacts import AUDIT, COUNTS, QUARANTINE, read_json
from pipeline.report.html import Content, Markup, element, paragraph, table
from pipeline.report.inputs import ReportInputs
from pipeline.report.numbers import Measured, with_range

SHOWN_REASONS = 5


def file_audits(inputs: ReportInputs) -> dict[str, dict[str, Any]]:
    """Every audit by what was audited: the user's own labelled files, and the sets as stored."""
    given = inputs.file("shard", AUDIT)
    original = read_json(given) if given else {}
    stored: dict[str, dict[str, Any]] = inputs.metrics["audit"]
    return {f"{name}, files as given": audit for name, audit in original.items()} | stored


def account(inputs: ReportInputs) -> Markup:
    """Planned = written + left out + quarantined + dead links, with the commonest reasons."""
    path = inputs.file("shard", COUNTS)
    if path is None:
        return Markup("")
    counts = read_json(path)
    rows: list[list[Content]] = [
        ["written into shards", f"{counts['written']}"],
        ["left out: the same picture comes earlier", f"{counts['left_out']}"],
        ["in quarantine: unreadable, damaged, empty or too large", f"{counts['quarantined']}"],
        ["not downloaded: dead links", f"{counts['not_downloaded']}"],
        ["planned", f"{counts['planned']}"],
    ]
    notes = []
    if counts["linked"] or counts["moved"]:
        notes.append(
            f"{counts['linked']} fakes look like a real image; they share its source, and "
            f"{counts['moved']} images moved to the set of their source."
        )
    if counts["kept_apart"]:
        notes.append(
            f"{counts['kept_apart']} of those left out resemble an image of a published evaluation "
            "set, or share a source with one that does."
        )
    if counts["quarantined"]:
        notes.append(f"In quarantine for instance: {'; '.join(_reasons(inputs))}.")
    return Markup(
        element("h3", "What became of the images")
        + table(["Images", ""], rows, kind="narrow", total=True)
        + (paragraph(" ".join(notes), class_="note") if notes else Markup(""))
    )


def _reasons(inputs: ReportInputs) -> list[str]:
    path = inputs.file("shard", QUARANTINE)
    if path is None:
        return []
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return list(dict.fromkeys(line["reason"] for line in lines))[:SHOWN_REASONS]


def audit_table(inputs: ReportInputs) -> Markup:
    """AUROCs by set; red where headers tell real from fake and that was allowed."""
    audits = file_audits(inputs)
    if not audits:
        return Markup("")
    rows: list[list[Content]] = [
        [
            name,
            with_range(Measured.read(audit["auroc"])),
            audit_verdict(audit),
            with_range(Measured.read(audit["bytes_per_pixel"])),
            with_range(Measured.read(audit["blockiness"])),
        ]
        for name, audit in audits.items()
    ]
    alarm = Markup("")
    if any(audit["shortcut"] for audit in audits.values()):
        alarm = paragraph(
            "shard.allow_codec_shortcut is set: this run went on although the headers of its "
            "files tell real from fake. Detection figures may measure the codec.",
            class_="alarm",
        )
    return Markup(
        element("h3", "Do the files give the fakes away?")
        + alarm
        + paragraph(
            "A detector can cheat: if real images were JPEG and fakes PNG, it would learn the file "
            "and not the picture. So a classifier that sees headers only (format, size, codec "
            "tables) tries to tell them apart, and must stay at chance: its interval has to hold "
            "0.5 and end below 0.6. File size and blockiness are shown beside it; they also see "
            "honest differences, such as blur."
        )
        + table(["Set", "AUROC, headers", "", "AUROC, bytes", "AUROC, blockiness"], rows)
    )


def audit_verdict(audit: Mapping[str, Any]) -> Content:
    """In words, red where headers tell real from fake."""
    if audit["shortcut"]:
        return element("span", "gives fakes away", class_="alarm")
    return "passed" if audit["passed"] else "not passed"
