"""Teachers that look at the picture alone, through a network that was trained elsewhere."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from unigendet.config import ModelConfig
from unigendet.losses import resized_grids
from unigendet.types import AlignmentBatch


class ImageTeacher(nn.Module, ABC):
    """A frozen network's maps of the images that the student generates, on the student's grid.

    It sees the pixels that the autoencoder encodes; neither caption nor latents.

    Args:
        config: the student's, whose tokens stand for squares of so many pixels.
        width: channels of a feature.
    """

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__()
        self.cell = config.vae.downsample * config.latent_patch_size
        self.width = width

    @abstractmethod
    def maps(self, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, width, h, w) of images (B, 3, H, W) in [0, 1], whose tokens are `grid`."""

    @torch.no_grad()
    def forward(self, batch: AlignmentBatch) -> Tensor:
        """(Nf, width)."""
        grids = batch.grids()
        pixels = batch.teacher.pixels.float().add(1).div(2)  # (n, 3, H, W) in [0, 1], padded
        features: dict[int, Tensor] = {}
        for grid in dict.fromkeys(grids):
            places = [place for place, own in enumerate(grids) if own == grid]
            height, width = (side * self.cell for side in grid)
            maps = self.maps(pixels[places, :, :height, :width], grid)
            tokens = maps.flatten(2).transpose(1, 2).flatten(0, 1)  # (B h w, width)
            shape, count = (maps.shape[2], maps.shape[3]), len(places)
            resized = resized_grids(tokens, [shape] * count, [grid] * count)
            features |= zip(places, resized.chunk(count), strict=True)
        return torch.cat([features[place] for place in range(len(grids))])
