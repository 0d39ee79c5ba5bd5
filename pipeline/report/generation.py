"""The generator: its images beside real ones, and how far they are from them."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.report import charts
from pipeline.report.html import (
    Content,
    Markup,
    element,
    figure,
    gallery,
    join,
    paragraph,
    picture,
    section,
    table,
)
from pipeline.report.inputs import ReportInputs
from pipeline.report.numbers import Measured, percent, plain, with_range
from unigendet.image_evaluation import (
    BEFORE_DIGA,
    FLOOR,
    MODEL,
    PRETRAINED,
    RECONSTRUCTED,
    UNTRAINED,
)

LABELS = {
    FLOOR: "other real images",
    RECONSTRUCTED: "recon\u00adstructed",
    MODEL: "final model, after DIGA",
    BEFORE_DIGA: "before the last DIGA",
    PRETRAINED: "before co-evolution",
    UNTRAINED: "untrained generator",
}
COLUMNS = (RECONSTRUCTED, PRETRAINED, BEFORE_DIGA, MODEL, UNTRAINED)
ROWS = 10


def generation_section(inputs: ReportInputs) -> Markup:
    images = inputs.metrics["images"]
    return section(
        "images",
        "The images it draws",
        paragraph(
            "Each row starts with a held-out real image. The model never saw it; it got the "
            "caption alone and drew its own image from noise, so likeness of place is not to be "
            "expected, likeness of kind is. Reconstructed is the same real image passed "
            "through the autoencoder: the sharpest that any generator behind it could be."
        ),
        _rows(inputs),
        element("h3", "Distance to real images"),
        paragraph(
            "Kernel distance to the held-out real images, smaller is better. Two sets frame the "
            "scale: other real images at the near end, an untrained generator of the same build "
            "behind the same autoencoder at the far end."
        ),
        element("div", figure(_distances(images)), _diga(images), class_="charts"),
        _table(images),
        element("h3", "Does it do as the caption says?"),
        _obedience(inputs),
        element("h3", "Does it copy?"),
        _copying(inputs),
    )


def _rows(inputs: ReportInputs) -> Markup:
    captions = inputs.samples[MODEL]["captions"]
    reconstructed = inputs.sheet(RECONSTRUCTED)
    count = min(len(captions), len(reconstructed), len(inputs.real["test"]))
    sheets = {name: inputs.sheet(name) for name in COLUMNS if name in inputs.samples}
    labels = ["real", *(LABELS[name] for name in sheets)]
    rows = []
    for place in np.linspace(0, count - 1, min(ROWS, count)).round().astype(int):
        real = inputs.real["test"][int(place)]
        assert real.caption == captions[place], "sheets and test set are in another order"
        images = [real.image, *(sheet[place] for sheet in sheets.values())]
        shown = [picture(i, f"{at}: {real.caption}") for at, i in zip(labels, images, strict=True)]
        rows.append((real.caption, shown))
    return figure(
        gallery(labels, rows),
        f"{len(rows)} of {count} test captions, evenly spaced, not chosen. Generated images of a "
        "row start from the same noise.",
    )


def _distances(images: dict[str, Any]) -> Markup:
    rows = {
        LABELS[name]: Measured.read(images["sets"][name]["kd"])
        for name in LABELS
        if name in images["sets"]
    }
    return charts.intervals("Kernel distance to real images", "KD-EffNetLite0", rows)


def _diga(images: dict[str, Any]) -> Markup:
    """The paired difference over the last DIGA phase, where the state before it was kept."""
    raw = images["relations"].get("diga_change")
    if raw is None:
        return Markup("")
    change = Measured.read(raw)
    assert change.low is not None and change.high is not None
    chart = charts.intervals(
        "What the last DIGA phase changed", "KD after minus KD before", {"": change}, mark=0.0
    )
    if change.high < 0:
        verdict = "The whole interval is below 0: on this seed the phase brought the images nearer."
    elif change.low > 0:
        verdict = (
            "The whole interval is above 0: on this seed the phase took the images farther away."
        )
    else:
        verdict = "The interval holds 0: this run does not show whether the phase helped."
    return figure(
        chart,
        f"Same captions, same noise, before and after. {verdict} It trains with the flow loss as "
        "well, so this says nothing of the alignment by itself: `make claims` tells them apart.",
    )


def _table(images: dict[str, Any]) -> Markup:
    rows: list[list[Content]] = []
    for name, label in LABELS.items():
        if name not in images["sets"]:
            continue
        one = images["sets"][name]
        kd = Measured.read(one["kd"])
        rows.append(
            [
                label,
                str(kd.n),
                with_range(kd),
                with_range(Measured.read(one["fd"]), digits=1),
                with_range(Measured.read(one["coverage"]), as_percent=True),
                with_range(Measured.read(one["density"]), digits=2),
            ]
        )
    psnr = Measured.read(images["autoencoder_psnr_db"])
    relations = images["relations"]
    extra = [
        f"Reconstructions reach {plain(psnr.value, 1)} dB PSNR on {psnr.n_text}.",
        f"Relative to the untrained generator, reconstructed images are at "
        f"{plain(relations['reconstructed_to_untrained']['value'])}, generated ones at "
        f"{plain(relations['generated_to_untrained']['value'])}.",
    ]
    return join(
        [
            table(
                ["Images", "n", "KD", "FD", "Coverage", "Density"],
                rows,
                caption="KD: kernel distance, FD: Frechet distance, both on EfficientNet-Lite0 "
                "features; FD compares only rows of equal n. Coverage: share of real images with a "
                "neighbour in the set. Density: how crowded the neighbourhoods of real images are "
                "with the set's.",
            ),
            paragraph(" ".join(extra), class_="note"),
        ]
    )


def _obedience(inputs: ReportInputs) -> Markup:
    found = inputs.metrics["images"]["caption_obedience"]
    first, second = inputs.params.evaluate.grounds
    if not found:
        return paragraph(
            f"Not measured: too few captions that begin with {first} or with {second}.",
            class_="note",
        )
    shown = {name: Measured.read(found[name]) for name in LABELS if name in found}
    rows: list[list[Content]] = [
        [LABELS[name], str(one.n), with_range(one, digits=1, as_percent=True)]
        for name, one in shown.items()
    ]
    return join(
        [
            paragraph(
                f"Images whose caption names {first} first, and images whose caption names "
                f"{second} first: is the mean colour nearer to that of real training images of the "
                "kind asked for? Half would be guessing."
            ),
            table(["Images", "n", "Right, both kinds counted alike"], rows, kind="narrow"),
            paragraph(
                "The first two lines, real images all but for the autoencoder, show how far the "
                "test itself can be trusted.",
                class_="note",
            ),
        ]
    )


def _copying(inputs: ReportInputs) -> Markup:
    raw = inputs.metrics["images"]["copying"]
    share = Measured.read(raw["copies"])
    generated, held_out = raw["distance_generated"], raw["distance_held_out"]
    about = inputs.samples["closest"]
    sheet = inputs.sheet("closest")
    half = len(about["generated"])
    pairs = [
        element(
            "div",
            picture(sheet[place], "generated"),
            picture(sheet[half + place], "nearest training image"),
            element("span", f"{about['distances'][place]:.1f}", class_="note"),
        )
        for place in range(half)
    ]
    return join(
        [
            paragraph(
                "For every generated image the nearest training image was searched, in all eight "
                "turns and flips, at 16 x 16 pixels. The median distance is "
                f"{plain(generated['value'], 1)} grey levels; new real images are at "
                f"{plain(held_out['value'], 1)}. {percent(share.value)} of the generated images "
                f"[{percent(share.low)}, {percent(share.high)}] lie nearer than all but one in a "
                "hundred new real images do; about 1 % would be chance. Smooth images lie near "
                "each other without being copies: the closest pairs are below, to judge by eye."
            ),
            figure(
                element("div", *pairs, class_="tiles"),
                "The closest pairs: generated above, its nearest training image below (which may "
                "be turned or flipped), and their distance in grey levels.",
            ),
        ]
    )
