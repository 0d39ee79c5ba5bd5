"""Family `inpaint`: a hole in a real image is refilled; everything around it stays real."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unigendet.forgeries.blocks import ResidualBlock
from unigendet.forgeries.config import InpaintConfig
from unigendet.forgeries.family import (
    Family,
    Progress,
    check_images,
    draw_noise,
    no_progress,
    seeded,
)
from unigendet.forgeries.fitting import fit_network
from unigendet.forgeries.texture import Grain, texture, texture_filters


class Filler(nn.Module):
    """Image with its hole smoothly filled (B, 3, H, W), mask (B, 1, H, W), noise (B, 2, H, W)
    -> the image with detail in the hole.

    What should be there is thought out at a quarter of the side, where growing dilation lets the
    rim reach the hole's middle; the grain is made from noise at full size.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter = nn.Sequential(
            nn.PixelUnshuffle(4), nn.Conv2d(6 * 16, 2 * width, 3, padding=1), nn.SiLU()
        )
        self.middle = nn.Sequential(
            *[ResidualBlock(2 * width, dilation) for dilation in (1, 2, 4, 1)]
        )
        self.widen = nn.Sequential(
            nn.Conv2d(2 * width, 16, 3, padding=1),
            # A transposed convolution would leave dots in a fill that is otherwise smooth.
            nn.Upsample(scale_factor=4, mode="bilinear", align_corners=False),
        )
        self.grain = Grain(16 + 6)

    def forward(self, filled: Tensor, mask: Tensor, noise: Tensor) -> Tensor:
        seen = torch.cat([filled, mask, noise], 1)
        plan = self.widen(self.middle(self.enter(seen)))
        detail: Tensor = self.grain(torch.cat([plan, seen], 1))
        return (filled + detail).clamp(-1, 1)


def smooth_fill(images: Tensor, mask: Tensor) -> Tensor:
    """Images (N, 3, H, W) with the hole of `mask` (N, 1, H, W) filled smoothly from its rim.

    A pyramid of averages over what is known; each level fills what the coarser ones cannot see.
    """
    known = 1 - mask
    if min(images.shape[2:]) < 2 or not mask.any():
        return images
    weight = F.avg_pool2d(known, 2)
    coarse = F.avg_pool2d(images * known, 2) / weight.clamp(min=1e-6)
    empty = (weight == 0).float()
    filled = smooth_fill(coarse * (1 - empty), empty)
    wide = F.interpolate(filled, size=images.shape[2:], mode="bilinear", align_corners=False)
    return images * known + wide * mask


class InpaintFamily(Family):
    """The hole is a rectangle of random size and place, filled from its surroundings and noise."""

    name: ClassVar[str] = "inpaint"

    def __init__(self, config: InpaintConfig) -> None:
        self.config = config
        self.filler = Filler(config.width).eval()

    def network(self) -> nn.Module:
        return self.filler

    def holes(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Masks (N, 1, H, W), 1 in the hole."""
        count, _, height, width = images.shape
        draws = torch.rand((count, 4), generator=generator)
        spread = self.config.max_side - self.config.min_side
        rows = ((self.config.min_side + spread * draws[:, 0]) * height).round()
        columns = ((self.config.min_side + spread * draws[:, 1]) * width).round()
        top = (draws[:, 2] * (height - rows)).floor()
        left = (draws[:, 3] * (width - columns)).floor()
        y, x = torch.arange(height), torch.arange(width)
        inside_y = (y >= top[:, None]) & (y < (top + rows)[:, None])
        inside_x = (x >= left[:, None]) & (x < (left + columns)[:, None])
        return (inside_y[:, :, None] & inside_x[:, None, :]).float()[:, None].to(images.device)

    def _fill(self, real: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        noise = draw_noise((len(mask), 2, *mask.shape[2:]), generator, mask)
        known = 1 - mask
        filled: Tensor = self.filler(smooth_fill(real * known, mask), mask, noise)
        return real * known + filled * mask

    def fit(
        self,
        images: Tensor,
        captions: Sequence[str],
        *,
        seed: int,
        progress: Progress = no_progress,
    ) -> float:
        check_images(images, captions, 8)

        filters = texture_filters(seed, images)

        def loss(real: Tensor, generator: torch.Generator) -> Tensor:
            mask = self.holes(real, generator)
            fake = self._fill(real, mask, generator)
            missed = ((fake - real).abs() * mask).sum() / (3 * mask.sum())
            grain = (texture(fake, filters) - texture(real, filters)).abs().mean()
            return missed + self.config.texture * grain

        return fit_network(
            self.filler, loss, images, self.config.fit, name=self.name, seed=seed, progress=progress
        )

    @torch.no_grad()
    def make(self, images: Tensor, captions: Sequence[str], *, seed: int) -> Tensor:
        check_images(images, captions, 8)
        generator = seeded(seed)
        return torch.cat(
            [self._fill(part, self.holes(part, generator), generator) for part in images.split(64)]
        )
