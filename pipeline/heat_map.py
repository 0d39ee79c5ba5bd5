"""Who fools whom as a picture: the AUROCs of a co-evolution's detectors on its generators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.phases import phase_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WHO_FOOLS_WHOM = "who_fools_whom.json"
"""`half_rounds` in order of time, each a detector and a generator; `cells[detector][generator]` has
the figures `auroc`, `mean_score` (P(fake)) and `fooled` (share of the generator's images with a
score of at most 0.5); `reals[detector]` has `mean_score` and `called_fake`; `kd[half-round]` is the
kernel distance of what it drew; `images`, `steps` and `guidance` say how it was drawn."""

_FOOLED, _CHANCE, _SEEN_THROUGH = "#b3562e", "#f7f7f5", "#2b5f8f"
_INK, _MUTED = "#1d2126", "#5c6570"
_ROOM = 7
"""Columns up to which a cell has room for all of its figures."""


def size_of(matrix: Mapping[str, Any]) -> tuple[float, float]:
    """(width, height) in inches at which the text of all cells is read."""
    count = len(matrix["half_rounds"])
    return 2.2 + 1.15 * count, 1.0 + 0.75 * count


def draw_heat_map(axes: Axes, matrix: Mapping[str, Any]) -> None:
    """Fill `axes`: detectors from the top down, generators from left to right, in order of time.

    Blue where a detector tells fakes from real (AUROC 1), pale at chance (0.5), rust below it.
    """
    from matplotlib.colors import LinearSegmentedColormap

    names = matrix["half_rounds"]
    cells = [[matrix["cells"][row][column] for column in names] for row in names]
    values = np.array([[float(cell["auroc"]["value"]) for cell in row] for row in cells])
    colours = LinearSegmentedColormap.from_list("fooling", [_FOOLED, _CHANCE, _SEEN_THROUGH])
    axes.pcolormesh(values, cmap=colours, vmin=0.0, vmax=1.0, edgecolors="white", linewidth=2)
    for (row, column), value in np.ndenumerate(values):
        axes.text(
            column + 0.5,
            row + 0.5,
            _words(cells[row][column], short=len(names) > _ROOM),
            color="white" if abs(value - 0.5) > 0.36 else _INK,
            fontsize=8.5,
            ha="center",
            va="center",
        )
    axes.invert_yaxis()
    places = np.arange(len(names)) + 0.5
    axes.set_xticks(places, [phase_label(name) for name in names], fontsize=9.5, color=_INK)
    axes.set_yticks(places, [_row(matrix, name) for name in names], fontsize=9, color=_INK)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("generator", fontsize=9.5, color=_MUTED)
    axes.set_ylabel("detector", fontsize=9.5, color=_MUTED)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def _words(cell: Mapping[str, Any], *, short: bool) -> str:
    auroc = cell["auroc"]
    value = f"{auroc['value']:.3f}"
    if short:
        return value
    lines = [
        value,
        f"[{auroc['low']:.2f}, {auroc['high']:.2f}]",
        f"P(fake) {cell['mean_score']['value']:.3f}",
        f"{100 * cell['fooled']['value']:.0f} % pass as real",
    ]
    return "\n".join(lines)


def _row(matrix: Mapping[str, Any], detector: str) -> str:
    share = 100 * matrix["reals"][detector]["called_fake"]["value"]
    return f"{phase_label(detector)}\n{share:.0f} % of real called fake"
