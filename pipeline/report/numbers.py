"""Figures of metrics.json as people read them: a value, its interval, nothing more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.report.html import Markup, element


@dataclass(frozen=True, slots=True)
class Measured:
    """One figure read back from metrics.json."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    n_total: int
    sources: int

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> Measured:
        sources = raw["sources"] if "sources" in raw else raw["groups"]
        return cls(raw["value"], raw["low"], raw["high"], raw["n"], raw["n_total"], sources)

    @property
    def n_text(self) -> str:
        """`96 images of 48 sources`, and of how many where some are missing."""
        of = f" (of {self.n_total})" if self.n_total != self.n else ""
        return f"{self.n}{of} images of {self.sources} sources"


def plain(value: float | None, digits: int = 3) -> str:
    return "undefined" if value is None else f"{value:.{digits}f}".replace("-", "\u2212")


def percent(value: float | None) -> str:
    return "undefined" if value is None else f"{100 * value:.1f} %".replace("-", "\u2212")


def with_range(measured: Measured, *, digits: int = 3, as_percent: bool = False) -> Markup:
    """`0.944 [0.912, 0.971]`, the interval smaller and paler."""
    if measured.value is None:
        return Markup("undefined")

    def one(value: float | None) -> str:
        if value is None:
            return "?"
        shown = f"{100 * value:.1f}" if as_percent else f"{value:.{digits}f}"
        return shown.replace("-", "\u2212")

    unit = " %" if as_percent else ""
    interval = f"[{one(measured.low)}, {one(measured.high)}]"
    return Markup(f"{one(measured.value)}{unit}{element('span', interval, class_='range')}")


def seconds(value: float) -> str:
    """`45 s`, `3 min 20 s`, `1 h 5 min`."""
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def mark(met: bool) -> Markup:
    """Met or missed, in words and colour."""
    return element("span", "met" if met else "missed", class_=f"mark {'yes' if met else 'no'}")
