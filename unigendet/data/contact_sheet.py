"""Pictures of the data: a sheet of images with their captions, and the map with its bands."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from unigendet.data.sources.base import SourceItem
from unigendet.data.sources.blue_marble import BlueMarble
from unigendet.types import Sample

COLUMNS, ROWS = 8, 5
CELL_WIDTH, PICTURE, TEXT_HEIGHT = 176, 128, 56
"""Sizes in pixels of the sheet."""
MAP_WIDTH = 1600
BAND_COLOURS = {"train": (70, 130, 255), "val": (255, 200, 40), "test": (255, 70, 70)}


def draw_contact_sheet(samples: Sequence[Sample], path: Path, *, title: str) -> None:
    """Write a PNG of up to 40 of `samples`, evenly spread, each above its caption."""
    count = min(len(samples), COLUMNS * ROWS)
    rows = -(-count // COLUMNS)
    height = 24 + rows * (PICTURE + TEXT_HEIGHT)
    sheet = Image.new("RGB", (COLUMNS * CELL_WIDTH, height), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((4, 4), title, fill="black")
    for place in range(count):
        sample = samples[place * len(samples) // count]
        left = place % COLUMNS * CELL_WIDTH + 4
        top = 24 + place // COLUMNS * (PICTURE + TEXT_HEIGHT)
        picture = Image.fromarray(sample.image).resize((PICTURE, PICTURE), Image.Resampling.NEAREST)
        sheet.paste(picture, (left, top))
        words = sample.caption.removeprefix("a satellite image of ")
        lines = textwrap.wrap(words, 30)[:4]
        draw.multiline_text((left, top + PICTURE), "\n".join(lines), fill="black", font_size=10)
    sheet.save(path)


def draw_band_map(source: BlueMarble, items: Sequence[SourceItem], path: Path) -> None:
    """Write a PNG of the map: its bands in one colour per split, and every tile's outline."""
    picture = source.picture()
    scale = MAP_WIDTH / picture.shape[1]
    size = (MAP_WIDTH, round(picture.shape[0] * scale))
    small = np.asarray(Image.fromarray(picture).resize(size)) * 0.75
    for band in source.bands():
        columns = slice(round(band.left * scale), round(band.right * scale))
        small[:, columns] += 0.25 * np.array(BAND_COLOURS[band.split])
    chart = Image.fromarray(small.round().astype(np.uint8))
    draw = ImageDraw.Draw(chart)
    for item in items:
        assert item.box is not None
        left, top, side = (scale * value for value in item.box)
        draw.rectangle(
            (left, top, left + side, top + side), outline=BAND_COLOURS[item.split], width=1
        )
    chart.save(path)
