"""Model folders: what is saved comes back, whole or not at all, and damage is named."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from unigendet.config import (
    AutoencoderConfig,
    ModelConfig,
    ResizeRule,
    TransformerConfig,
    VisionConfig,
)
from unigendet.data.tokenizer import Tokenizer, train_tokenizer
from unigendet.inference import UniGenDet
from unigendet.models import pretrained
from unigendet.models.pretrained import load_pretrained, save_pretrained
from unigendet.models.unified import UniGenDetModel
from unigendet.models.vae import LatentAutoencoder

CONFIG = ModelConfig(
    llm=TransformerConfig(270, 16, 24, 1, 2, 1),
    vit=VisionConfig(8, 16, 1, 2, image_size=16, patch_size=8),
    vae=AutoencoderConfig(4, (1, 2), 1, 2, norm_groups=2),
    vae_resize=ResizeRule(16, 8, 4),
    vit_resize=ResizeRule(16, 8, 8),
    max_latent_size=4,
    alignment_head=True,
)
FILES = ["config.json", "model.safetensors", "tokenizer.json", "vae.safetensors"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["sand and snow"], 262)


@pytest.fixture(scope="module")
def model() -> UniGenDetModel:
    torch.manual_seed(0)
    return UniGenDetModel(CONFIG)


@pytest.fixture(scope="module")
def vae() -> LatentAutoencoder:
    torch.manual_seed(1)
    vae = LatentAutoencoder(CONFIG.vae)
    vae.set_scaling(0.7, -0.2)
    return vae


@pytest.fixture
def folder(
    model: UniGenDetModel, vae: LatentAutoencoder, tokenizer: Tokenizer, tmp_path: Path
) -> Path:
    save_pretrained(tmp_path / "models" / "m", model, vae, tokenizer)
    return tmp_path / "models" / "m"


def test_round_trip(
    folder: Path, model: UniGenDetModel, vae: LatentAutoencoder, tokenizer: Tokenizer
) -> None:
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert [path.name for path in folder.parent.iterdir()] == ["m"]  # no staging left
    loaded = load_pretrained(folder)
    assert loaded.config == dataclasses.replace(CONFIG, vae=vae.config)
    assert loaded.config.vae.scale_factor == 0.7
    assert loaded.tokenizer.markers == tokenizer.markers
    for mine, theirs in ((model, loaded.model), (vae, loaded.vae)):
        assert mine.state_dict().keys() == theirs.state_dict().keys()
        for name, value in mine.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name]), name
    assert not loaded.model.training and not loaded.vae.training


def test_loading_draws_no_random_numbers_and_can_be_trained_on(folder: Path) -> None:
    state = torch.get_rng_state()
    loaded = load_pretrained(folder)
    assert torch.equal(torch.get_rng_state(), state)
    for network in (loaded.model, loaded.vae):
        assert all(p.requires_grad and p.is_leaf for p in network.parameters())
    with torch.no_grad():
        loaded.model.llm2vae.bias.add_(1)  # its own memory, not the file's
    assert not torch.equal(load_pretrained(folder).model.llm2vae.bias, loaded.model.llm2vae.bias)


def test_weights_are_under_their_published_names(folder: Path) -> None:
    names = load_file(folder / "model.safetensors").keys()
    assert "language_model.model.layers.0.self_attn.q_proj_moe_gen.weight" in names
    assert "diga_mlp.2.weight" in names
    assert "encoder.down.0.block.0.norm1.weight" in load_file(folder / "vae.safetensors")


def test_a_large_model_is_in_several_files(
    folder: Path, model: UniGenDetModel, vae: LatentAutoencoder, tokenizer: Tokenizer
) -> None:
    save_pretrained(folder, model, vae, tokenizer, shard_bytes=20_000)
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 2 and not (folder / "model.safetensors").exists()
    assert (folder / "model.safetensors.index.json").is_file()
    loaded = UniGenDet.from_pretrained(folder)
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.model.state_dict()[name]), name
    shards[1].write_bytes(shards[1].read_bytes()[:-1])
    with pytest.raises(ValueError, match=shards[1].name):
        load_pretrained(folder)
    shards[1].unlink()
    with pytest.raises(ValueError, match=f"missing: {shards[1].name}"):
        load_pretrained(folder)


def test_saving_again_replaces(
    folder: Path, model: UniGenDetModel, vae: LatentAutoencoder, tokenizer: Tokenizer
) -> None:
    (folder / "note.txt").write_text("old")
    save_pretrained(folder, model, vae, tokenizer)
    assert sorted(path.name for path in folder.iterdir()) == FILES


def test_a_failed_save_leaves_the_old_model(
    folder: Path,
    model: UniGenDetModel,
    vae: LatentAutoencoder,
    tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pretrained, "save_weights", full)
    with pytest.raises(OSError, match="No space"):
        save_pretrained(folder, model, vae, tokenizer)
    with pytest.raises(OSError, match="No space"):
        save_pretrained(folder.with_name("new"), model, vae, tokenizer)
    assert [path.name for path in folder.parent.iterdir()] == ["m"]
    load_pretrained(folder)


def test_what_is_no_model_is_not_replaced(
    model: UniGenDetModel, vae: LatentAutoencoder, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    (tmp_path / "config.json").write_text('{"model_type": "bagel"}')  # of a published folder
    with pytest.raises(ValueError, match="no model folder"):
        save_pretrained(tmp_path, model, vae, tokenizer)
    assert (tmp_path / "thesis.txt").exists()


def test_a_tokenizer_too_large_is_refused(
    model: UniGenDetModel, vae: LatentAutoencoder, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="271 ids"):
        save_pretrained(
            tmp_path / "m", model, vae, train_tokenizer(["abcdefghij klmnopqrs"] * 5, 271)
        )


def test_missing_files_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        load_pretrained(tmp_path / "absent")
    for name in FILES:
        copy = shutil.copytree(folder, tmp_path / "copy")
        (copy / name).unlink()
        with pytest.raises(ValueError, match=f"{name} is missing"):
            load_pretrained(copy)
        shutil.rmtree(copy)


@pytest.mark.parametrize("name", FILES)
def test_truncated_files_are_named(folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=name):
        load_pretrained(folder)


def test_weights_of_another_configuration(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["llm"]["num_hidden_layers"] = 2
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"model\.safetensors belongs to another configuration"):
        load_pretrained(folder)
    config["llm"]["num_hidden_layers"] = 1
    config["vae"]["channel_multipliers"] = [1, 1]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"vae\.safetensors: these weights do not fit"):
        load_pretrained(folder)


def test_a_missing_tensor_is_named(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["llm2vae.bias"]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"missing: llm2vae\.bias"):
        load_pretrained(folder)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("format",), 99, "format 1"),
        (("llm", "hidden_size"), "16", r"llm: hidden_size must be int, got '16'"),
        (("llm", "hidden_size"), True, "hidden_size must be int"),
        (("llm", "hidden_sizes"), 16, "unknown hidden_sizes"),
        (("timestep_shift",), "x", "timestep_shift must be float"),
        (("vae",), [], "expected an object"),
        (("vae", "channel_multipliers"), 3, "must be a list"),
        (("interpolate_pos",), 1, "must be bool"),
    ],
)
def test_a_wrong_configuration_is_named(
    folder: Path, path: tuple[str, ...], value: object, message: str
) -> None:
    config = json.loads((folder / "config.json").read_text())
    place = config
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        load_pretrained(folder)


def test_a_folder_from_before_later_fields_is_read(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    assert config.pop("alignment_width") is None
    assert config.pop("smsa") is True
    (folder / "config.json").write_text(json.dumps(config))
    found = load_pretrained(folder).config
    assert (found.head_width, found.smsa) == (CONFIG.llm.hidden_size, True)


def test_a_missing_field_is_named(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["vit"]["patch_size"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"vit: missing patch_size"):
        load_pretrained(folder)
