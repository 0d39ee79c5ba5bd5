"""Captions of satellite tiles, read off their colours and nothing else.

Every pixel is put into one kind of ground by its colour; the shares of the kinds and the
roughness of the tile make the sentence. No place is named, for the place is the split, and nothing
is claimed that the colours do not show.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PREFIX = "a satellite image of "
KINDS = (
    "snow",
    "pale desert",
    "desert",
    "red desert",
    "dry land",
    "brown scrubland",
    "green grassland",
    "forest",
    "water",
)
"""In the order in which the indexes of `ground_kinds` count."""

_SNOW, _PALE, _DESERT, _RED, _DRY, _SCRUB, _GREEN, _FOREST, _WATER = range(len(KINDS))

ALMOST_ALL, MUCH, SOME = 0.8, 0.35, 0.1
"""Shares of a tile from which a kind stands alone, is named beside another, or is `some`."""
SMOOTH, RUGGED = 2.6, 8.0
"""Roughness (see `GroundStatistics`) below and above which a tile is called so."""
PATCHES = 0.04
"""Share of snow from which a tile has patches of it; from `MUCH` on snow is named as ground."""
SHORE = 0.015
"""Share of water from which a tile is said to have any."""


@dataclass(frozen=True, slots=True)
class GroundStatistics:
    """What a caption is made of."""

    shares: tuple[float, ...]
    """Share of each kind in `KINDS`, in [0, 1], summing to 1."""
    roughness: float
    """Mean absolute difference of neighbouring pixels' luminance (0 to 255), water left out."""
    luminance: float
    """Mean luminance, 0 to 255."""


def luminance(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(..., 3) RGB -> (...) in [0, 255], the weights of ITU-R BT.601."""
    return np.asarray(image @ np.array([0.299, 0.587, 0.114]))


def water_mask(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(..., 3) -> (...): open water, which is blue beyond all land, or nearly black (lakes)."""
    red, green, blue = (image[..., channel].astype(np.int16) for channel in range(3))
    blue_water = (blue > red + 12) & (blue >= green) & (red < 110)
    turquoise = (green > red + 25) & (blue > red + 20)
    black_lake = (red < 14) & (green < 22) & (blue >= red)
    return np.asarray(blue_water | turquoise | black_lake)


def ground_kinds(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(..., 3) RGB -> (...) indexes into `KINDS`."""
    red, green = (image[..., channel].astype(np.float64) for channel in range(2))
    light = luminance(image)
    spread = image.max(-1).astype(np.float64) - image.min(-1)
    green_cast = green - red
    rules = (
        (_WATER, water_mask(image)),
        (_SNOW, (light > 100) & (spread < 0.22 * light)),
        (_RED, (red > 1.42 * green) & (light > 65)),
        (_PALE, (light > 165) & (green_cast < 0)),
        (_DESERT, (light > 118) & (green_cast < -6)),
        (_FOREST, (light < 50) & (green_cast >= 0)),
        (_GREEN, green_cast >= -3),
        (_DRY, light > 70),
    )
    kinds = np.full(light.shape, _SCRUB, dtype=np.uint8)
    for kind, mask in reversed(rules):
        kinds[mask] = kind
    return kinds


def measure(image: NDArray[np.uint8]) -> GroundStatistics:
    """Statistics of one tile, (H, W, 3) uint8."""
    kinds = ground_kinds(image)
    shares = np.bincount(kinds.ravel(), minlength=len(KINDS)) / kinds.size
    light = luminance(image)
    dry = kinds != _WATER
    steps = np.abs(np.diff(light, axis=1))[dry[:, 1:] & dry[:, :-1]]
    return GroundStatistics(
        shares=tuple(float(share) for share in shares),
        roughness=float(steps.mean()) if steps.size else 0.0,
        luminance=float(light.mean()),
    )


def describe(image: NDArray[np.uint8]) -> str:
    """The caption of one tile, (H, W, 3) uint8: about five to fifteen words."""
    return compose(measure(image))


def compose(statistics: GroundStatistics) -> str:
    """The sentence for `statistics`, the larger share named first."""
    ground = _ground(statistics.shares)
    if not ground:
        return PREFIX + "water"
    (first, first_share), *others = ground
    named = [name for name, share in others if share >= MUCH]
    some = [name for name, share in others if SOME <= share < MUCH]
    sentence = " and ".join([first, *named])
    # White patches in a desert are salt more often than snow, and the colours do not tell which.
    white = "white patches" if "desert" in first else "patches of snow"
    extras = [white] if PATCHES <= statistics.shares[_SNOW] < MUCH else []
    extras += ["a little water"] if statistics.shares[_WATER] >= SHORE else []
    if first_share < ALMOST_ALL and some:
        sentence += " with some " + " and ".join(some[: 1 if extras else 2])
    if extras:
        sentence += ", and " + " and ".join(extras)
    return f"{PREFIX}{_surface(statistics.roughness)}{sentence}"


def _ground(shares: tuple[float, ...]) -> list[tuple[str, float]]:
    """Names and shares of the land's kinds, largest first, the deserts counted as one."""
    land = 1.0 - shares[_WATER]
    if land < 0.05:
        return []
    deserts = {kind: shares[kind] for kind in (_PALE, _DESERT, _RED)}
    desert = sum(deserts.values())
    variety = max(deserts, key=lambda kind: deserts[kind])
    named = KINDS[variety] if deserts[variety] > 0.7 * desert else "desert"
    kinds = [(named, desert)]
    kinds += [(KINDS[kind], shares[kind]) for kind in (_DRY, _SCRUB, _GREEN, _FOREST)]
    if shares[_SNOW] >= MUCH:
        kinds.append((KINDS[_SNOW], shares[_SNOW]))
    ranked = sorted(kinds, key=lambda pair: pair[1], reverse=True)
    return [(name, share / land) for name, share in ranked]


def _surface(roughness: float) -> str:
    if roughness < SMOOTH:
        return "smooth "
    return "rugged " if roughness > RUGGED else ""
