"""Charts as inline SVG: small, with text as text, drawn at the width at which they are read."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pipeline.heat_map import draw_heat_map, size_of
from pipeline.report.html import Markup
from pipeline.report.numbers import Measured
from pipeline.report.style import GREY, INK, MUTED, RULE, SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Line = tuple[Sequence[float], Sequence[float]]
_WIDTH, _SMALL = 4.8, 3.5
"""Inches. The page scales a chart to its column, so a narrow one has the larger letters."""
_NAMES = 6
"""Names that fit below a small chart; of more, evenly many are left out."""
_FLAT = 0.004
"""AUROCs that differ by less are drawn as nearly equal."""
_OUTER = re.compile(r"<svg\b[^>]*viewBox=\"([^\"]+)\"[^>]*>", re.DOTALL)


def _new(height: float, width: float = _WIDTH) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure as NewFigure

    figure = NewFigure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#b9c0c9")
    axes.tick_params(colors=MUTED, labelsize=9.5, length=3, width=0.8, color="#b9c0c9")
    axes.grid(color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Figure, label: str) -> Markup:
    """The figure without its fixed size, so that the page's column decides it."""
    import matplotlib

    buffer = io.StringIO()
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": label, "font.family": "sans-serif"}
    with matplotlib.rc_context(settings):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    drawn = buffer.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = _OUTER.sub(rf'<svg viewBox="\1" role="img" aria-label="{label}">', drawn, count=1)
    return Markup(re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL))


def _title(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=10.5, color=INK, pad=8, fontweight="bold")
    axes.set_xlabel(x, fontsize=9.5, color=MUTED)
    axes.set_ylabel(y, fontsize=9.5, color=MUTED)


def _legend(axes: Axes, count: int) -> None:
    if count > 1:
        box = axes.legend(fontsize=9.5, labelcolor=INK, handlelength=1.4, edgecolor="none")
        box.get_frame().set_alpha(0.85)


def lines(
    title: str, x: str, y: str, series: Mapping[str, Line], *, until: float | None = None
) -> Markup:
    """One line for each name; a single one needs no legend. The x axis goes from 0 to `until`."""
    figure, axes = _new(2.1, _SMALL)
    for colour, (name, (xs, ys)) in zip(_colours(len(series)), series.items(), strict=True):
        axes.plot(xs, ys, color=colour, linewidth=1.6, label=name)
    axes.margins(x=0.01)
    if until is not None:
        axes.set_xlim(0, until)
    _title(axes, title, x, y)
    _legend(axes, len(series))
    return _svg(figure, title)


def strengths(title: str, x: str, series: Mapping[str, Line], untouched: float) -> Markup:
    """What becomes of a figure from `untouched`, at the left, to the strongest disturbance."""
    figure, axes = _new(2.5)
    for colour, (name, (xs, ys)) in zip(_colours(len(series)), series.items(), strict=True):
        axes.plot(xs, ys, "o-", color=colour, linewidth=1.6, markersize=4, label=name)
    if any(place < untouched for xs, _ in series.values() for place in xs):
        axes.invert_xaxis()
    axes.axhline(0.5, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    _title(axes, title, x, "AUROC")
    # Beside the lines, which may be many and leave no corner free.
    axes.legend(
        fontsize=9, labelcolor=INK, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5)
    )
    return _svg(figure, title)


def roc(title: str, curves: Mapping[str, Line]) -> Markup:
    """Detection over false alarms, with the line of chance."""
    figure, axes = _new(4.2)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    for colour, (name, (xs, ys)) in zip(_colours(len(curves)), curves.items(), strict=True):
        axes.plot(xs, ys, color=colour, linewidth=1.8, label=name, drawstyle="steps-post")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), aspect="equal")
    _title(axes, title, "real images called fake", "fakes found")
    axes.legend(frameon=False, fontsize=9.5, labelcolor=INK, loc="lower right")
    return _svg(figure, title)


def scores(title: str, real: Sequence[float], fake: Sequence[float]) -> Markup:
    """How often each score was given, to real and to fake images, each summing to 100 %."""
    figure, axes = _new(2.5)
    edges = [step / 20 for step in range(21)]
    for values, colour, name in ((real, SERIES[0], "real"), (fake, SERIES[1], "fake")):
        if values:
            weights = [100.0 / len(values)] * len(values)
            axes.hist(values, edges, weights=weights, color=colour, alpha=0.28)
            axes.hist(
                values, edges, weights=weights, color=colour, histtype="step", label=name, lw=1.5
            )
    axes.axvline(0.5, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_xlim(-0.01, 1.01)
    _title(axes, title, "score, P(fake)", "share of images, %")
    _legend(axes, 2)
    return _svg(figure, title)


def intervals(
    title: str, x: str, rows: Mapping[str, Measured], *, mark: float | None = None
) -> Markup:
    """A point and its interval for each name, from the top down; `mark` draws a line across."""
    figure, axes = _new(0.75 + 0.34 * len(rows))
    for place, (name, measured) in enumerate(rows.items()):
        if measured.value is None or measured.low is None or measured.high is None:
            continue
        axes.plot([measured.low, measured.high], [place, place], color=SERIES[0], linewidth=2.2)
        axes.plot([measured.value], [place], "o", color=SERIES[0], markersize=5.5, label=name)
    axes.set_yticks(range(len(rows)), list(rows), fontsize=10, color=INK)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    if mark is not None:
        axes.axvline(mark, color=GREY, linewidth=1)
    _title(axes, title, x, "")
    return _svg(figure, title)


def course(
    title: str, names: Sequence[str], measured: Sequence[Measured], *, most: float | None = None
) -> Markup:
    """One value for each name in order, with its interval if it has one; none is above `most`."""
    figure, axes = _new(2.1, _SMALL)
    places = range(len(names))
    values = [float("nan") if one.value is None else one.value for one in measured]
    axes.plot(places, values, "o-", color=SERIES[0], linewidth=1.6, markersize=4.5)
    for place, one in zip(places, measured, strict=True):
        if one.low is not None and one.high is not None:
            axes.plot([place, place], [one.low, one.high], color=SERIES[0], alpha=0.45, linewidth=2)
    every = -(-len(names) // _NAMES)
    axes.set_xticks(list(places)[::every], list(names)[::every])
    axes.margins(x=0.06, y=0.12)
    axes.ticklabel_format(axis="y", useOffset=False)
    low, high = axes.get_ylim()
    if most is not None and high > most:
        axes.set_ylim(low, most + 0.05 * (most - low))
    _title(axes, title, "", "")
    return _svg(figure, title)


def matrix(title: str, found: Mapping[str, Any]) -> Markup:
    """who_fools_whom.json as coloured cells (`pipeline.heat_map`)."""
    figure, axes = _new(*reversed(size_of(found)))
    draw_heat_map(axes, found)
    axes.set_title(title, loc="left", fontsize=10.5, color=INK, pad=8, fontweight="bold")
    return _svg(figure, title)


@dataclass(frozen=True, slots=True)
class Tried:
    """A trial in the picture of two objectives."""

    name: str
    x: float
    """Distance, lower is better."""
    y: float
    """AUROC, higher is better."""
    noise: tuple[float, float]
    """Of x and of y, to either side."""
    kind: Literal["front", "other", "repeat"]
    chosen: bool


def pareto(title: str, x: str, tried: Sequence[Tried]) -> Markup:
    """AUROC over distance: the front joined and with its noise, the chosen trial ringed."""
    figure, axes = _new(3.2, 5.6)
    front = sorted((one for one in tried if one.kind == "front"), key=lambda one: one.x)
    axes.plot([t.x for t in front], [t.y for t in front], color=SERIES[0], linewidth=1.2, alpha=0.6)
    for one in tried:
        colour = SERIES[0] if one.kind == "front" else GREY
        if one.kind == "front" and any(one.noise):
            # No AUROC is above 1.
            up_down = [[one.noise[1]], [min(one.noise[1], 1 - one.y)]]
            axes.errorbar(
                one.x, one.y, up_down, one.noise[0], ecolor=colour, elinewidth=1, alpha=0.55
            )
        inside = "white" if one.kind == "repeat" else colour
        axes.plot(one.x, one.y, "o", color=colour, markerfacecolor=inside, markersize=6)
        if one.chosen:
            axes.plot(one.x, one.y, "o", color=SERIES[1], markersize=13, markerfacecolor="none")
        if one.kind != "repeat":
            axes.annotate(
                one.name,
                (one.x, one.y),
                (8, -14),
                textcoords="offset points",
                color=INK,
                fontsize=9.5,
            )
    axes.margins(0.18)
    low, high = min(one.y for one in tried), max(one.y for one in tried)
    if high - low < _FLAT:
        # Differences of rounding would otherwise fill the axis.
        axes.set_ylim((low + high) / 2 - _FLAT, (low + high) / 2 + _FLAT)
    axes.ticklabel_format(useOffset=False)
    _title(axes, title, x, "AUROC on validation fakes")
    return _svg(figure, title)


def _colours(count: int) -> list[str]:
    return [SERIES[place % len(SERIES)] for place in range(count)]
