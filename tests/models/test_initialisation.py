"""The whitened start of the image encoder shows fine detail as strongly as brightness."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.models.tiny import tiny_config
from unigendet.models.initialisation import whiten_latents, whiten_patch_embedding
from unigendet.models.unified import UniGenDetModel
from unigendet.models.vae import LatentAutoencoder


def _patches(count: int, values: int) -> torch.Tensor:
    """Bright or dark patches with detail a hundred times weaker."""
    random = torch.Generator().manual_seed(0)
    level = torch.randn(count, 1, generator=random)
    return level + 0.01 * torch.randn(count, values, generator=random)


def test_fine_detail_reaches_the_encoder() -> None:
    config = tiny_config()
    torch.manual_seed(0)
    model = UniGenDetModel(config)
    embedding = model.vit_model.vision_model.embeddings.patch_embedding
    patches = _patches(4 * embedding.in_features, embedding.in_features)
    detail = patches - patches.mean(1, keepdim=True)

    def share_of_detail() -> float:
        """Variance of the embedding that detail causes, over all of it."""
        weight = embedding.weight.detach()
        return float((detail @ weight.T).var(0).mean() / (patches @ weight.T).var(0).mean())

    before = share_of_detail()
    whiten_patch_embedding(model, patches)
    assert before < 0.02
    assert share_of_detail() > 0.5
    features = embedding(patches).detach()
    assert float(features.mean(0).abs().max()) < 1e-3
    covariance = torch.cov(features.T)[: embedding.in_features, : embedding.in_features]
    assert torch.allclose(covariance, torch.diag(covariance.diagonal()), atol=1e-3)
    # Detail near the rounding of 8-bit pixels is kept a little smaller.
    assert float(covariance.diagonal().min()) > 0.9 and float(covariance.diagonal().max()) < 1.001


@pytest.mark.parametrize("width", [32, 128])
def test_one_channel_is_one_component(width: int) -> None:
    """What generators leave out must not be mixed with what they draw; 108 values per patch."""
    config = tiny_config()
    config = replace(config, vit=replace(config.vit, hidden_size=width))
    model = UniGenDetModel(config)
    embedding = model.vit_model.vision_model.embeddings.patch_embedding
    patches = _patches(4 * embedding.in_features, embedding.in_features)
    whiten_patch_embedding(model, patches)
    features = embedding(patches).detach()
    level = patches.mean(1)
    correlation = torch.corrcoef(torch.cat([level[None], features.T]))[0, 1:].nan_to_num()
    assert float(correlation[0].abs()) > 0.99, "the largest component first: brightness"
    assert float(correlation[1:].abs().max()) < 0.1
    assert bool((features[:, embedding.in_features :] == 0).all())


def test_too_few_patches_are_an_error() -> None:
    model = UniGenDetModel(tiny_config())
    values = model.vit_model.vision_model.embeddings.patch_embedding.in_features
    with pytest.raises(ValueError, match="at least as many patches"):
        whiten_patch_embedding(model, _patches(values - 1, values))


def test_latents_start_uncorrelated() -> None:
    torch.manual_seed(0)
    vae = LatentAutoencoder(tiny_config().vae)
    random = torch.Generator().manual_seed(1)
    level = torch.randn(24, 1, 1, 1, generator=random)
    pixels = (level + 0.2 * torch.randn(24, 3, 16, 16, generator=random)).clamp(-1, 1)
    before = vae.posterior(pixels)[1]
    whiten_latents(vae, pixels)
    mean, logvar = vae.posterior(pixels)
    values = mean.detach().transpose(0, 1).flatten(1)
    assert torch.allclose(torch.cov(values), torch.eye(len(values)), atol=1e-3)
    assert torch.allclose(values.mean(1), torch.zeros(len(values)), atol=1e-4)
    assert torch.allclose(before - 6, logvar, atol=1e-5), "little noise at first"


def test_too_few_latent_cells_are_an_error() -> None:
    vae = LatentAutoencoder(tiny_config().vae)
    with pytest.raises(ValueError, match="give more images"):
        whiten_latents(vae, torch.zeros(1, 3, 2, 2))
