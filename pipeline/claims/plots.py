"""The plot of docs/results.md: every seed's difference, its mean and interval, for each figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.claims.comparisons import Comparison

_INK, _GREY = "#1f3a5f", "#9aa3ad"


def draw_differences(
    path: Path, comparisons: Sequence[Comparison], words: Mapping[str, str]
) -> None:
    """A panel for each claim's main figure; to the right of 0 the full method is better."""
    from matplotlib.figure import Figure

    shown = [one for one in comparisons if one.claim.main]
    figure = Figure(figsize=(7.0, 0.6 + 1.15 * len(shown)), layout="constrained")
    for place, one in enumerate(shown):
        axes = figure.add_subplot(len(shown), 1, place + 1)
        sign = one.claim.better
        differences = sign * (np.asarray(one.full) - np.asarray(one.control))
        axes.axvline(0.0, color=_GREY, linewidth=1.0)
        axes.plot(differences, np.zeros(len(differences)), "o", color=_GREY, markersize=5)
        if one.student.low is not None and one.student.high is not None:
            ends = [sign * one.student.low, sign * one.student.high]
            axes.plot(ends, [0.5, 0.5], color=_INK, linewidth=2.0)
        axes.plot([sign * one.student.value], [0.5], "D", color=_INK, markersize=6)
        axes.set_ylim(-0.5, 1.0)
        axes.set_yticks([])
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.set_title(
            f"{one.claim.name} ({words[one.claim.figure]}, n = {one.student.seeds}): {one.verdict}",
            loc="left",
            fontsize=9,
        )
    figure.supxlabel("full better by: seeds (grey), mean and 95 % interval (blue)", fontsize=8)
    figure.savefig(path, dpi=120, metadata={"Software": None})
