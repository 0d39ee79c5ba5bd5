"""Figures as JSON holds them: never a number without its n, interval and seed."""

from __future__ import annotations

import math
from collections.abc import Mapping

from unigendet.metrics.bootstrap import Estimate

Figure = dict[str, float | int | None]
"""`value`, `low`, `high` (95 %), `n` of `n_total`, `sources`, `seed`; null where undefined."""


def figure(estimate: Estimate, seed: int) -> Figure:
    """One estimate. JSON has no NaN, so an undefined figure is null."""

    def number(value: float) -> float | None:
        return float(f"{value:.6g}") if math.isfinite(value) else None

    return {
        "value": number(estimate.value),
        "low": number(estimate.low),
        "high": number(estimate.high),
        "n": estimate.n,
        "n_total": estimate.n_total,
        "sources": estimate.groups,
        "seed": seed,
    }


def figures_of(estimates: Mapping[str, Estimate], seed: int) -> dict[str, Figure]:
    """Several estimates by name."""
    return {name: figure(estimate, seed) for name, estimate in estimates.items()}
