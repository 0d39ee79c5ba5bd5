"""Published configuration files: what they say, what they leave out, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.models.published import small_config, write_json
from unigendet.config import AutoencoderConfig, ModelConfig, ResizeRule
from unigendet.models.published_config import read_published_config, write_published_config
from unigendet.models.unified import UniGenDetModel
from unigendet.models.vae import LatentAutoencoder

KEYS = Path(__file__).parents[1] / "golden" / "data" / "F1_state_dict" / "state_dict_keys_7b.json"
QWEN = {
    "hidden_act": "silu",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "vocab_size": 152064,
}
SIGLIP = {
    "hidden_size": 1152,
    "image_size": 980,
    "intermediate_size": 4304,
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "patch_size": 14,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """BAGEL-7B-MoT's configuration."""
    write_json(tmp_path / "llm_config.json", QWEN)
    write_json(tmp_path / "vit_config.json", SIGLIP)
    return tmp_path


def change(path: Path, **changes: object) -> None:
    values = json.loads(path.read_text()) if path.is_file() else {}
    write_json(path, values | changes)


def test_bagel_gives_exactly_the_published_tensors(folder: Path) -> None:
    config = read_published_config(folder)
    expected = json.loads(KEYS.read_text())
    with torch.device("meta"):
        model, vae = UniGenDetModel(config), LatentAutoencoder(config.vae)
    for state, name in ((model.state_dict(), "gduf"), (vae.published_state_dict(), "vae")):
        assert {key: list(value.shape) for key, value in state.items()} == expected[name]
    assert config.vit.num_hidden_layers == 26  # the last of 27 is left out
    assert config.vae == AutoencoderConfig(128, (1, 2, 4, 4), 2, 16, 0.3611, 0.1159)
    assert config.vae_resize == ResizeRule(1024, 512, 16)
    assert config.vit_resize == ResizeRule(980, 224, 14)
    assert (config.latent_patch_size, config.max_latent_size) == (2, 64)
    assert not config.interpolate_pos and config.timestep_shift == 1.0


@pytest.mark.parametrize("config", [small_config(), small_config(interpolate_pos=False)])
def test_what_is_written_comes_back(config: ModelConfig, tmp_path: Path) -> None:
    write_published_config(config, tmp_path)
    assert read_published_config(tmp_path) == config
    vit = json.loads((tmp_path / "vit_config.json").read_text())
    assert vit["num_hidden_layers"] == config.vit.num_hidden_layers + 1


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("llm_config.json", {"hidden_size": "3584"}, "hidden_size must be int, got '3584'"),
        ("llm_config.json", {"num_hidden_layers": True}, "num_hidden_layers must be int"),
        ("llm_config.json", {"hidden_act": "gelu"}, "hidden_act is 'gelu'; .* only do 'silu'"),
        ("llm_config.json", {"rope_scaling": {"type": "yarn"}}, "rope_scaling is"),
        ("llm_config.json", {"use_sliding_window": True}, "use_sliding_window is True"),
        ("llm_config.json", {"num_key_value_heads": 3}, r"num_key_value_heads \(3\)"),
        ("vit_config.json", {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ("config.json", {"vit_max_num_patch_per_side": 32}, "is 32; .* only do 70"),
        ("config.json", {"vit_select_layer": -1}, "vit_select_layer is -1"),
        ("config.json", {"vae_config": {"downsample": 16}}, "vae_config: downsample is 16"),
        ("config.json", {"vae_config": {"ch_mult": "1"}}, "ch_mult must be a list of int"),
        ("config.json", {"image_transforms": 3}, "image_transforms must be an object"),
        ("config.json", {"interpolate_pos": 1}, "interpolate_pos must be bool"),
    ],
)
def test_what_the_model_cannot_be_is_named(
    folder: Path, file: str, changes: dict[str, object], message: str
) -> None:
    change(folder / file, **changes)
    with pytest.raises(ValueError, match=message):
        read_published_config(folder)


def test_missing_and_damaged_files_are_named(folder: Path) -> None:
    write_json(folder / "llm_config.json", {key: QWEN[key] for key in QWEN if key != "rope_theta"})
    with pytest.raises(ValueError, match=r"llm_config\.json: rope_theta is missing"):
        read_published_config(folder)
    (folder / "llm_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"llm_config\.json is not JSON"):
        read_published_config(folder)
    (folder / "vit_config.json").unlink()
    with pytest.raises(ValueError, match=r"vit_config\.json is missing"):
        read_published_config(folder)
