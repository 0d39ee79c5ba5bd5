"""The families of fakes: what they look like and how near they come to real images."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from pipeline.report.html import (
    Content,
    Markup,
    element,
    join,
    paragraph,
    picture,
    pictured_rows,
    section,
    table,
)
from pipeline.report.inputs import ReportInputs
from pipeline.report.numbers import Measured, seconds, with_range

SHOWN = 6
MOST_GIVEN = 40
"""Generators of the user's data that are listed."""
SAYS = {
    "reconstruction": "A real image through this project's own autoencoder and back.",
    "flow": "Drawn by this project's own generator from the caption.",
    "ddpm": "A real image, part-drowned in noise, denoised again by a pixel diffusion model.",
    "gan": "A real image made small and drawn again at full size by a GAN.",
    "vqar": "Drawn code by code by an autoregressive model over quantised patches.",
    "inpaint": "A real image with a hole that a small network filled in.",
}


def fakes_section(inputs: ReportInputs) -> Markup:
    families: list[dict[str, Any]] = inputs.metrics["families"]
    order = {"train": 0, "val": 1, "test": 2}
    families = sorted(families, key=lambda family: order[family["role"]])
    return section(
        "fakes",
        "The fakes",
        paragraph(
            "Detection is only worth something on fakes that look the part. Ours are made here by "
            "several small generators of different kinds. Detectors learn from the train "
            "families; the val family guides choices; the test families are shown to the detector "
            "for the first time when it is judged."
        ),
        element("div", *(_family(inputs, family) for family in families), class_="families"),
        _table(families),
        _given(inputs),
    )


def _family(inputs: ReportInputs, family: dict[str, Any]) -> Markup:
    name, set_name = family["family"], family["evaluated_set"]
    fakes = inputs.fake[set_name]
    places = [i for i, entry in enumerate(fakes.entries) if entry.generator == name]
    chosen = np.linspace(0, len(places) - 1, min(SHOWN, len(places))).round().astype(int)
    origins = {entry.key: i for i, entry in enumerate(inputs.real[set_name].entries)}
    above, below = [], []
    for place in chosen:
        fake = fakes[places[int(place)]]
        real = inputs.real[set_name][origins[fake.key.removeprefix(f"{name}-")]]
        above.append(picture(real.image, f"real: {real.caption}"))
        below.append(picture(fake.image, f"fake by {name}: {fake.caption}"))
    tags = [f"{family['role']} family"]
    tags += ["keeps the real image's content"] if family["aligned"] else ["content of its own"]
    tags += ["our own decoder"] if family["own_decoder"] else []
    return element(
        "div",
        element("h3", name),
        paragraph(SAYS.get(name, ""), class_="note"),
        element("div", *(element("span", tag, class_="tag") for tag in tags)),
        pictured_rows([("real", above), ("fake", below)] if above else []),
    )


def _table(families: list[dict[str, Any]]) -> Markup:
    if not families:
        return Markup("")
    rows: list[list[Content]] = []
    for family in families:
        distances = family["distances"]
        rows.append(
            [
                family["family"],
                family["role"],
                f"{distances['kd']['n']} of {family['n_total']}",
                with_range(Measured.read(distances["kd"])),
                f"{distances['relative']:.2f}",
                f"{distances['variety']:.2f}",
                "good enough" if distances["above_floor"] else "below the floor",
                seconds(family["fit_seconds"]),
                seconds(family["make_seconds"]),
            ]
        )
    floor, least = families[0]["floor"], families[0]["least_variety"]
    return join(
        [
            element("h3", "How near they come"),
            table(
                [
                    "Family",
                    "Role",
                    "n",
                    "KD",
                    "Relative",
                    "Variety",
                    "Quality",
                    "Fitted in",
                    "Made in",
                ],
                rows,
                left=(0, 1),
                caption="Kernel distance to real images of the same set; relative to images "
                "painted over with their mean colour. Variety: distance to the nearest image of "
                f"another source, relative to real images. From a relative distance of {floor:g} "
                f"on, or below a variety of {least:g}, a family is too poor: its fakes have their "
                "own row among the detection figures and are not in the row of all.",
            ),
        ]
    )


def _given(inputs: ReportInputs) -> Markup:
    """How many fakes of which generator came with the data; empty where none did."""
    counts = {
        name: Counter(entry.generator for entry in data.entries)
        for name, data in inputs.given.items()
    }
    every = sum(counts.values(), Counter[str]())
    if not every:
        return Markup("")
    rows: list[list[Content]] = [
        [
            name,
            *(str(found[name]) for found in counts.values()),
            "yes" if counts["train"][name] else "no, unseen",
        ]
        for name, _ in every.most_common(MOST_GIVEN)
    ]
    more = len(every) - len(rows)
    return join(
        [
            element("h3", "Fakes that came with the data"),
            table(
                ["Generator", *counts, "Learnt from"],
                rows,
                left=(0,),
                caption="Labelled fakes of the source by the set that they are in. Their quality "
                "is not measured." + (f" {more} rarer generators are not shown." if more else ""),
            ),
        ]
    )
