"""Stage report: one self-contained page that tells the whole run to someone who was not there."""

from __future__ import annotations

from pipeline.artifacts import REPORT_PAGE
from pipeline.provenance import git_revision
from pipeline.report.benchmarks import benchmarks_section
from pipeline.report.coevolution import coevolution_section
from pipeline.report.data import data_section
from pipeline.report.detection import detection_section, explanation_section
from pipeline.report.fakes import fakes_section
from pipeline.report.generation import generation_section
from pipeline.report.html import Markup, element, join, text
from pipeline.report.inputs import ReportInputs
from pipeline.report.overview import goals, header
from pipeline.report.running import reproduce_section, timing_section
from pipeline.report.style import CSS
from pipeline.report.sweep import sweep_section
from pipeline.report.training import training_section
from pipeline.stage import StageContext

CONTENTS = {
    "short": "In short",
    "data": "The data",
    "images": "The images it draws",
    "fakes": "The fakes",
    "detection": "Telling fakes from real",
    "benchmarks": "Other benchmarks",
    "explanations": "Saying why",
    "sweep": "The sweep",
    "coevolution": "Learning from each other",
    "training": "Training",
    "time": "Time",
    "again": "Run it again",
}


def report(ctx: StageContext) -> None:
    """Write the page into `ctx.out` and to the stage's MLflow run."""
    inputs = ReportInputs(ctx.inputs, ctx.params, git_revision(ctx.workspace))
    ctx.mark_started()
    with ctx.timed("page"):
        sections = [
            goals(inputs),
            data_section(inputs),
            generation_section(inputs),
            fakes_section(inputs),
            detection_section(inputs),
            benchmarks_section(inputs),
            explanation_section(inputs),
            sweep_section(inputs),
            coevolution_section(inputs),
            training_section(inputs),
            timing_section(inputs),
            reproduce_section(inputs, ctx.workspace / "params.yaml"),
        ]
        page = render(inputs.params.report.title, header(inputs), sections)
    path = ctx.out / REPORT_PAGE
    path.write_text(page, encoding="utf-8")
    ctx.run.log_artifact(path)
    ctx.log(f"{len(page.encode()) / 1e6:.1f} MB -> open outputs/report/{REPORT_PAGE} in a browser")


def render(title: str, head: Markup, sections: list[Markup]) -> str:
    """The whole document; sections that are empty are left out, of the contents too."""
    there = [one for one in sections if one]
    links = [
        element("li", element("a", label, href=f"#{anchor}"))
        for anchor, label in CONTENTS.items()
        if any(one.startswith(f'<section id="{anchor}">') for one in there)
    ]
    body = element(
        "div",
        element("nav", element("ol", *links), aria_label="Contents"),
        element("main", head, *there),
        class_="layout",
    )
    return join(
        [
            Markup("<!doctype html>\n"),
            element(
                "html",
                element(
                    "head",
                    Markup('<meta charset="utf-8">'),
                    Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
                    # Nothing is ever fetched: the page is whole, also in ten years.
                    Markup(
                        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
                        "img-src data:; style-src 'unsafe-inline'\">"
                    ),
                    element("title", text(title)),
                    element("style", Markup(CSS)),
                ),
                element("body", body),
                lang="en",
            ),
        ]
    )
