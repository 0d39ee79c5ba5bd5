"""What a sweep searches, and its first guess."""

from __future__ import annotations

import math
from typing import Any

from pipeline.loss_weights import AlignmentWeights
from pipeline.sections.sweep import RANGES, SweepSection


def first_guess(section: SweepSection) -> dict[str, float | int]:
    """The first trial: the middle of every range on a log scale, so that a small sweep has one."""
    guess: dict[str, float | int] = {
        name: math.sqrt(math.prod(getattr(section, name))) for name in RANGES
    }
    guess["tap_layer"] = section.tap_layers[len(section.tap_layers) // 2]
    return guess


def search_space(section: SweepSection) -> dict[str, Any]:
    """The same ranges as Ray Tune takes them."""
    from ray import tune

    space: dict[str, Any] = {name: tune.loguniform(*getattr(section, name)) for name in RANGES}
    space["tap_layer"] = tune.choice(list(section.tap_layers))
    return space


def from_the_middle(weights: AlignmentWeights, section: SweepSection) -> float:
    """How far weights are from the first guess: 0 for itself, 0.5 at the end of one range.

    The Euclidean distance where each range (on a log scale) and the list of layers have length 1.
    """
    guess, squares = first_guess(section), 0.0
    for name in RANGES:
        low, high = getattr(section, name)
        if low < high:
            share = math.log(getattr(weights, name) / guess[name]) / math.log(high / low)
            squares += share**2
    layers = list(section.tap_layers)
    if len(layers) > 1:
        moved = layers.index(weights.tap_layer) - layers.index(int(guess["tap_layer"]))
        squares += (moved / (len(layers) - 1)) ** 2
    return math.sqrt(squares)
