"""Flow matching: timesteps, the straight path from data to noise, latent tokens (specification 5).

t = 0 is data and t = 1 is noise: `x_t = (1 - t) x_data + t noise`, `velocity = noise - x_data`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def shift_timestep(u: Tensor, shift: float) -> Tensor:
    """`s u / (1 + (s - 1) u)`: moves timesteps in [0, 1] towards noise where `shift` > 1."""
    return shift * u / (1 + (shift - 1) * u)


def timestep_from_raw(raw: Tensor, shift: float) -> Tensor:
    """Timesteps in [0, 1] of N(0, 1) draws; -inf, a clean image, gives exactly 0."""
    return shift_timestep(torch.sigmoid(raw), shift)


def noised(x_data: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """`x_t` of tokens (N, C) at per-token timesteps t (N,)."""
    return (1 - t[:, None]) * x_data + t[:, None] * noise


def velocity_target(x_data: Tensor, noise: Tensor) -> Tensor:
    """The velocity of the straight path, from data to noise."""
    return noise - x_data


def patchify_latents(latents: Tensor, shapes: Sequence[tuple[int, int]], patch: int) -> Tensor:
    """Latents to tokens, cropping the padding of a common batch.

    Args:
        latents: (n, z, H, W).
        shapes: (rows, columns) of each image in patches, with `rows * patch <= H`.
        patch: the side of a latent patch.

    Returns:
        (sum of rows * columns, patch * patch * z): images one after another, raster order, values
        (row in patch, column in patch, channel).
    """
    if not shapes:
        return latents.new_zeros(0, patch**2 * latents.shape[1])
    if len(set(shapes)) == 1:
        return _tokens(latents, shapes[0], patch)
    images = [_tokens(latents[i : i + 1], shape, patch) for i, shape in enumerate(shapes)]
    return torch.cat(images)


def _tokens(latents: Tensor, shape: tuple[int, int], patch: int) -> Tensor:
    (rows, columns), channels = shape, latents.shape[1]
    cropped = latents[:, :, : rows * patch, : columns * patch]
    cells = cropped.reshape(-1, channels, rows, patch, columns, patch)
    return cells.permute(0, 2, 4, 3, 5, 1).reshape(-1, patch * patch * channels)


def unpatchify_latents(tokens: Tensor, shape: tuple[int, int], patch: int) -> Tensor:
    """Tokens of images of one size (n * rows * columns, patch * patch * z) -> (n, z, H, W)."""
    rows, columns = shape
    cells = tokens.reshape(-1, rows, columns, patch, patch, tokens.shape[1] // patch**2)
    return cells.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
