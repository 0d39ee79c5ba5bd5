"""Family `vqar`: images sampled code by code from an autoregressive model over quantised cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unigendet.forgeries.blocks import ResidualBlock
from unigendet.forgeries.config import VQAR_CELLS, VqarConfig
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

PLAN_CHANNELS, NOISE_CHANNELS = 8, 2
"""Of the plan, the first three channels are the image without its grain."""


class CodeAutoencoder(nn.Module):
    """Finite scalar quantisation (Mentzer et al. 2024): dimensions rounded to a few levels.

    It works on whole cells, where it is cheap; only a last pair of convolutions sees pixels: it
    smooths the cells' seams and makes grain from noise.
    """

    def __init__(self, config: VqarConfig) -> None:
        super().__init__()
        width, pixels, self.levels = 2 * config.width, 3 * config.patch**2, config.levels
        self.down = nn.Sequential(
            nn.PixelUnshuffle(config.patch), nn.Conv2d(pixels, width, 3, padding=1),
            ResidualBlock(width), nn.Conv2d(width, config.code_dims, 1),
        )  # fmt: skip
        self.up = nn.Sequential(
            nn.Conv2d(config.code_dims, width, 3, padding=1),
            ResidualBlock(width), ResidualBlock(width),
            nn.Conv2d(width, PLAN_CHANNELS * config.patch**2, 3, padding=1),
            nn.PixelShuffle(config.patch),
        )  # fmt: skip
        self.grain = Grain(PLAN_CHANNELS + NOISE_CHANNELS)

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> codes (B, D, h, w), continuous in [0, levels - 1]."""
        return torch.sigmoid(self.down(images)) * (self.levels - 1)

    def decode(self, codes: Tensor, generator: torch.Generator) -> Tensor:
        """Codes (B, D, h, w), whole numbers -> images (B, 3, H, W)."""
        plan: Tensor = self.up(codes * (2 / (self.levels - 1)) - 1)
        noise = draw_noise((len(plan), NOISE_CHANNELS, *plan.shape[2:]), generator, plan)
        grain: Tensor = self.grain(torch.cat([plan, noise], 1))
        return plan[:, :3] + grain

    def forward(self, images: Tensor, generator: torch.Generator) -> Tensor:
        codes = self.encode(images)
        straight_through = codes + (codes.round() - codes).detach()
        return self.decode(straight_through, generator)


class CodePrior(nn.Module):
    """Causal transformer over cells; within a cell the dimensions follow one another.

    Every cell is told the mean and the spread of each colour of the image that is wanted, so that
    the caption of the real image holds for the fake that stands beside it, and the codes to its
    left, above and above right, which make most of a texture.
    """

    def __init__(self, config: VqarConfig) -> None:
        super().__init__()
        width = config.prior_width
        self.levels, self.dims = config.levels, config.code_dims
        self.palette = nn.Linear(6, width)
        self.around = nn.Linear(3 * config.code_dims, width)
        self.rows, self.columns = (nn.Embedding(VQAR_CELLS, width) for _ in range(2))
        layer = nn.TransformerEncoderLayer(
            width, width // 32, 3 * width, dropout=0.0, activation="gelu", batch_first=True,
            norm_first=True,
        )  # fmt: skip
        self.layers = nn.TransformerEncoder(layer, config.prior_layers, enable_nested_tensor=False)
        self.earlier = nn.Linear(config.code_dims, width)
        self.hidden = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        self.heads = nn.ModuleList(nn.Linear(width, config.levels) for _ in range(config.code_dims))

    def states(self, colours: Tensor, codes: Tensor, columns: int) -> Tensor:
        """Colours (B, 6), codes of T cells (B, T, D) -> states (B, T + 1, W) of the next cells."""
        count = codes.shape[1] + 1
        padded = F.pad(self._centre(codes), (0, 0, columns, 0))
        left = padded[:, columns - 1 :]
        around = torch.cat([left, padded[:, :count], padded[:, 1 : count + 1]], -1)
        place = torch.arange(count, device=codes.device)
        tokens = self.around(around) + self.palette(colours)[:, None]
        tokens = tokens + self.rows(place // columns) + self.columns(place % columns)
        mask = nn.Transformer.generate_square_subsequent_mask(count, device=codes.device)
        states: Tensor = self.layers(tokens, mask=mask, is_causal=True)
        return states

    def logits(self, states: Tensor, codes: Tensor, dim: int) -> Tensor:
        """Logits (..., levels) of dimension `dim` from states (..., W) and the codes (..., D).

        Only the dimensions before `dim` are looked at.
        """
        known = self._centre(codes).clone()
        known[..., dim:] = 0
        logits: Tensor = self.heads[dim](self.hidden(states + self.earlier(known)))
        return logits

    def _centre(self, codes: Tensor) -> Tensor:
        return codes * (2 / (self.levels - 1)) - 1


def colour_statistics(images: Tensor) -> Tensor:
    """Mean and standard deviation of each channel: (B, 3, H, W) -> (B, 6)."""
    return torch.cat([images.mean((2, 3)), images.std((2, 3))], 1)


class VqarFamily(Family):
    """Not aligned: only the palette of the real image is kept."""

    name: ClassVar[str] = "vqar"

    def __init__(self, config: VqarConfig) -> None:
        self.config = config
        self.codes = CodeAutoencoder(config).eval()
        self.prior = CodePrior(config).eval()

    def network(self) -> nn.Module:
        return nn.ModuleDict({"codes": self.codes, "prior": self.prior})

    def fit(
        self,
        images: Tensor,
        captions: Sequence[str],
        *,
        seed: int,
        progress: Progress = no_progress,
    ) -> float:
        check_images(images, captions, self.config.patch)
        self.config.check_side(max(images.shape[2:]))
        total = self.config.fit_codes.steps + self.config.fit_prior.steps

        filters = texture_filters(seed, images)

        def reconstruct(real: Tensor, generator: torch.Generator) -> Tensor:
            drawn = self.codes(real, generator)
            grain = (texture(drawn, filters) - texture(real, filters)).abs().mean()
            return F.l1_loss(drawn, real) + self.config.texture * grain

        fit_network(
            self.codes, reconstruct, images, self.config.fit_codes, name=f"{self.name} codes",
            seed=seed, progress=lambda step, _, loss: progress(step, total, loss),
        )  # fmt: skip

        def predict(real: Tensor, _: torch.Generator) -> Tensor:
            with torch.no_grad():
                grid = self.codes.encode(real).round()
            codes = grid.flatten(2).mT
            states = self.prior.states(colour_statistics(real), codes[:, :-1], grid.shape[3])
            losses = [
                F.cross_entropy(
                    self.prior.logits(states, codes, dim).flatten(0, 1),
                    codes[..., dim].flatten().long(),
                )
                for dim in range(self.config.code_dims)
            ]
            return torch.stack(losses).mean()

        done = self.config.fit_codes.steps
        return fit_network(
            self.prior, predict, images, self.config.fit_prior, name=f"{self.name} prior",
            seed=seed, progress=lambda step, _, loss: progress(done + step, total, loss),
        )  # fmt: skip

    @torch.no_grad()
    def make(self, images: Tensor, captions: Sequence[str], *, seed: int) -> Tensor:
        check_images(images, captions, self.config.patch)
        generator = seeded(seed)
        return torch.cat([self._sample(part, generator) for part in images.split(64)])

    def _sample(self, images: Tensor, generator: torch.Generator) -> Tensor:
        height, width = (side // self.config.patch for side in images.shape[2:])
        colours = colour_statistics(images)
        codes = torch.zeros((len(images), 0, self.config.code_dims), device=images.device)
        for _ in range(height * width):
            state = self.prior.states(colours, codes, width)[:, -1]
            cell = torch.zeros((len(images), self.config.code_dims), device=images.device)
            for dim in range(self.config.code_dims):
                chances = (self.prior.logits(state, cell, dim) / self.config.temperature).softmax(
                    -1
                )
                # Drawn on the CPU: the same on every device.
                drawn = torch.multinomial(chances.cpu(), 1, generator=generator)[:, 0]
                cell[:, dim] = drawn.to(cell)
            codes = torch.cat([codes, cell[:, None]], 1)
        grid = codes.mT.reshape(len(images), self.config.code_dims, height, width)
        return self.codes.decode(grid, generator).clamp(-1, 1)
