"""Convolution blocks that the families share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside an identity: (B, C, H, W) -> the same shape."""

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.second(F.silu(self.first(F.silu(self.norm(x)))))
        return x + change


def doubling(inputs: int, outputs: int) -> nn.Module:
    """Twice the side by a transposed convolution, whose overlap leaves a faint regular pattern."""
    return nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
