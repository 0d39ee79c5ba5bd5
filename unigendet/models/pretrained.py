"""A model as a folder: configuration, both networks' weights, tokenizer.

config.json          format version and every field of `ModelConfig`
model.safetensors    `UniGenDetModel`, published parameter names
vae.safetensors      `LatentAutoencoder`, published FLUX names
tokenizer.json       `Tokenizer`

A large model has `model-0000i-of-0000N.safetensors` and `model.safetensors.index.json` instead of
the one file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unigendet import parallel
from unigendet.config import ModelConfig
from unigendet.data.tokenizer import Tokenizer
from unigendet.models.initialisation import fresh_addition
from unigendet.models.staged_folder import staged_folder
from unigendet.models.unified import UniGenDetModel
from unigendet.models.vae import LatentAutoencoder
from unigendet.models.weight_files import INDEX_ENDING, WeightFiles, open_weights, read_weights
from unigendet.models.weight_specs import compare_specs
from unigendet.models.weight_writer import SHARD_BYTES, save_weights

FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
MODEL_STEM = "model"
VAE_STEM = "vae"
MODEL_FILE = f"{MODEL_STEM}.safetensors"
VAE_FILE = f"{VAE_STEM}.safetensors"
TOKENIZER_FILE = "tokenizer.json"
_LATER = {"alignment_width", "smsa"}
"""Fields that may be left out: folders from before they were there stay readable."""


@dataclass(frozen=True, slots=True)
class Pretrained:
    """What a model folder holds, in evaluation mode."""

    model: UniGenDetModel
    vae: LatentAutoencoder
    tokenizer: Tokenizer

    @property
    def config(self) -> ModelConfig:
        return self.model.config


def save_pretrained(
    folder: str | Path,
    model: UniGenDetModel,
    vae: LatentAutoencoder,
    tokenizer: Tokenizer,
    *,
    shard_bytes: int = SHARD_BYTES,
    writes: bool = True,
) -> None:
    """Write a model folder, whole or not at all; an earlier one in its place is replaced.

    The autoencoder's own configuration is stored (its scaling is settled after the model's
    configuration was made). Raises ValueError where `folder` holds anything but a model.

    Args:
        writes: False on ranks that only help to put a sharded model together, tensor by tensor.
    """
    if not writes:
        save_weights(None, MODEL_STEM, model.state_dict(), shard_bytes=shard_bytes)
        return
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()) and not _is_model_folder(folder):
        raise ValueError(f"{folder} exists and is no model folder; it is left as it is")
    if len(tokenizer) > model.config.llm.vocab_size:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} ids, the model's vocabulary only "
            f"{model.config.llm.vocab_size}"
        )
    with staged_folder(folder) as staging:
        config = dataclasses.replace(model.config, vae=vae.config)
        (staging / CONFIG_FILE).write_text(config_to_json(config), encoding="utf-8")
        save_weights(staging, MODEL_STEM, model.state_dict(), shard_bytes=shard_bytes)
        save_weights(staging, VAE_STEM, vae.published_state_dict())
        tokenizer.save(staging)


def load_pretrained(
    folder: str | Path,
    *,
    head_seed: int | None = None,
    head_width: int | None = None,
    smsa: bool | None = None,
    shard: Callable[[UniGenDetModel], None] | None = None,
    device: str | torch.device = "cpu",
) -> Pretrained:
    """Read a model folder. ValueError names the file that is missing, damaged or does not fit.

    Args:
        head_seed: gives the model an alignment head: the folder's, or one drawn from this seed.
        head_width: that head's output channels; a head of another width in the folder is left
            out. None is the model's hidden_size.
        smsa: whether the detector reads latents from here on; None as it was trained.
        shard: shares the model, which has no storage yet, out over ranks (`parallel.shard`). Then
            it is float32, and no rank ever reads more than its part and one tensor.
        device: where a sharded model is made; another one is made on the CPU.
    """
    folder = Path(folder)
    config, tokenizer = read_config(folder), Tokenizer.load(folder)
    if len(tokenizer) > config.llm.vocab_size:
        raise ValueError(
            f"{folder / TOKENIZER_FILE} has {len(tokenizer)} ids, more than the model's vocabulary "
            f"of {config.llm.vocab_size}"
        )
    width = head_width or config.llm.hidden_size
    own_head = config.alignment_head and config.head_width == width
    fresh_head = head_seed is not None and not own_head
    if fresh_head:
        config = dataclasses.replace(
            config,
            alignment_head=True,
            alignment_width=None if width == config.llm.hidden_size else width,
        )
    if smsa is not None:
        config = dataclasses.replace(config, smsa=smsa)
    # Made without storage, which the loaded tensors then are: no random numbers are drawn, and a
    # large model is in memory once.
    with torch.device("meta"):
        model, vae = UniGenDetModel(config), LatentAutoencoder(config.vae)
    head: dict[str, Tensor] = {}
    if fresh_head and head_seed is not None:
        head = fresh_addition(model, "diga_mlp", head_seed)
    weights = open_model_weights(folder)
    _check_fits(model, weights, head)
    if shard is None:
        state: dict[str, Tensor] = {}
        for file in weights.files:
            state |= read_weights(file)
        model.load_state_dict(state | head, assign=True)
    else:
        shard(model)
        model.to_empty(device=device)
        _fill(model, weights, head)
    try:
        vae.load_published_state_dict(read_weights(folder / VAE_FILE))
    except ValueError as error:
        raise ValueError(f"{folder / VAE_FILE}: {error}") from error
    return Pretrained(model.eval(), vae.eval(), tokenizer)


def read_config(folder: Path) -> ModelConfig:
    """A model folder's configuration. ValueError names what the folder lacks, any of its files."""
    if not folder.is_dir():
        raise ValueError(f"no model at {folder}: there is no such folder")
    for name in (CONFIG_FILE, MODEL_FILE, VAE_FILE, TOKENIZER_FILE):
        sharded = name == MODEL_FILE and _model_index(folder).is_file()
        if not sharded and not (folder / name).is_file():
            raise ValueError(f"no model at {folder}: {name} is missing")
    return config_from_json((folder / CONFIG_FILE).read_text("utf-8"), folder / CONFIG_FILE)


def open_model_weights(folder: Path) -> WeightFiles:
    """The weights of a model folder's `UniGenDetModel`, one file or several, unread."""
    index = _model_index(folder)
    return open_weights(index if index.is_file() else folder / MODEL_FILE)


def weights_sha256(folder: Path) -> str:
    """SHA-256 of a model's weights; of the hashes of their files where these are several."""
    hashes = []
    for path in open_model_weights(folder).files:
        with path.open("rb") as file:
            hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


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
    """A (nested) configuration dataclass from decoded JSON, strictly but for `_LATER`."""
    if not isinstance(values, dict):
        raise ValueError(f"{where}: expected an object, got {values!r}")
    hints = typing.get_type_hints(cls)
    names = {field.name for field in dataclasses.fields(cls)}
    needed = names - _LATER
    for kind, odd in (
        ("missing", needed - values.keys()),
        ("unknown", values.keys() - names),
    ):
        if odd:
            raise ValueError(f"{where}: {kind} {', '.join(sorted(odd))}")
    return cls(
        **{name: _value(hints[name], value, f"{where}: {name}") for name, value in values.items()}
    )


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


def _check_fits(
    model: UniGenDetModel, weights: WeightFiles, additions: Mapping[str, Tensor]
) -> None:
    expected = {
        name: tuple(value.shape)
        for name, value in model.state_dict().items()
        if name not in additions
    }
    # A head that an addition takes the place of is not read.
    found = {name: spec for name, spec in weights.specs.items() if name not in additions}
    problems = compare_specs(expected, found)
    if problems:
        raise ValueError(
            f"{weights.source} belongs to another configuration than {CONFIG_FILE}: "
            + "; ".join(problems)
        )


@torch.no_grad()
def _fill(model: UniGenDetModel, weights: WeightFiles, additions: Mapping[str, Tensor]) -> None:
    """Give a sharded model its weights: each rank reads its own rows."""
    for name, value in model.state_dict().items():
        part, rows = value, None
        if parallel.is_shard(value):
            part, rows = parallel.local_rows(value)
        if name in additions:
            part.copy_(additions[name] if rows is None else additions[name][rows])
        elif part.numel():
            part.copy_(weights.read(name, rows))


def _model_index(folder: Path) -> Path:
    return folder / f"{MODEL_STEM}{INDEX_ENDING}"


def _is_model_folder(folder: Path) -> bool:
    """Published folders have a config.json too, without a format version: they are not ours."""
    try:
        values = json.loads((folder / CONFIG_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and "format" in values
