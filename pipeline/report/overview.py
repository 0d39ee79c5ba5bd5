"""The head of the page: what this is, how it came out, how to read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.report.files import file_audits
from pipeline.report.html import Content, Markup, element, join, paragraph, section, table
from pipeline.report.inputs import ReportInputs
from pipeline.report.numbers import Measured, mark, seconds, with_range


@dataclass(frozen=True, slots=True)
class Goal:
    """One line of the table of goals."""

    key: str
    """Field of `report.goals`."""
    says: str
    at_least: bool
    find: Callable[[dict[str, Any]], dict[str, Any] | None]
    """Where the figure lies in metrics.json; None where this run has none."""
    digits: int = 3
    as_percent: bool = False

    def bound(self, value: float) -> str:
        shown = f"{100 * value:g} %" if self.as_percent else f"{value:g}"
        return f"{'at least' if self.at_least else 'at most'} {shown}"


def _relation(name: str) -> Callable[[dict[str, Any]], dict[str, Any] | None]:
    return lambda metrics: metrics["images"]["relations"].get(name)


def _in_domain(name: str) -> Callable[[dict[str, Any]], dict[str, Any] | None]:
    def find(metrics: dict[str, Any]) -> dict[str, Any] | None:
        suite = metrics["detection"].get("in_domain")
        return suite["all"]["figures"][name] if suite else None

    return find


GOALS = (
    Goal(
        "in_domain_auroc",
        "Detection: chance that a fake scores above a real image (AUROC), familiar generators",
        True,
        _in_domain("auroc"),
    ),
    Goal(
        "in_domain_balanced_accuracy",
        "Detection: verdicts that are right, real and fake counted alike, familiar generators",
        True,
        _in_domain("balanced_accuracy"),
        1,
        True,
    ),
    Goal(
        "autoencoder_psnr_db",
        "Autoencoder: fidelity of reconstructed images (PSNR), dB",
        True,
        lambda metrics: metrics["images"]["autoencoder_psnr_db"],
        1,
    ),
    Goal(
        "reconstructed_to_untrained",
        "Reconstructed images: distance to real ones, relative to an untrained generator",
        False,
        _relation("reconstructed_to_untrained"),
    ),
    Goal(
        "generated_to_untrained",
        "Generated images: distance to real ones, relative to an untrained generator",
        False,
        _relation("generated_to_untrained"),
    ),
    Goal(
        "generated_gap",
        "Generated images: what is left of the way from untrained to the autoencoder's limit",
        False,
        _relation("generated_gap"),
    ),
    Goal(
        "caption_obedience",
        "Generated images: the caption's ground is the one drawn, told by mean colour",
        True,
        lambda metrics: metrics["images"]["caption_obedience"].get("model"),
        1,
        True,
    ),
)


def header(inputs: ReportInputs) -> Markup:
    metrics = inputs.metrics
    provenance = metrics["provenance"]
    spent = sum(timing.total_s for timing in inputs.timings())
    test, everyday = metrics["counts"]["real/test"], metrics["counts"]["real/everyday"]
    facts = [
        ("revision", inputs.revision[:10]),
        ("parameters", str(provenance["params_fingerprint"])),
        ("model", str(provenance["model_sha256"])[:12]),
        ("seed", str(provenance["seed"])),
        ("time", seconds(spent)),
    ]
    return join(
        [
            element("h1", inputs.params.report.title),
            paragraph(
                "UniGenDet is one network that draws images from captions and tells drawn images "
                "from real ones, saying why. Both skills share their inner layers and are trained "
                "together, so that each can learn from the other. This page is the result of one "
                "run of the whole experiment, from raw images to the figures below.",
                class_="lead",
            ),
            paragraph(
                f"All figures are about images that training never saw: {test['images']} held-out "
                f"images of {test['sources']} places, and {everyday['images']} crops of "
                f"{everyday['sources']} photographs of another kind altogether."
            ),
            element(
                "ul",
                *(element("li", f"{name} ", element("b", value)) for name, value in facts),
                class_="facts",
            ),
        ]
    )


def goals(inputs: ReportInputs) -> Markup:
    wanted = inputs.params.report.goals
    rows: list[list[Content]] = []
    for goal in GOALS:
        raw = goal.find(inputs.metrics)
        bound = float(getattr(wanted, goal.key))
        says = element("span", goal.says)
        if raw is None or raw["value"] is None:
            rows.append([says, "not measured in this run", goal.bound(bound), "no figure"])
            continue
        measured = Measured.read(raw)
        assert measured.value is not None
        met = measured.value >= bound if goal.at_least else measured.value <= bound
        shown = with_range(measured, digits=goal.digits, as_percent=goal.as_percent)
        rows.append([says, shown, goal.bound(bound), mark(met)])
    audits = file_audits(inputs)
    if audits:
        passed = sum(bool(audit["passed"]) for audit in audits.values())
        rows.append(
            [
                "Data: files alone (format, size, codec) do not tell real from fake",
                f"{passed} of {len(audits)} sets pass",
                "all",
                mark(passed == len(audits)),
            ]
        )
    return section(
        "short",
        "In short",
        paragraph(
            "What this experiment set out to reach, and what it measured. A goal counts as met by "
            "the value itself; the interval beside it says how sure that is."
        ),
        table(["Goal", "Measured", "Wanted", ""], rows, left=(0,), wrap=True),
        element("h3", "How to read the figures"),
        _glossary(),
    )


def _glossary() -> Markup:
    terms = {
        "[low, high]": "95 % interval. It comes from drawing whole places or photographs again and "
        "again, not single images: an image and the fakes made from it are one observation.",
        "AUROC": "The chance that a fake gets a higher score than a real image. 0.5 is guessing, "
        "1 is perfect.",
        "Kernel distance (KD)": "How different two sets of images look to a network trained on "
        "ImageNet (EfficientNet-Lite0, which no part of this project learned from, unless it is "
        "DIGA's teacher). 0 means no difference; other real images show how near 0 one can get. It "
        "is not the FID of papers and cannot be compared with it.",
        "GDUF, DIGA": "The two phases of training together. GDUF trains generation, detection and "
        "explanation at once; DIGA then pulls the generator's inner features towards those that "
        "its teacher, by default the frozen detector, has of real images.",
        "Family": "One way of making fakes. Detectors learn from train families only; test "
        "families are new to them.",
    }
    parts = [element("dt", t) + element("dd", d) for t, d in terms.items()]
    return element("dl", *parts)
