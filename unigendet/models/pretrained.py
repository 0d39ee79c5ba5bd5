"""A model as a folder of four files: configuration, both networks' weights, tokenizer.

config.json          format version and every field of `ModelConfig`
model.safetensors    `UniGenDetModel`, published parameter names
vae.safetensors      `LatentAutoencoder`, published FLUX names
tokenizer.json       `Tokenizer`
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from unigendet.config import ModelConfig
from unigendet.data.tokenizer import Tokenizer
from unigendet.models.unified import UniGenDetModel
from unigendet.models.vae import LatentAutoencoder

FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
MODEL_FILE = "model.safetensors"
VAE_FILE = "vae.safetensors"
TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True, slots=True)
class Pretrained:
    """What a model folder holds, on the CPU and in evaluation mode."""

    config: ModelConfig
    model: UniGenDetModel
    vae: LatentAutoencoder
    tokenizer: Tokenizer


def save_pretrained(
    folder: str | Path, model: UniGenDetModel, vae: LatentAutoencoder, tokenizer: Tokenizer
) -> None:
    """Write a model folder, whole or not at all; an earlier one in its place is replaced.

    The autoencoder's own configuration is stored (its scaling is settled after the model's
    configuration was made). Raises ValueError where `folder` holds anything but a model.
    """
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / CONFIG_FILE).is_file():
        raise ValueError(f"{folder} exists and is no model folder; it is left as it is")
    if len(tokenizer) > model.config.llm.vocab_size:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} ids, the model's vocabulary only "
            f"{model.config.llm.vocab_size}"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        staging.chmod(0o755)  # mkdtemp makes it private
        config = dataclasses.replace(model.config, vae=vae.config)
        (staging / CONFIG_FILE).write_text(config_to_json(config), encoding="utf-8")
        save_file(_contiguous(model.state_dict()), staging / MODEL_FILE)
        save_file(_contiguous(vae.published_state_dict()), staging / VAE_FILE)
        tokenizer.save(staging)
        _replace_folder(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def load_pretrained(folder: str | Path) -> Pretrained:
    """Read a model folder. ValueError names the file that is missing, damaged or does not fit."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"no model at {folder}: there is no such folder")
    for name in (CONFIG_FILE, MODEL_FILE, VAE_FILE, TOKENIZER_FILE):
        if not (folder / name).is_file():
            raise ValueError(f"no model at {folder}: {name} is missing")
    config = config_from_json((folder / CONFIG_FILE).read_text("utf-8"), folder / CONFIG_FILE)
    tokenizer = Tokenizer.load(folder)
    if len(tokenizer) > config.llm.vocab_size:
        raise ValueError(
            f"{folder / TOKENIZER_FILE} has {len(tokenizer)} ids, more than the model's vocabulary "
            f"of {config.llm.vocab_size}"
        )
    # Made without storage, which the loaded tensors then are: no random numbers are drawn, and a
    # large model is in memory once.
    with torch.device("meta"):
        model, vae = UniGenDetModel(config), LatentAutoencoder(config.vae)
    _load_exactly(model, read_weights(folder / MODEL_FILE), folder / MODEL_FILE)
    try:
        vae.load_published_state_dict(read_weights(folder / VAE_FILE))
    except ValueError as error:
        raise ValueError(f"{folder / VAE_FILE}: {error}") from error
    return Pretrained(config, model.eval(), vae.eval(), tokenizer)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises ValueError naming a file that is damaged."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged or not a safetensors file: {error}") from error


def config_to_json(config: ModelConfig) -> str:
    """`config.json`'s text."""
    return json.dumps({"format": FORMAT_VERSION, **dataclasses.asdict(config)}, indent=2) + "\n"


def config_from_json(text: str, source: Path) -> ModelConfig:
    """The configuration in `text`: every field must be there, with its type, and no other."""
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{source} is not JSON: {error}") from error
    if not isinstance(values, dict) or values.pop("format", None) != FORMAT_VERSION:
        raise ValueError(f"{source} is not a model configuration of format {FORMAT_VERSION}")
    config: ModelConfig = _build(ModelConfig, values, str(source))
    return config


def _build(cls: Any, values: Any, where: str) -> Any:
    """A (nested) configuration dataclass from decoded JSON, strictly."""
    if not isinstance(values, dict):
        raise ValueError(f"{where}: expected an object, got {values!r}")
    hints = typing.get_type_hints(cls)
    names = {field.name for field in dataclasses.fields(cls)}
    for kind, odd in (
        ("missing", names - values.keys()),
        ("unknown", values.keys() - names),
    ):
        if odd:
            raise ValueError(f"{where}: {kind} {', '.join(sorted(odd))}")
    return cls(**{name: _value(hints[name], values[name], f"{where}: {name}") for name in names})


def _value(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, where)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{where} must be a list, got {value!r}")
        return tuple(_value(typing.get_args(hint)[0], item, where) for item in value)
    if isinstance(hint, types.UnionType):
        allowed: tuple[type, ...] = typing.get_args(hint)
    else:
        allowed = (int, float) if hint is float else (hint,)
    # bool is an int to Python, and must not pass for a number here
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        raise ValueError(f"{where} must be {getattr(hint, '__name__', hint)}, got {value!r}")
    return value


def _load_exactly(model: UniGenDetModel, state: dict[str, Tensor], source: Path) -> None:
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in state.items()}
    if expected == found:
        model.load_state_dict(state, assign=True)
        return
    different = sorted(expected.items() ^ found.items())
    examples = ", ".join(dict.fromkeys(key for key, _ in different[:5]))
    raise ValueError(
        f"{source} belongs to another configuration than {CONFIG_FILE}: "
        f"{len({key for key, _ in different})} tensors differ in name or shape ({examples} ...)"
    )


def _contiguous(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().cpu().contiguous() for key, value in state.items()}


def _replace_folder(staging: Path, folder: Path) -> None:
    """Put `staging` in the place of `folder`; a reader sees the old folder or the new one."""
    if not folder.exists():
        os.rename(staging, folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
    os.rename(folder, old / folder.name)
    try:
        os.rename(staging, folder)
    except OSError:
        os.rename(old / folder.name, folder)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
