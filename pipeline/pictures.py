"""Pictures for people: rows of images, one column per caption."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

_SIDE, _GAP, _LABEL, _TEXT = 112, 6, 96, 58
"""Pixels: an image's side, the gap between images, the label column, the caption below a column."""


def draw_rows(
    path: Path,
    rows: Sequence[tuple[str, Sequence[NDArray[np.uint8]]]],
    captions: Sequence[str],
    *,
    columns: int = 8,
) -> None:
    """Write a PNG of labelled rows of (H, W, 3) uint8 images; column i shows `captions[i]`.

    More than `columns` captions go on in a further band of the same rows.
    """
    assert all(len(images) == len(captions) for _, images in rows), "one image per caption and row"
    bands = [
        range(start, min(start + columns, len(captions)))
        for start in range(0, len(captions), columns)
    ]
    band_height = len(rows) * (_SIDE + _GAP) + _TEXT
    width = _LABEL + min(columns, len(captions)) * (_SIDE + _GAP)
    sheet = Image.new("RGB", (width, len(bands) * band_height + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for band, places in enumerate(bands):
        top = band * band_height + _GAP
        for row, (label, images) in enumerate(rows):
            y = top + row * (_SIDE + _GAP)
            draw.multiline_text((4, y + 4), "\n".join(textwrap.wrap(label, 14)), fill="black")
            for column, place in enumerate(places):
                picture = Image.fromarray(images[place])
                picture = picture.resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
                sheet.paste(picture, (_LABEL + column * (_SIDE + _GAP), y))
        for column, place in enumerate(places):
            lines = textwrap.wrap(captions[place], 19)[:4]
            where = (_LABEL + column * (_SIDE + _GAP), top + len(rows) * (_SIDE + _GAP))
            draw.multiline_text(where, "\n".join(lines), fill="black", font_size=10)
    sheet.save(path)
