"""What can be measured on an image that tells generated pixels from photographed ones.

Every measure is a number about the image alone, unchanged by flips and quarter turns, so that a
statement made from it stays true under the training's augmentation. Which measures count, and from
which value on, is fitted elsewhere (`unigendet.explanations`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BLOCK = 4
"""Side of the small areas that flatness is about, in pixels."""
FLAT = 2.0
"""Standard deviation, in grey levels of 255, below which a small area is flat."""
SMALLEST = 16
"""Least side of an image that can be measured, in pixels."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """The measures of one image."""

    fall_off: float
    """Slope of log10 power over log10 frequency from 1/16 to 1/2 cycles per pixel; more negative is
    steeper."""
    fine_detail: float
    """Power beyond 1/4 cycles per pixel relative to all but the mean, in dB (at most 0)."""
    grid: float
    """How far frequencies that are multiples of 1/4 cycles per pixel along both axes, where
    upsampling leaves its pattern, stand above their neighbours, in dB."""
    noise: float
    """Mean absolute difference of luminance from the median of 3 x 3 pixels, in grey levels."""
    unevenness: float
    """Standard deviation over 8 x 8 blocks of the log10 of that difference's mean."""
    flatness: float
    """Share of 4 x 4 areas whose luminance deviates by less than 2 grey levels, 0 to 1."""
    channel_agreement: float
    """Mean correlation between the channels' differences from their 3 x 3 medians, -1 to 1."""
    saturation: float
    """Mean difference between the largest and the smallest channel, in grey levels."""
    edge_contrast: float
    """log10 of the 98th percentile of the luminance gradient over its median."""


MEASURES: tuple[str, ...] = tuple(field.name for field in fields(Evidence))


def measure(image: NDArray[np.uint8]) -> Evidence:
    """Measure (H, W, 3) uint8 RGB, sides of at least 16 px. Raises ValueError for anything else."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"evidence needs an (H, W, 3) uint8 image, got {image.shape} {image.dtype}"
        )
    if min(image.shape[:2]) < SMALLEST:
        raise ValueError(f"evidence needs sides of at least {SMALLEST} px, got {image.shape[:2]}")
    channels = image.astype(np.float64)
    light = channels @ np.array([0.299, 0.587, 0.114])
    power, frequency = _spectrum(light)
    residual = light - _median3(light)
    return Evidence(
        fall_off=_fall_off(power, frequency),
        fine_detail=_fine_detail(power, frequency),
        grid=_grid(light),
        noise=float(np.abs(residual).mean()),
        unevenness=float(np.log10(_blocks(np.abs(residual), 8).mean((1, 2)) + 0.05).std()),
        flatness=float((_blocks(light, BLOCK).std((1, 2)) < FLAT).mean()),
        channel_agreement=_channel_agreement(channels),
        saturation=float((channels.max(-1) - channels.min(-1)).mean()),
        edge_contrast=_edge_contrast(light),
    )


def as_array(evidence: Evidence) -> Floats:
    """The measures in the order of `MEASURES`."""
    return np.array([getattr(evidence, name) for name in MEASURES], dtype=np.float64)


def _spectrum(light: Floats) -> tuple[Floats, Floats]:
    """Power of the windowed image and the radial frequency of each bin, in cycles per pixel."""
    height, width = light.shape
    window = np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[None, 1:-1]
    power = np.abs(np.fft.fft2((light - light.mean()) * window)) ** 2
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    return power, frequency


def _fall_off(power: Floats, frequency: Floats) -> float:
    edges = np.geomspace(1 / 16, 1 / 2, 9)
    band = np.digitize(frequency, edges)
    means = np.array([power[band == index].mean() for index in range(1, len(edges))])
    centres = np.sqrt(edges[1:] * edges[:-1])
    # A constant image has no power anywhere: the floor makes its slope 0 instead of infinite.
    slope, _ = np.polyfit(np.log10(centres), np.log10(means + 1e-3), 1)
    return float(slope)


def _fine_detail(power: Floats, frequency: Floats) -> float:
    everything = power[frequency > 0].sum() + 1e-3
    return float(10 * np.log10((power[frequency > 0.25].sum() + 1e-3) / everything))


def _grid(light: Floats) -> float:
    """Unwindowed, on a crop of whole periods, so that a pattern of period 4 fills single bins."""
    height, width = (side - side % 8 for side in light.shape)
    detail = light[:height, :width]
    detail = detail - (np.roll(detail, 1, 0) + np.roll(detail, -1, 0)
                       + np.roll(detail, 1, 1) + np.roll(detail, -1, 1)) / 4  # fmt: skip
    # Wrapping around would make edges of its own: the rim is faded out over four pixels.
    detail = detail * np.outer(_taper(height), _taper(width))
    level = np.log10(np.abs(np.fft.fft2(detail)) ** 2 + 1e-3)
    rows, columns = np.meshgrid(
        np.arange(0, height, height // 4), np.arange(0, width, width // 4), indexing="ij"
    )
    lattice = np.stack([rows.ravel(), columns.ravel()], 1)[1:]
    heights = []
    for row, column in lattice:
        around = level[
            np.ix_(np.arange(row - 3, row + 4) % height, np.arange(column - 3, column + 4) % width)
        ]
        ring = np.ones((7, 7), dtype=bool)
        ring[2:5, 2:5] = False
        heights.append(level[row, column] - np.median(around[ring]))
    return float(10 * np.mean(heights))


def _taper(size: int) -> Floats:
    ramp = np.minimum(np.arange(1, size + 1), np.arange(size, 0, -1)) / 5
    return np.minimum(ramp, 1.0)


def _median3(plane: Floats) -> Floats:
    padded = np.pad(plane, 1, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
    # Sorting rows of nine is fifty times as fast as numpy's median over windows.
    return np.sort(windows.reshape(-1, 9), axis=1)[:, 4].reshape(plane.shape)


def _blocks(plane: Floats, side: int) -> Floats:
    """(H, W) -> (blocks, side, side); a rim that fills no block is left out."""
    rows, columns = plane.shape[0] // side, plane.shape[1] // side
    cut = plane[: rows * side, : columns * side].reshape(rows, side, columns, side)
    return cut.transpose(0, 2, 1, 3).reshape(-1, side, side)


def _channel_agreement(channels: Floats) -> float:
    residuals = [channels[..., c] - _median3(channels[..., c]) for c in range(3)]
    flat = np.stack([residual.ravel() for residual in residuals])
    flat = flat - flat.mean(1, keepdims=True)
    covariance = flat @ flat.T / flat.shape[1]
    spread = np.sqrt(np.diag(covariance)) + 1e-3
    correlation = covariance / np.outer(spread, spread)
    return float((correlation[0, 1] + correlation[1, 2] + correlation[0, 2]) / 3)


def _edge_contrast(light: Floats) -> float:
    rise = np.hypot(light[2:, 1:-1] - light[:-2, 1:-1], light[1:-1, 2:] - light[1:-1, :-2])
    return float(np.log10((np.percentile(rise, 98) + 0.1) / (np.median(rise) + 0.1)))
