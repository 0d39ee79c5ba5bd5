"""The sweep on the page: its front, its trials, and the rule that picked the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.artifacts import SUMMARY, TRIALS, read_json
from pipeline.report.charts import Tried, pareto
from pipeline.report.html import Content, Markup, element, figure, paragraph, section, table
from pipeline.report.inputs import ReportInputs
from pipeline.report.numbers import plain, seconds

WEIGHTS = {
    "flow_weight": "flow",
    "det_weight": "verdict",
    "text_weight": "text",
    "align_weight": "alignment",
    "tap_layer": "tap layer",
}
MEASURES = {"kd": "KD-EffNetLite0", "flow_loss": "flow loss"}
Found = Mapping[str, Any]


def sweep_section(inputs: ReportInputs) -> Markup:
    path = inputs.file("sweep", TRIALS)
    if path is None:
        return Markup("")
    found = read_json(path)
    trials = found["trials"]
    if not trials:
        return section("sweep", "The sweep", paragraph("Nothing was tried."), _in_force(inputs))
    measure = MEASURES[found["measure"]]
    failed = [trial for trial in trials if trial["status"] == "failed"]
    return section(
        "sweep",
        "The sweep",
        paragraph(
            "How much should each task weigh? Short trials of the co-evolution, each with weights "
            "proposed from the outcomes of those before, judged on validation images only: fakes "
            "of families that nothing was trained on, and tiles drawn for validation captions. "
            "Trials that fell behind early were stopped; they have no place in the picture."
        ),
        figure(
            pareto("The trials' two objectives", f"{measure} to validation tiles", _tried(found)),
            _picture_caption(found),
        ),
        table(
            ["Trial", *WEIGHTS.values(), "AUROC", measure, "Steps", "Time"],
            [_row(found, trial) for trial in trials],
            caption="Weights of the loss terms, and what each trial came to.",
        ),
        paragraph(element("b", "The rule. "), found["rule"], ". ", _noise(found), class_="note"),
        *(
            paragraph(f"Trial {trial['number']} failed: {trial['error']}", class_="note")
            for trial in failed
        ),
        _in_force(inputs),
    )


def _tried(found: Found) -> list[Tried]:
    finished = [trial for trial in found["trials"] if trial["status"] == "finished"]
    return [
        Tried(
            name=str(trial["number"]),
            x=trial["distance"],
            y=trial["auroc"],
            noise=(found["noise"]["distance"], found["noise"]["auroc"]),
            kind="repeat"
            if trial["repeat"]
            else "front"
            if trial["number"] in found["front"]
            else "other",
            chosen=trial["number"] == found["best"],
        )
        for trial in finished
    ]


def _picture_caption(found: Found) -> str:
    stopped = sum(trial["status"] == "stopped" for trial in found["trials"])
    repeats = sum(trial["repeat"] > 0 for trial in found["trials"])
    parts = [
        "Better is up and to the left. Filled: trials trained to their end; joined: the Pareto "
        "front; ringed: the chosen one. Bars are one noise to either side."
    ]
    if repeats:
        parts.append("Hollow: trial 0 again with other seeds.")
    if stopped:
        parts.append(f"{stopped} stopped early and not drawn.")
    return " ".join(parts)


def _noise(found: Found) -> str:
    noise = found["noise"]
    if noise["runs"] < 2:
        return "Here no noise was measured, so none was assumed."
    return (
        f"Here one noise is {plain(noise['auroc'], 4)} in AUROC and {plain(noise['distance'], 4)} "
        f"in distance, from {noise['runs']} runs, so roughly."
    )


def _row(found: Found, trial: Found) -> Sequence[Content]:
    number = trial["number"]
    label = str(number)
    if trial["repeat"]:
        label += ", trial 0 again"
    elif number in found["front"]:
        label += ", front"
    if number == found["best"]:
        label += " \u2190 chosen"
    outcome: list[Content] = [plain(trial["auroc"], 4), plain(trial["distance"], 4)]
    if trial["status"] == "stopped":
        outcome = ["", "stopped early"]
    elif trial["status"] == "failed":
        outcome = ["", element("span", "failed", class_="no")]
    weights = [f"{trial['weights'][key]:.3g}" for key in WEIGHTS]
    return [label, *weights, *outcome, str(trial["steps"]), seconds(trial["seconds"])]


def _in_force(inputs: ReportInputs) -> Markup:
    """The weights that co-evolution used, which a number in params.yaml may have set."""
    path = inputs.file("coevolve", SUMMARY)
    weights = read_json(path).get("weights") if path else None
    if not weights:
        return Markup("")
    asked = inputs.params.coevolve
    told = []
    for key, label in WEIGHTS.items():
        origin = "sweep" if getattr(asked, key) == "auto" else "params.yaml"
        told.append(f"{label} {weights[key]:.3g} (from {origin})")
    return paragraph("In force in the co-evolution: " + ", ".join(told) + ".", class_="note")
