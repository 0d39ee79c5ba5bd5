"""The autoencoder's objective: every term against a plain formula, and who learns from what."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unigendet.config import AutoencoderConfig, AutoencoderWeights, OptimConfig
from unigendet.models.vae import LatentAutoencoder
from unigendet.training.autoencoder import (
    AutoencoderBatch,
    AutoencoderObjective,
    AutoencoderTrainee,
    PatchCritic,
    adversary_loss,
    critic_loss,
    gradient_loss,
    spectrum_loss,
)
from unigendet.training.loop import LogRow, train

TINY = AutoencoderConfig(
    base_channels=8,
    channel_multipliers=(1, 2),
    num_res_blocks=1,
    latent_channels=3,
    norm_groups=4,
    mid_attention=False,
)


def trainee(critic: bool = True) -> AutoencoderTrainee:
    torch.manual_seed(0)
    return AutoencoderTrainee(LatentAutoencoder(TINY), PatchCritic(8) if critic else None)


def batch(progress: float = 0.9) -> AutoencoderBatch:
    draws = torch.Generator().manual_seed(1)
    rows = torch.linspace(-1, 1, 16)
    smooth = rows[None, None, :, None] * rows[None, None, None, :]
    pixels = (smooth + 0.3 * torch.randn(4, 3, 16, 16, generator=draws)).clamp(-1, 1)
    return AutoencoderBatch(pixels, torch.randn(4, 3, 8, 8, generator=draws), progress)


def test_the_total_is_the_weighted_sum_of_its_terms() -> None:
    model, data = trainee(), batch()
    weights = AutoencoderWeights(
        l1=0.5, l2=0.7, kl=0.01, gradient=0.3, spectrum=0.2, adversary=0.1, adversary_from=0.5
    )
    losses = AutoencoderObjective(weights)(model, data)
    mean, logvar = model.vae.posterior(data.pixels)
    code = mean + (logvar / 2).exp() * data.noise
    restored = model.vae.kl.decoder(code)
    error = restored - data.pixels
    torch.testing.assert_close(losses.l1_loss, error.abs().mean())
    torch.testing.assert_close(losses.l2_loss, error.square().mean())
    reference = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, (logvar / 2).exp()), torch.distributions.Normal(0, 1)
    )
    torch.testing.assert_close(losses.kl_loss, reference.mean())
    assert model.critic is not None
    torch.testing.assert_close(losses.adversary_loss, -model.critic(restored).mean())
    expected = (
        0.5 * losses.l1_loss
        + 0.7 * losses.l2_loss
        + 0.01 * losses.kl_loss
        + 0.3 * losses.gradient_loss
        + 0.2 * losses.spectrum_loss
        + 0.1 * losses.adversary_loss
        + losses.critic_loss
    )
    torch.testing.assert_close(losses.total, expected)
    assert set(losses.scalars()) == set(TERMS)


TERMS = (
    "l1_loss",
    "l2_loss",
    "kl_loss",
    "gradient_loss",
    "spectrum_loss",
    "adversary_loss",
    "critic_loss",
    "total",
)


def test_gradient_loss_sees_a_lost_edge_and_no_offset() -> None:
    ramp = torch.linspace(-1, 1, 16).expand(1, 3, 16, 16)
    assert float(gradient_loss(ramp + 0.5, ramp)) == pytest.approx(0.0, abs=1e-6)
    expected = np.mean([2 / 15, 4 / 15, 8 / 15])
    assert float(gradient_loss(torch.zeros_like(ramp), ramp)) == pytest.approx(expected, rel=1e-5)


def test_spectrum_loss_punishes_blur_more_than_another_draw_of_the_same_texture() -> None:
    draws = torch.Generator().manual_seed(0)
    texture = torch.randn(8, 3, 32, 32, generator=draws)
    other = torch.randn(8, 3, 32, 32, generator=draws)
    blurred = torch.nn.functional.avg_pool2d(texture, 3, 1, 1)
    assert float(spectrum_loss(texture, texture)) == 0.0
    assert float(spectrum_loss(blurred, texture)) > 1.2 * float(spectrum_loss(other, texture))


def test_each_player_learns_from_its_own_term_alone() -> None:
    model, data = trainee(), batch()
    assert model.critic is not None
    restored = model.vae.decode(model.vae.encode(data.pixels))
    critic_loss(model.critic, data.pixels, restored.detach()).backward()
    assert all(p.grad is None for p in model.vae.parameters())
    assert all(
        p.grad is not None and p.grad.any() for p in model.critic.parameters() if p.dim() > 1
    )
    model.zero_grad(set_to_none=True)
    adversary_loss(model.critic, restored).backward()
    assert all(p.grad is None for p in model.critic.parameters())
    assert any(p.grad is not None and p.grad.any() for p in model.vae.parameters())


def test_the_adversary_waits_for_its_share_of_the_run() -> None:
    objective = AutoencoderObjective(AutoencoderWeights(adversary=0.1, adversary_from=0.5))
    assert float(objective(trainee(), batch(progress=0.4)).adversary_loss.detach()) == 0.0
    assert float(objective(trainee(), batch(progress=0.5)).adversary_loss.detach()) != 0.0


def test_it_learns_to_reconstruct() -> None:
    rows = list[LogRow]()
    train(
        trainee(critic=False),
        AutoencoderObjective(AutoencoderWeights()),
        lambda step: batch(),
        OptimConfig(steps=60, lr=3e-3, betas=(0.9, 0.99), log_every=20),
        on_log=rows.append,
    )
    assert rows[-1].terms["l1_loss"] < 0.7 * rows[0].terms["l1_loss"]
