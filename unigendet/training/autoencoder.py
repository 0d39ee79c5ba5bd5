"""Training objective of the latent autoencoder: faithful, sharp, with a nearly free posterior.

An autoencoder trained on pixel errors alone blurs what it cannot predict, and every generated
image inherits that blur. Three terms counter it, each with its own weight:

- gradients: absolute error of horizontal and vertical differences at several scales;
- spectrum: absolute error of the log amplitudes of 8 x 8 windowed patches, which asks for the
  right amount of fine detail without asking for its exact place;
- adversary: a patch critic (hinge loss) that learns beside the autoencoder.

The critic is a part of the trained module, so one loop, one optimizer and one checkpoint hold both
players: each player's term uses the other's weights or images detached.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from unigendet.config import AutoencoderWeights
from unigendet.models.vae import LatentAutoencoder

_PATCH = 8


@dataclass(frozen=True, slots=True)
class AutoencoderBatch:
    """A batch with its draws."""

    pixels: Tensor
    """(B, 3, H, W) in [-1, 1]."""
    noise: Tensor
    """(B, z, h, w) standard normal: the posterior's draw."""
    progress: float
    """Share of the run that is done, in [0, 1)."""

    def to(self, device: str | torch.device) -> AutoencoderBatch:
        return AutoencoderBatch(self.pixels.to(device), self.noise.to(device), self.progress)


@dataclass(frozen=True, slots=True)
class AutoencoderLosses:
    """Unweighted terms and their weighted sum. `critic_loss` trains the critic alone."""

    l1_loss: Tensor
    l2_loss: Tensor
    kl_loss: Tensor
    gradient_loss: Tensor
    spectrum_loss: Tensor
    adversary_loss: Tensor
    critic_loss: Tensor
    total: Tensor

    def scalars(self) -> Mapping[str, float]:
        terms = {
            "l1_loss": self.l1_loss,
            "l2_loss": self.l2_loss,
            "kl_loss": self.kl_loss,
            "gradient_loss": self.gradient_loss,
            "spectrum_loss": self.spectrum_loss,
            "adversary_loss": self.adversary_loss,
            "critic_loss": self.critic_loss,
            "total": self.total,
        }
        return {name: float(value.detach()) for name, value in terms.items()}


class PatchCritic(nn.Sequential):
    """Scores patches as real (high) or reconstructed (low): (B, 3, H, W) -> (B, 1, H/4, W/4)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__(
            nn.Conv2d(3, width, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, 2, 1),
            nn.GroupNorm(8, 2 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 2 * width, 3, 1, 1),
            nn.GroupNorm(8, 2 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 1, 3, 1, 1),
        )


class AutoencoderTrainee(nn.Module):
    """The autoencoder under training and, where the adversary has a weight, its critic."""

    def __init__(self, vae: LatentAutoencoder, critic: PatchCritic | None = None) -> None:
        super().__init__()
        self.vae = vae
        self.critic = critic

    def blocks(self) -> Sequence[nn.Module]:
        """What is compiled. The critic is not: small, and run with other weights too (detached)."""
        return [self.vae.kl.encoder, self.vae.kl.decoder]

    def recompute_activations(self) -> None:
        """From now on the autoencoder's blocks compute activations again in the backward."""
        self.vae.kl.enable_gradient_checkpointing()


class AutoencoderObjective:
    """Reconstruction, small KL and sharpness terms on an `AutoencoderTrainee`."""

    def __init__(self, weights: AutoencoderWeights) -> None:
        self.weights = weights

    def __call__(self, model: AutoencoderTrainee, batch: AutoencoderBatch) -> AutoencoderLosses:
        weights, pixels = self.weights, batch.pixels
        mean, logvar = model.vae.posterior(pixels)  # (B, z, h, w) each
        code = mean + torch.exp(0.5 * logvar) * batch.noise
        scale, shift = model.vae.config.scale_factor, model.vae.config.shift_factor
        restored = model.vae.decode((code - shift) * scale)  # (B, 3, H, W)
        zero = pixels.new_zeros(())
        adversary, critic = zero, zero
        if model.critic is not None:
            critic = critic_loss(model.critic, pixels, restored.detach())
            if batch.progress >= weights.adversary_from:
                adversary = adversary_loss(model.critic, restored)
        l1, l2 = F.l1_loss(restored, pixels), F.mse_loss(restored, pixels)
        kl = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean()
        gradient = gradient_loss(restored, pixels) if weights.gradient else zero
        spectrum = spectrum_loss(restored, pixels) if weights.spectrum else zero
        total = (
            weights.l1 * l1
            + weights.l2 * l2
            + weights.kl * kl
            + weights.gradient * gradient
            + weights.spectrum * spectrum
            + weights.adversary * adversary
            + critic
        )
        return AutoencoderLosses(l1, l2, kl, gradient, spectrum, adversary, critic, total)


def gradient_loss(restored: Tensor, pixels: Tensor, scales: int = 3) -> Tensor:
    """Mean absolute error of neighbour differences at full, half and quarter size. Scalar, >= 0."""
    error = restored - pixels
    terms = list[Tensor]()
    for _ in range(scales):
        terms.append(error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean())
        error = F.avg_pool2d(error, 2)
    return torch.stack(terms).mean()


def spectrum_loss(restored: Tensor, pixels: Tensor) -> Tensor:
    """Mean absolute error of log amplitudes over Hann-windowed, half overlapping 8 x 8 patches."""
    window = torch.hann_window(_PATCH, periodic=False, device=pixels.device, dtype=pixels.dtype)

    def amplitudes(images: Tensor) -> Tensor:
        patches = images.unfold(2, _PATCH, _PATCH // 2).unfold(3, _PATCH, _PATCH // 2)
        spectra = torch.fft.rfft2(patches * torch.outer(window, window))
        # The small constant keeps the slope of the modulus finite at zero.
        return torch.log1p(8.0 * (spectra.real.square() + spectra.imag.square() + 1e-8).sqrt())

    return F.l1_loss(amplitudes(restored), amplitudes(pixels))


def critic_loss(critic: PatchCritic, real: Tensor, restored: Tensor) -> Tensor:
    """Hinge loss of the critic: real patches above 1, reconstructed ones below -1."""
    on_real, on_restored = critic(torch.cat([real, restored])).chunk(2)
    return 0.5 * (F.relu(1.0 - on_real).mean() + F.relu(1.0 + on_restored).mean())


def adversary_loss(critic: PatchCritic, restored: Tensor) -> Tensor:
    """Minus the critic's score of reconstructions; the critic's own weights get no gradient."""
    frozen = {name: value.detach() for name, value in critic.named_parameters()}
    score: Tensor = functional_call(critic, frozen, (restored,))
    return -score.mean()
