"""Weights to start training from scratch with."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from unigendet.models.unified import UniGenDetModel
    from unigendet.models.vae import LatentAutoencoder

_TOKEN_STD = 0.02
_LESS_LOG_VARIANCE = 6.0
"""A twentieth of the standard deviation."""


def initialise(model: UniGenDetModel) -> None:
    """Set every weight of a fresh model, from torch's global random state.

    Linear layers keep the variance of their input; those that write into a residual stream are
    scaled down by its number of writers, so that depth does not change the stream's size. The
    velocity (`llm2vae`) and the verdict start at exactly zero, the middle of what they can say.
    """
    _initialise_layers(model)
    nn.init.normal_(model.language_model.lm_head.weight, std=_TOKEN_STD)
    for layers, names in (
        (model.language_model.model.layers, ("o_proj", "down_proj", "o_proj_moe_gen")),
        (model.vit_model.vision_model.encoder.layers, ("out_proj", "fc2")),
    ):
        for name, module in layers.named_modules():
            if isinstance(module, nn.Linear) and name.rsplit(".", 1)[-1] in names:
                nn.init.normal_(
                    module.weight, std=module.in_features**-0.5 * (2 * len(layers)) ** -0.5
                )
    for head in (model.llm2vae, model.fake_cls_head[-1]):
        _initialise_zero(head)


def fresh_addition(model: UniGenDetModel, name: str, seed: int) -> dict[str, Tensor]:
    """Weights to start one addition to BAGEL with, float32 and drawn from `seed`.

    Args:
        model: may be without storage (on the meta device); it is left as it is.
        name: `fake_cls_head`, `latent_to_vit_connector` or `diga_mlp`.
    """
    part = copy.deepcopy(getattr(model, name)).to_empty(device="cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _initialise_layers(part)
    if name == "fake_cls_head":
        _initialise_zero(part[-1])
    return {f"{name}.{key}": value for key, value in part.state_dict().items()}


def _initialise_layers(part: nn.Module) -> None:
    for module in part.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=_TOKEN_STD)
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()


def _initialise_zero(head: nn.Module) -> None:
    for parameter in head.parameters():
        nn.init.zeros_(parameter)


@torch.no_grad()
def whiten_patch_embedding(model: UniGenDetModel, patches: Tensor) -> None:
    """Start the image encoder's patch embedding as a whitening of real patches.

    What tells real from generated lies in fine detail, whose variance is thousands of times smaller
    than that of brightness: behind a random projection and a LayerNorm it is all but invisible.
    Each channel is one principal component of the patches, scaled to variance 1, the largest first:
    a generator that cannot draw some of them then shows in those channels. (Mixing the components
    by a rotation, as many whitenings do, hides that again: docs/log.md.) Channels beyond the number
    of components start at zero.

    Args:
        patches: (N, p * p * channels) flattened patches of training images, N well above their
            length.

    Raises:
        ValueError: there are fewer patches than values in a patch.
    """
    count, values = patches.shape
    if count < values:
        raise ValueError(f"whitening {values} values needs at least as many patches, got {count}")
    embedding = model.vit_model.vision_model.embeddings.patch_embedding
    width = embedding.out_features
    samples = patches.double()
    mean = samples.mean(0)
    variances, directions = torch.linalg.eigh(torch.cov(samples.T))  # (values,), (values, values)
    # Components below the quantisation step of 8-bit pixels are rounding, not picture.
    scaled = directions / (variances.clamp_min(0) + (2 / 255) ** 2 / 12).sqrt()
    weight = torch.zeros(width, values, dtype=torch.float64)
    weight[:values] = scaled.T.flip(0)[:width]
    embedding.weight.copy_(weight)
    embedding.bias.copy_(-weight @ mean)


@torch.no_grad()
def whiten_latents(vae: LatentAutoencoder, pixels: Tensor) -> None:
    """Start a fresh autoencoder's latent channels uncorrelated, mean 0, variance 1, little noise.

    At first every channel holds mostly brightness, and training from there leaves some of them
    copies of others for good: the same recipe then ends with a blurred picture or a sharp one, as
    chance has it (docs/log.md).

    Args:
        pixels: (N, 3, H, W) training images in [-1, 1].

    Raises:
        ValueError: the images have fewer latent cells than channels.
    """
    channels = vae.config.latent_channels
    mean, _ = vae.posterior(pixels)
    values = mean.transpose(0, 1).flatten(1).double()  # (z, N * h * w)
    if values.shape[1] <= channels:
        raise ValueError(
            f"{values.shape[1]} latent cells are too few for {channels} channels: give more images"
        )
    variances, directions = torch.linalg.eigh(torch.cov(values))
    whitening = (directions * variances.rsqrt()) @ directions.T  # (z, z), symmetric
    last = vae.kl.encoder.conv_out  # means come first, log-variances after them
    weight, bias = last.weight[:channels].double(), last.bias[:channels].double()
    last.weight[:channels] = torch.einsum("ij,jkhw->ikhw", whitening, weight).float()
    last.bias[:channels] = (whitening @ (bias - values.mean(1))).float()
    # Draws with a standard deviation near 1, as a fresh encoder has, would drown the means.
    last.bias[channels:] -= _LESS_LOG_VARIANCE
