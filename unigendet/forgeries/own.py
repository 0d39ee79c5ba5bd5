"""Families `reconstruction` and `flow`: the project's own autoencoder and its own generator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from unigendet.forgeries.config import FlowConfig, ReconstructionConfig
from unigendet.forgeries.family import Family, Progress, check_images, no_progress

if TYPE_CHECKING:
    from unigendet.inference import UniGenDet


class _OwnFamily(Family):
    """A family whose weights are those of a finished generator: nothing to fit, nothing to save."""

    def network(self) -> None:
        return None

    def fit(
        self,
        images: Tensor,
        captions: Sequence[str],
        *,
        seed: int,
        progress: Progress = no_progress,
    ) -> float:
        """Nothing to learn; the loss is 0."""
        return 0.0


class ReconstructionFamily(_OwnFamily):
    """Encode, take the posterior's mean, decode."""

    name: ClassVar[str] = "reconstruction"

    def __init__(self, config: ReconstructionConfig, generator: UniGenDet) -> None:
        self.config, self.generator = config, generator

    @torch.no_grad()
    def make(self, images: Tensor, captions: Sequence[str], *, seed: int) -> Tensor:
        check_images(images, captions, self.generator.config.vae.downsample)
        vae = self.generator.vae
        parts = [vae.decode(vae.encode(part)) for part in images.split(self.config.batch_size)]
        return torch.cat(parts).clamp(-1, 1)


class FlowFamily(_OwnFamily):
    """Samples of the flow-matching generator for the captions of the real images."""

    name: ClassVar[str] = "flow"

    def __init__(self, config: FlowConfig, generator: UniGenDet) -> None:
        self.config, self.generator = config, generator

    @torch.no_grad()
    def make(self, images: Tensor, captions: Sequence[str], *, seed: int) -> Tensor:
        check_images(images, captions, self.generator.config.vae.downsample)
        height, width = images.shape[2:]
        drawn = self.generator.generate(
            list(captions),
            size=(height, width),
            steps=self.config.steps,
            guidance=self.config.guidance,
            seed=seed,
            batch_size=self.config.batch_size,
        )
        pixels = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).to(images)
        return pixels / 127.5 - 1
