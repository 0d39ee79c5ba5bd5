"""A small model and its published form, made by hand as the published code would have saved it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.models.tiny import tiny_config, tiny_model
from unigendet.config import AutoencoderConfig, ModelConfig, ResizeRule
from unigendet.data.tokenizer import Tokenizer, train_tokenizer
from unigendet.models.unified import UniGenDetModel
from unigendet.models.vae import LatentAutoencoder

NEW = ("fake_cls_head.", "latent_to_vit_connector.")
"""What UniGenDet adds to BAGEL."""


def small_config(**changes: Any) -> ModelConfig:
    """Every field that a published folder can leave out has another value than it has there."""
    config = tiny_config(
        llm=replace(tiny_config().llm, vocab_size=280, rope_theta=5e5, rms_norm_eps=1e-5),
        vae=AutoencoderConfig(4, (1, 2), 1, 3, 0.7, -0.2, norm_groups=2, mid_attention=False),
        vae_resize=ResizeRule(36, 12, 4, max_pixels=900),
        interpolate_pos=True,
        timestep_shift=2.5,
    )
    return replace(config, **changes)


def wide_config() -> ModelConfig:
    """About 100 MB of float32 in tensors of at most 4 MB."""
    config = small_config()
    llm = replace(config.llm, hidden_size=480, intermediate_size=2000, num_hidden_layers=3)
    return replace(config, llm=llm)


def small_parts(
    config: ModelConfig | None = None,
) -> tuple[UniGenDetModel, LatentAutoencoder, Tokenizer]:
    config = config or small_config()
    model = tiny_model(config)
    torch.manual_seed(1)
    return model, LatentAutoencoder(config.vae), train_tokenizer(["sand and snow"], 262)


def bagel_folder(folder: Path, dtype: torch.dtype = torch.bfloat16) -> dict[str, Tensor]:
    """Write a folder like BAGEL-7B-MoT's, of FLUX's layout but narrow; returns the weights."""
    config = small_config(
        vae=AutoencoderConfig(4, (1, 2), 1, 3, norm_groups=2),
        vae_resize=ResizeRule(1024, 512, 16),
        vit_resize=ResizeRule(980, 224, 14),
        interpolate_pos=False,
        timestep_shift=1.0,
    )
    model, vae, tokenizer = small_parts(config)
    weights = {
        name: value.to(dtype)
        for name, value in model.state_dict().items()
        if not name.startswith(NEW)
    }
    folder.mkdir(parents=True)
    save_file(weights, folder / "ema.safetensors")
    save_file(vae.published_state_dict(), folder / "ae.safetensors")
    tokenizer.save_tables(folder)
    write_json(
        folder / "llm_config.json",
        {
            "architectures": ["Qwen2ForCausalLM"],
            "hidden_act": "silu",
            "hidden_size": 48,
            "intermediate_size": 80,
            "max_position_embeddings": 32768,
            "num_attention_heads": 6,
            "num_hidden_layers": 3,
            "num_key_value_heads": 2,
            "rms_norm_eps": 1e-05,
            "rope_theta": 500000,
            "tie_word_embeddings": True,  # the published code sets it, whatever the file says
            "use_sliding_window": False,
            "vocab_size": 280,
        },
    )
    write_json(
        folder / "vit_config.json",
        {
            "hidden_size": 32,
            "image_size": 36,
            "intermediate_size": 40,
            "model_type": "siglip_vision_model",
            "num_attention_heads": 4,
            "num_hidden_layers": 3,  # two are used
            "patch_size": 6,
        },
    )
    write_json(
        folder / "config.json",
        {
            "max_latent_size": 9,
            "vae_config": {
                **{"ch": 4, "ch_mult": [1, 2], "num_res_blocks": 1, "z_channels": 3},
                **{"downsample": 2, "norm_groups": 2},
            },
        },
    )
    return weights


def write_json(path: Path, values: object) -> None:
    path.write_text(json.dumps(values))


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """The same tensors, bit for bit."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value), name
