"""DINOv2 as teacher, REPA's choice (arXiv 2410.06940), from a folder that the user has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from unigendet.config import ModelConfig
from unigendet.teachers.images import ImageTeacher
from unigendet.teachers.layers import TeacherLayer, depth

KINDS = ("dinov2", "dinov2_with_registers")
_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


class Dinov2Teacher(ImageTeacher):
    """Its patch tokens after `layer` and the final norm, without class and register tokens.

    Images are resized so that a patch of DINOv2 and a token of the student are the same square.

    Args:
        folder: as Hugging Face publishes it: config.json, model.safetensors, and maybe
            preprocessor_config.json with the means and deviations of its pixels, else ImageNet's.

    Raises:
        ValueError: the folder is not one of DINOv2, is incomplete, or has no such layer.
    """

    image_mean: Tensor
    image_std: Tensor

    def __init__(
        self,
        config: ModelConfig,
        folder: Path,
        layer: TeacherLayer,
        device: str | torch.device = "cpu",
    ) -> None:
        num_layers = check_dinov2(folder, layer)
        network = _load(folder)
        super().__init__(config, int(network.config.hidden_size))
        del network.encoder.layer[num_layers:]
        self.network = network.eval().requires_grad_(False)
        self.patch = int(network.config.patch_size)
        self.passed_over = 1 + int(getattr(network.config, "num_register_tokens", 0))
        pixels = _IMAGENET | _read(folder / "preprocessor_config.json")
        for name in _IMAGENET:
            values = torch.tensor(pixels[name], dtype=torch.float32).reshape(3, 1, 1)
            self.register_buffer(name, values, persistent=False)
        self.to(device)

    def maps(self, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        size = (grid[0] * self.patch, grid[1] * self.patch)
        pixels = F.interpolate(pixels, size, mode="bicubic", align_corners=False, antialias=True)
        pixels = (pixels.clamp(0.0, 1.0) - self.image_mean) / self.image_std
        tokens: Tensor = self.network(pixels).last_hidden_state[:, self.passed_over :]
        maps: Tensor = tokens.transpose(1, 2).unflatten(2, grid)
        return maps


def check_dinov2(folder: Path, layer: TeacherLayer) -> int:
    """How many layers of the network in `folder` come before the features of `layer`.

    Reads config.json alone. Raises ValueError saying what is wrong with the folder or the layer.
    """
    config = _read(folder / "config.json")
    if config.get("model_type") not in KINDS:
        found = f"of {config['model_type']}" if "model_type" in config else "missing"
        raise ValueError(
            f"{folder} holds no DINOv2: its config.json is {found}. Name a folder as Hugging Face "
            f"publishes it, of model_type {' or '.join(KINDS)}"
        )
    layers = config.get("num_hidden_layers")
    if not isinstance(layers, int):
        raise ValueError(f"{folder / 'config.json'} does not say num_hidden_layers")
    return depth(layer, layers)


def _load(folder: Path) -> Any:
    from safetensors import SafetensorError
    from transformers import AutoModel

    try:
        network, found = AutoModel.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            dtype=torch.float32,
        )
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{folder} cannot be read: {error}") from error
    if missing := sorted(found["missing_keys"]):
        raise ValueError(
            f"{folder} lacks {len(missing)} weights that its config.json asks for: {missing[:3]}"
        )
    return network


def _read(path: Path) -> dict[str, Any]:
    """What a JSON file holds; nothing where there is no such file."""
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold an object, but holds {values!r:.60}")
    return values
