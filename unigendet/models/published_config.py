"""The configuration files of a published BAGEL folder, from and to `ModelConfig`.

llm_config.json   Qwen2's fields
vit_config.json   SigLIP's fields, of the whole encoder: the model uses all layers but the last
config.json       the glue between the parts, in the names of the published code; what it leaves
                  out has the published value
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from unigendet.config import (
    AutoencoderConfig,
    ModelConfig,
    ResizeRule,
    TransformerConfig,
    VisionConfig,
)

GLUE_FILE = "config.json"
LLM_FILE = "llm_config.json"
VIT_FILE = "vit_config.json"

_VIT_SELECT_LAYER = -2
"""Whose output the published model reads, counted from the end: -1 would be the last layer's."""
_ACTIVATION = "gelu_pytorch_tanh"
_VAE_RULE = ResizeRule(max_size=1024, min_size=512, stride=16)
_VIT_RULE = ResizeRule(max_size=980, min_size=224, stride=14)
_FLUX = AutoencoderConfig(
    base_channels=128, channel_multipliers=(1, 2, 4, 4), num_res_blocks=2, latent_channels=16
)

_T = TypeVar("_T", int, float, bool)


def is_published_folder(folder: Path) -> bool:
    """Whether a folder says that it holds a published model."""
    return (folder / LLM_FILE).is_file() or (folder / VIT_FILE).is_file()


def read_published_config(folder: Path) -> ModelConfig:
    """The configuration of a published folder, without an alignment head.

    Raises ValueError naming the file and the field that is missing, of a wrong type, or asks for
    what this model does not do.
    """
    vit = _read_vit(_Fields.of(folder / VIT_FILE))
    glue = _Fields.of(folder / GLUE_FILE) if (folder / GLUE_FILE).is_file() else _Fields({}, folder)
    glue.require("vit_max_num_patch_per_side", vit.patches_per_side)
    glue.require("vit_select_layer", _VIT_SELECT_LAYER)
    glue.require("connector_act", _ACTIVATION)
    rules = glue.section("image_transforms")
    return ModelConfig(
        llm=_read_llm(_Fields.of(folder / LLM_FILE)),
        vit=vit,
        vae=_read_vae(glue.section("vae_config")),
        vae_resize=_read_rule(rules.section("vae"), _VAE_RULE),
        vit_resize=_read_rule(rules.section("vit"), _VIT_RULE),
        latent_patch_size=glue.get("latent_patch_size", int, 2),
        max_latent_size=glue.get("max_latent_size", int, 64),
        interpolate_pos=glue.get("interpolate_pos", bool, False),
        timestep_shift=glue.get("timestep_shift", float, 1.0),
    )


def write_published_config(config: ModelConfig, folder: Path) -> None:
    """Write the three files; `read_published_config` gives `config` back but its alignment head."""
    llm, vit, vae = config.llm, config.vit, config.vae
    files: dict[str, dict[str, Any]] = {
        LLM_FILE: {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "hidden_act": "silu",
            "layer_module": "Qwen2MoTDecoderLayer",
            "qk_norm": True,
            "tie_word_embeddings": False,
        }
        | {name: getattr(llm, name) for name in TransformerConfig.__slots__},
        VIT_FILE: {"model_type": "siglip_vision_model", "hidden_act": _ACTIVATION}
        | {name: getattr(vit, name) for name in VisionConfig.__slots__}
        | {"num_hidden_layers": vit.num_hidden_layers - 1 - _VIT_SELECT_LAYER},
        GLUE_FILE: {
            "model_type": "bagel",
            "latent_patch_size": config.latent_patch_size,
            "max_latent_size": config.max_latent_size,
            "vit_max_num_patch_per_side": vit.patches_per_side,
            "vit_select_layer": _VIT_SELECT_LAYER,
            "connector_act": _ACTIVATION,
            "interpolate_pos": config.interpolate_pos,
            "timestep_shift": config.timestep_shift,
            "vae_config": {
                "ch": vae.base_channels,
                "ch_mult": vae.channel_multipliers,
                "num_res_blocks": vae.num_res_blocks,
                "z_channels": vae.latent_channels,
                "downsample": vae.downsample,
                "scale_factor": vae.scale_factor,
                "shift_factor": vae.shift_factor,
                "norm_groups": vae.norm_groups,
                "mid_attention": vae.mid_attention,
            },
            "image_transforms": {
                "vae": _rule_fields(config.vae_resize),
                "vit": _rule_fields(config.vit_resize),
            },
        },
    }
    for name, fields in files.items():
        (folder / name).write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def _read_llm(fields: _Fields) -> TransformerConfig:
    fields.require("hidden_act", "silu")
    fields.require("rope_scaling", None)
    fields.require("use_sliding_window", False)
    return TransformerConfig(
        vocab_size=fields.get("vocab_size", int),
        hidden_size=fields.get("hidden_size", int),
        intermediate_size=fields.get("intermediate_size", int),
        num_hidden_layers=fields.get("num_hidden_layers", int),
        num_attention_heads=fields.get("num_attention_heads", int),
        num_key_value_heads=fields.get("num_key_value_heads", int),
        rms_norm_eps=fields.get("rms_norm_eps", float),
        rope_theta=fields.get("rope_theta", float),
    )


def _read_vit(fields: _Fields) -> VisionConfig:
    fields.require("hidden_act", _ACTIVATION)
    return VisionConfig(
        hidden_size=fields.get("hidden_size", int),
        intermediate_size=fields.get("intermediate_size", int),
        num_hidden_layers=fields.get("num_hidden_layers", int) + 1 + _VIT_SELECT_LAYER,
        num_attention_heads=fields.get("num_attention_heads", int),
        image_size=fields.get("image_size", int),
        patch_size=fields.get("patch_size", int),
        num_channels=fields.get("num_channels", int, 3),
        layer_norm_eps=fields.get("layer_norm_eps", float, 1e-6),
    )


def _read_vae(fields: _Fields) -> AutoencoderConfig:
    multipliers = fields.values.get("ch_mult", _FLUX.channel_multipliers)
    if not multipliers or not all(type(value) is int for value in multipliers):
        raise ValueError(f"{fields.where}: ch_mult must be a list of int, got {multipliers!r}")
    config = AutoencoderConfig(
        base_channels=fields.get("ch", int, _FLUX.base_channels),
        channel_multipliers=tuple(multipliers),
        num_res_blocks=fields.get("num_res_blocks", int, _FLUX.num_res_blocks),
        latent_channels=fields.get("z_channels", int, _FLUX.latent_channels),
        scale_factor=fields.get("scale_factor", float, _FLUX.scale_factor),
        shift_factor=fields.get("shift_factor", float, _FLUX.shift_factor),
        norm_groups=fields.get("norm_groups", int, _FLUX.norm_groups),
        mid_attention=fields.get("mid_attention", bool, _FLUX.mid_attention),
    )
    fields.require("downsample", config.downsample)
    return config


def _read_rule(fields: _Fields, default: ResizeRule) -> ResizeRule:
    return ResizeRule(
        max_size=fields.get("max_image_size", int, default.max_size),
        min_size=fields.get("min_image_size", int, default.min_size),
        stride=fields.get("image_stride", int, default.stride),
        max_pixels=fields.get("max_pixels", int, default.max_pixels),
    )


def _rule_fields(rule: ResizeRule) -> dict[str, int]:
    return {
        "max_image_size": rule.max_size,
        "min_image_size": rule.min_size,
        "image_stride": rule.stride,
        "max_pixels": rule.max_pixels,
    }


class _Fields:
    """A JSON object whose fields are read with their types; errors say where it is from."""

    def __init__(self, values: Mapping[str, Any], where: Path | str) -> None:
        self.values, self.where = values, where

    @classmethod
    def of(cls, path: Path) -> _Fields:
        if not path.is_file():
            raise ValueError(f"no published configuration at {path.parent}: {path.name} is missing")
        try:
            values = json.loads(path.read_text("utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise ValueError(f"{path} must hold a JSON object")
        return cls(values, path)

    def section(self, name: str) -> _Fields:
        values = self.values.get(name, {})
        if not isinstance(values, dict):
            raise ValueError(f"{self.where}: {name} must be an object, got {values!r}")
        return _Fields(values, f"{self.where}: {name}")

    def get(self, name: str, kind: type[_T], default: _T | None = None) -> _T:
        if name not in self.values and default is None:
            raise ValueError(f"{self.where}: {name} is missing")
        value = self.values.get(name, default)
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise ValueError(f"{self.where}: {name} must be {kind.__name__}, got {value!r}")
        return value

    def require(self, name: str, only: object) -> None:
        """Refuse a field that asks for anything but the one thing that this model does."""
        value = self.values.get(name, only)
        if value != only:
            raise ValueError(f"{self.where}: {name} is {value!r}; this model can only do {only!r}")
