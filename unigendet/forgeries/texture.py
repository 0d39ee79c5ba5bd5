"""Grain: what makes it, and what rewards it where pixels cannot be foretold."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unigendet.forgeries.family import seeded

FILTERS = 24


class Grain(nn.Module):
    """Pixels from a plan and noise at full size: (B, channels, H, W) -> (B, 3, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, 3, 3, padding=1)
        )

    def forward(self, plan: Tensor) -> Tensor:
        pixels: Tensor = self.layers(plan)
        return pixels


def texture_filters(seed: int, like: Tensor) -> Tensor:
    """Random filters (24, 3, 5, 5) that ignore flat colour, on the device of `like`."""
    filters = torch.randn((FILTERS, 3, 5, 5), generator=seeded(seed))
    return (filters - filters.mean((2, 3), keepdim=True)).to(like.device)


def texture(images: Tensor, filters: Tensor) -> Tensor:
    """How strongly each filter answers around each place: (N, 3, H, W) -> (N, 24, H / 8, W / 8).

    It tells grain and its direction without saying where each grain lies, so that an image which
    is not determined by what the network knows is rewarded for detail instead of for blur.
    """
    return F.avg_pool2d(F.conv2d(images, filters, padding=2).abs(), 8)
