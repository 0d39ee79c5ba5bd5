"""Family `ddpm`: a pixel-space diffusion model takes part-noised real images back to clean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unigendet.forgeries.config import DdpmConfig
from unigendet.forgeries.family import (
    Family,
    Progress,
    check_images,
    draw_noise,
    no_progress,
    seeded,
)
from unigendet.forgeries.fitting import fit_network

TIMESTEPS = 1000


def signal_shares() -> Tensor:
    """Cumulative signal power of the linear schedule (DDPM, Ho et al. 2020): (1000,), falling."""
    betas = torch.linspace(1e-4, 0.02, TIMESTEPS, dtype=torch.float64)
    return torch.cumprod(1 - betas, 0).float()


class DdpmFamily(Family):
    """`UNet2DModel` of diffusers on pixel-unshuffled images, predicting the velocity.

    Velocity (Salimans & Ho 2022): v = a noise - s clean, of noisy = a clean + s noise with
    a^2 = signal share and s^2 = 1 - a^2; so clean = a noisy - s v and noise = s noisy + a v.
    """

    name: ClassVar[str] = "ddpm"

    def __init__(self, config: DdpmConfig) -> None:
        from diffusers.models.unets.unet_2d import UNet2DModel  # ten seconds to import

        self.config = config
        channels = 3 * config.patch**2
        self.unet = UNet2DModel(
            in_channels=channels,
            out_channels=channels,
            layers_per_block=1,
            block_out_channels=(config.width, 2 * config.width, 2 * config.width),
            down_block_types=("DownBlock2D",) * 3,
            up_block_types=("UpBlock2D",) * 3,
            norm_num_groups=8,
            add_attention=False,
        ).eval()
        self.signal = signal_shares()
        self.last = max(1, round(config.strength * TIMESTEPS))

    def network(self) -> nn.Module:
        network: nn.Module = self.unet
        return network

    def _velocity(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        predicted: Tensor = self.unet(noisy, timesteps).sample
        return predicted

    def fit(
        self,
        images: Tensor,
        captions: Sequence[str],
        *,
        seed: int,
        progress: Progress = no_progress,
    ) -> float:
        check_images(images, captions, 4 * self.config.patch)

        shares = self.signal.to(images.device)

        def loss(real: Tensor, generator: torch.Generator) -> Tensor:
            x = F.pixel_unshuffle(real, self.config.patch)
            timesteps = torch.randint(self.last, (len(x),), generator=generator).to(x.device)
            noise = draw_noise(x.shape, generator, x)
            signal = shares[timesteps].view(-1, 1, 1, 1)
            noisy = signal.sqrt() * x + (1 - signal).sqrt() * noise
            velocity = signal.sqrt() * noise - (1 - signal).sqrt() * x
            return F.mse_loss(self._velocity(noisy, timesteps), velocity)

        return fit_network(
            self.unet, loss, images, self.config.fit, name=self.name, seed=seed, progress=progress
        )

    @torch.no_grad()
    def make(self, images: Tensor, captions: Sequence[str], *, seed: int) -> Tensor:
        check_images(images, captions, 4 * self.config.patch)
        x = F.pixel_unshuffle(images, self.config.patch)
        steps = (
            torch.linspace(self.last - 1, 0, self.config.sample_steps + 1).round().long().tolist()
        )
        noise = draw_noise(x.shape, seeded(seed), x)
        shares = self.signal.to(x.device)
        signal = shares[steps[0]]
        x = signal.sqrt() * x + (1 - signal).sqrt() * noise
        for step, following in zip(steps, [*steps[1:], None], strict=True):
            # DDIM (Song et al. 2021, equation 12) without added noise; the last step ends clean.
            signal = shares[step]
            target = shares[following] if following is not None else torch.ones_like(signal)
            velocity = torch.cat(
                [
                    self._velocity(part, torch.full((len(part),), step, device=x.device))
                    for part in x.split(64)
                ]
            )
            clean = (signal.sqrt() * x - (1 - signal).sqrt() * velocity).clamp(-1, 1)
            noise = (1 - signal).sqrt() * x + signal.sqrt() * velocity
            x = target.sqrt() * clean + (1 - target).sqrt() * noise
        return F.pixel_shuffle(x, self.config.patch).clamp(-1, 1)
