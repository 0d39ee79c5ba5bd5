"""The autoencoder: shapes, the posterior's mathematics, scaling, and strict loading."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from unigendet.config import AutoencoderConfig
from unigendet.models.vae import LatentAutoencoder

CONFIG = AutoencoderConfig(
    base_channels=8,
    channel_multipliers=(1, 2, 2),
    num_res_blocks=1,
    latent_channels=6,
    norm_groups=4,
    mid_attention=False,
)


@pytest.fixture
def vae() -> LatentAutoencoder:
    torch.manual_seed(0)
    return LatentAutoencoder(CONFIG).eval()


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_shapes_follow_the_configuration(vae: LatentAutoencoder, pixels: torch.Tensor) -> None:
    latents = vae.encode(pixels)
    assert latents.shape == (2, 6, 4, 6)
    assert vae.decode(latents).shape == pixels.shape
    assert not any("attn" in key for key in vae.published_state_dict())


def test_a_draw_is_mean_plus_deviation_times_noise(
    vae: LatentAutoencoder, pixels: torch.Tensor
) -> None:
    mean, logvar = vae.posterior(pixels)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(2))
    expected = 0.3611 * (mean + (logvar / 2).exp() * noise - 0.1159)
    torch.testing.assert_close(vae.encode(pixels, noise), expected)
    torch.testing.assert_close(vae.encode(pixels), 0.3611 * (mean - 0.1159))


def test_decode_undoes_the_scaling(vae: LatentAutoencoder, pixels: torch.Tensor) -> None:
    mean, _ = vae.posterior(pixels)
    torch.testing.assert_close(vae.decode(vae.encode(pixels)), vae.kl.decoder(mean))


def test_fit_scaling_gives_unit_variance(vae: LatentAutoencoder) -> None:
    generator = torch.Generator().manual_seed(3)
    pixels = torch.rand(32, 3, 32, 32, generator=generator) * 2 - 1
    vae.fit_scaling(pixels)
    with torch.no_grad():
        noise = torch.randn(32, 6, 8, 8, generator=generator)
        latents = vae.encode(pixels, noise)
    assert abs(latents.mean().item()) < 0.05
    assert latents.std().item() == pytest.approx(1.0, abs=0.05)
    assert vae.config.scale_factor != CONFIG.scale_factor


def test_every_parameter_learns_from_reconstruction(
    vae: LatentAutoencoder, pixels: torch.Tensor
) -> None:
    mean, logvar = vae.posterior(pixels)
    decoded = vae.decode(vae.encode(pixels, torch.ones_like(mean)))
    (decoded - pixels).square().mean().add(logvar.square().mean()).backward()
    for name, parameter in vae.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


def test_published_names_round_trip_with_attention_and_many_levels(pixels: torch.Tensor) -> None:
    config = dataclasses.replace(CONFIG, mid_attention=True, channel_multipliers=(1, 2, 1, 2))
    torch.manual_seed(4)
    first, second = LatentAutoencoder(config).eval(), LatentAutoencoder(config).eval()
    state = first.published_state_dict()
    assert state["encoder.mid.attn_1.q.weight"].shape == (16, 16, 1, 1)
    assert state["decoder.up.3.upsample.conv.weight"].shape[0] == 16  # the coarsest level
    assert "decoder.up.0.upsample.conv.weight" not in state
    second.load_published_state_dict(state)
    torch.testing.assert_close(second.encode(pixels), first.encode(pixels))


def test_loading_names_what_does_not_fit(vae: LatentAutoencoder) -> None:
    state = vae.published_state_dict()
    state["encoder.conv_in.weight"] = torch.zeros(8, 1, 3, 3)
    state["decoder.extra"] = torch.zeros(1)
    del state["encoder.conv_out.bias"]
    before = vae.kl.encoder.conv_in.weight.clone()
    with pytest.raises(
        ValueError, match=r"missing: encoder\.conv_out\.bias.*decoder\.extra.*conv_in"
    ):
        vae.load_published_state_dict(state)
    assert torch.equal(vae.kl.encoder.conv_in.weight, before)


def test_sides_and_groups_are_checked(vae: LatentAutoencoder) -> None:
    with pytest.raises(ValueError, match="multiples of 4"):
        vae.encode(torch.zeros(1, 3, 16, 18))
    with pytest.raises(ValueError, match="norm_groups"):
        LatentAutoencoder(dataclasses.replace(CONFIG, norm_groups=3))
    with pytest.raises(ValueError, match="positive"):
        vae.set_scaling(0.0, 0.0)
