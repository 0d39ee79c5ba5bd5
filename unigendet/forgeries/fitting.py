"""The loops in which the families' small networks learn: by a loss, or against a discriminator."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unigendet.forgeries.config import FitConfig
from unigendet.forgeries.family import Progress, seeded, training_batch

Loss = Callable[[Tensor, torch.Generator], Tensor]
"""From a batch of real images (B, 3, H, W) and the step's random source to a scalar loss."""


class _Fit:
    """Optimiser, cosine schedule and finite check of one network."""

    def __init__(self, parameters: Iterable[nn.Parameter], config: FitConfig, name: str) -> None:
        self.parameters = list(parameters)
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=config.lr, betas=(0.5, 0.95), weight_decay=0.0
        )
        self.config, self.name = config, name

    def step(self, loss: Tensor, step: int) -> float:
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ValueError(
                f"{self.name}: the loss is {value} at step {step}; lower its learning rate"
            )
        done = step / self.config.steps
        warm = min(1.0, (step + 1) / 10)
        for group in self.optimizer.param_groups:
            group["lr"] = (
                self.config.lr * warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        return value


class _Tail:
    """Mean of the losses of the last tenth of the steps."""

    def __init__(self, steps: int) -> None:
        self.start, self.values = steps - max(1, steps // 10), list[float]()

    def add(self, step: int, value: float) -> None:
        if step >= self.start:
            self.values.append(value)

    def mean(self) -> float:
        return sum(self.values) / len(self.values)


def fit_network(
    network: nn.Module, loss: Loss, images: Tensor, config: FitConfig, *, name: str, seed: int,
    progress: Progress,
) -> float:  # fmt: skip
    """Minimise `loss` over random batches; gives its mean over the last tenth of the steps."""
    network.to(images.device)
    fit, tail = _Fit(network.parameters(), config, name), _Tail(config.steps)
    network.train()
    for step in range(config.steps):
        generator = seeded(seed, step)
        real = training_batch(images, config.batch_size, generator, config.crop)
        value = fit.step(loss(real, generator), step)
        tail.add(step, value)
        progress(step + 1, config.steps, value)
    network.eval()
    return tail.mean()


class PatchDiscriminator(nn.Module):
    """Judges overlapping patches: (B, C, H, W) in [-1, 1] -> (B, 1, H / 8, W / 8) realness."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        spectral = nn.utils.parametrizations.spectral_norm
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(2),
            spectral(nn.Conv2d(4 * channels, width, 3, padding=1)),
            nn.LeakyReLU(0.2),
            spectral(nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)),
            nn.LeakyReLU(0.2),
            spectral(nn.Conv2d(2 * width, 3 * width, 4, stride=2, padding=1)),
            nn.LeakyReLU(0.2),
            spectral(nn.Conv2d(3 * width, 1, 3, padding=1)),
        )

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.layers(images)
        return scores


Redraw = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""From real images to (their redrawn version, the loss that ties the two together)."""


def fit_adversarial(
    network: nn.Module, redraw: Redraw, images: Tensor, config: FitConfig, *, weight: float,
    width: int, name: str, seed: int, progress: Progress,
) -> float:  # fmt: skip
    """Hinge-loss GAN training of `network`: the redrawn image's own loss + `weight` x adversarial.

    The discriminator learns in the same step, from the same images, and is thrown away.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        judge = PatchDiscriminator(3, width).to(images.device)
    network.to(images.device)
    drawer = _Fit(network.parameters(), config, name)
    critic = _Fit(judge.parameters(), config, f"{name}'s discriminator")
    tail = _Tail(config.steps)
    network.train()
    for step in range(config.steps):
        generator = seeded(seed, step)
        real = training_batch(images, config.batch_size, generator, config.crop)
        fake, own_loss = redraw(real, generator)
        judge.requires_grad_(False)
        value = drawer.step(own_loss - weight * judge(fake).mean(), step)
        judge.requires_grad_(True)
        on_real, on_fake = judge(torch.cat([real, fake.detach()])).chunk(2)
        critic.step(F.relu(1 - on_real).mean() + F.relu(1 + on_fake).mean(), step)
        tail.add(step, value)
        progress(step + 1, config.steps, value)
    network.eval()
    return tail.mean()
