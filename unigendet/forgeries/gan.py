"""Family `gan`: a super-resolution GAN draws the detail of a shrunken real image anew."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unigendet.forgeries.blocks import ResidualBlock, doubling
from unigendet.forgeries.config import GanConfig
from unigendet.forgeries.family import (
    Family,
    Progress,
    check_images,
    draw_noise,
    no_progress,
    seeded,
)
from unigendet.forgeries.fitting import fit_adversarial

NOISE_CHANNELS = 4


class Upscaler(nn.Module):
    """Small image (B, 3, h, w) and noise (B, 4, h, w) -> image (B, 3, h * scale, w * scale)."""

    def __init__(self, width: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        layers: list[nn.Module] = [nn.Conv2d(3 + NOISE_CHANNELS, 2 * width, 3, padding=1)]
        layers += [ResidualBlock(2 * width), ResidualBlock(2 * width)]
        channels = 2 * width
        for _ in range(int(math.log2(scale))):
            following = max(16, channels // 2)
            layers += [doubling(channels, following), nn.SiLU()]
            channels = following
        layers += [ResidualBlock(channels), nn.Conv2d(channels, 3, 3, padding=1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, small: Tensor, noise: Tensor) -> Tensor:
        base = F.interpolate(small, scale_factor=self.scale, mode="bilinear", align_corners=False)
        image: Tensor = base + self.layers(torch.cat([small, noise], 1))
        return image.clamp(-1, 1)


class GanFamily(Family):
    """Its fakes keep a real image's layout; everything finer than `scale` pixels is invented."""

    name: ClassVar[str] = "gan"

    def __init__(self, config: GanConfig) -> None:
        self.config = config
        self.upscaler = Upscaler(config.width, config.scale).eval()

    def network(self) -> nn.Module:
        return self.upscaler

    def _redraw(self, real: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        small = F.avg_pool2d(real, self.config.scale)
        shape = (len(real), NOISE_CHANNELS, *small.shape[2:])
        return self.upscaler(small, draw_noise(shape, generator, real)), small

    def fit(
        self,
        images: Tensor,
        captions: Sequence[str],
        *,
        seed: int,
        progress: Progress = no_progress,
    ) -> float:
        check_images(images, captions, 8)

        def redraw(real: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            fake, small = self._redraw(real, generator)
            layout = F.l1_loss(F.avg_pool2d(fake, self.config.scale), small)
            return fake, layout + 0.5 * F.l1_loss(fake, real)

        return fit_adversarial(
            self.upscaler, redraw, images, self.config.fit, weight=self.config.adversarial,
            width=self.config.width, name=self.name, seed=seed, progress=progress,
        )  # fmt: skip

    @torch.no_grad()
    def make(self, images: Tensor, captions: Sequence[str], *, seed: int) -> Tensor:
        check_images(images, captions, 8)
        generator = seeded(seed)
        return torch.cat([self._redraw(part, generator)[0] for part in images.split(64)])
