"""The data: what the images are, how they were split, and that files do not give fakes away."""

from __future__ import annotations

from PIL import Image

from pipeline.report.files import account, audit_table
from pipeline.report.html import (
    Content,
    Markup,
    element,
    figure,
    paragraph,
    photograph,
    picture,
    section,
    table,
)
from pipeline.report.inputs import ReportInputs

SHOWN = 18
MOST_NAMES = 20
BANDS = "bands.png"
SAYS = {
    "train": "training",
    "val": "choosing weights and when to stop",
    "test": "figures on this page",
    "everyday": "figures on this page, another kind of image",
}


def data_section(inputs: ReportInputs) -> Markup:
    rows: list[list[Content]] = []
    for name, use in SAYS.items():
        real = inputs.real[name].entries
        fake = [*inputs.given[name].entries, *inputs.fake[name].entries]
        rows.append(
            [
                name,
                use,
                str(len(real)),
                str(len({entry.source_id for entry in real})),
                str(len(fake)),
                some_names({entry.generator for entry in fake}),
            ]
        )
    train = inputs.real["train"]
    count = min(SHOWN, len(train))
    samples = [train[place * len(train) // count] for place in range(count)]
    tiles = [picture(sample.image, sample.caption) for sample in samples]
    return section(
        "data",
        "The data",
        _about(inputs),
        table(
            ["Set", "Used for", "Real", "Sources", "Fakes", "Fakes by"],
            rows,
            left=(0, 1, 5),
            wrap=True,
            caption="A source is one real place or photograph. No source is in two sets, and an "
            "image's fakes stay in its set.",
        ),
        figure(
            element("div", *tiles, class_="tiles"),
            f"{len(tiles)} of {len(inputs.real['train'])} real training images, evenly spaced.",
        ),
        _map(inputs),
        account(inputs),
        audit_table(inputs),
    )


def some_names(names: set[str]) -> str:
    """The names in order, no more than `MOST_NAMES`, and how many others."""
    several = sorted(names)
    more = len(several) - MOST_NAMES
    told = ", ".join(several[:MOST_NAMES])
    return f"{told} and {more} others" if more > 0 else told


def _about(inputs: ReportInputs) -> Markup:
    data = inputs.params.data
    side = data.image_size
    if data.source == "blue_marble":
        return paragraph(
            f"Real images are {side} x {side} pixel land tiles of NASA's Blue Marble, a satellite "
            "composite of the whole Earth. Captions are written from each tile's colours and name "
            "what covers the ground, never the place. The everyday set holds crops of photographs "
            "that nothing here was trained on."
        )
    fakes = " Fakes that came with them are learnt from and judged beside our own."
    return paragraph(
        f"Real images come from the source {data.source}, {side} x {side} pixels, with their own "
        f"captions.{fakes if any(inputs.given.values()) else ''} "
        "The everyday set holds crops of photographs that nothing here was trained on."
    )


def _map(inputs: ReportInputs) -> Markup:
    path = inputs.file("shard", BANDS)
    if path is None:
        return Markup("")
    with Image.open(path) as image:
        shown = photograph(image, "world map with bands", width=1100)
    return figure(
        shown,
        "Where the tiles lie. Training (blue), validation (yellow) and test (red) bands alternate "
        "over the longitudes with gaps between them, so that every climate is in every set and no "
        "neighbour of a test tile was trained on.",
    )
