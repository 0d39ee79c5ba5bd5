"""Published weights in and out: BAGEL-7B-MoT, UniGenDet's release, and this project's folders.

    import_weights("BAGEL-7B-MoT", "bagel", initialise=("fake_cls_head", ...))
    import_weights("UniGenDet/ema.safetensors", "released", config="BAGEL-7B-MoT")
    export_weights("outputs/model", "published")

Every tensor is accounted for before the first is written, and they pass through one at a time: host
memory is bounded by the largest, not by the model.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import torch

from unigendet.config import ModelConfig
from unigendet.data.tokenizer import Tokenizer
from unigendet.models.pretrained import (
    CONFIG_FILE,
    MODEL_STEM,
    TOKENIZER_FILE,
    VAE_FILE,
    VAE_STEM,
    config_from_json,
    config_to_json,
    open_model_weights,
    read_config,
)
from unigendet.models.published_config import (
    is_published_folder,
    read_published_config,
    write_published_config,
)
from unigendet.models.staged_folder import staged_folder
from unigendet.models.weight_files import open_weights
from unigendet.models.weight_plan import (
    ADDITIONS,
    PlannedWeights,
    plan_copy,
    plan_model,
    plan_vae,
)
from unigendet.models.weight_writer import SHARD_BYTES, write_weights

_PUBLISHED_STEM = "ema"
_PUBLISHED_VAE_STEM = "ae"
_PUBLISHED_VAE_FILE = f"{_PUBLISHED_VAE_STEM}.safetensors"

Progress = Callable[[int, int], None]
"""Called with the bytes that are written, and of how many."""


@dataclass(frozen=True, slots=True)
class Written:
    """What an import or export wrote."""

    config: ModelConfig
    tensors: int
    """Of the model; the autoencoder's are not counted."""
    nbytes: int
    dtypes: tuple[torch.dtype, ...]


def import_weights(
    source: str | Path,
    folder: str | Path,
    *,
    config: str | Path | None = None,
    initialise: Collection[str] = (),
    dtype: torch.dtype | None = None,
    seed: int = 0,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress | None = None,
) -> Written:
    """Make a model folder of published weights, whole or not at all.

    Args:
        source: a published folder, or a checkpoint: a safetensors file, an index, or a folder with
            one set of shards.
        folder: must not exist yet, or be empty.
        config: where `source` brings no llm_config.json: a published folder, a model folder, or its
            config.json. Autoencoder and tokenizer come from beside it if `source` has none.
        initialise: those of `ADDITIONS` to draw from `seed`; `source` must not have them.
        dtype: what the model's weights are stored as; by default as in `source`.

    Raises:
        ValueError: anything is missing, left over, of another shape, damaged or a pickle; the
            message lists the tensors. Nothing has been written then.
    """
    source, folder = Path(source), Path(folder)
    unknown = set(initialise) - set(ADDITIONS)
    if unknown:
        raise ValueError(
            f"cannot initialise {', '.join(sorted(unknown))}: known are {', '.join(ADDITIONS)}"
        )
    _require_new(folder)
    weights = open_weights(source, leaving_out=(_PUBLISHED_VAE_FILE, VAE_FILE))
    beside = source if source.is_dir() else source.parent
    model_config, places = _find_config(beside, None if config is None else Path(config))
    model_config, model = plan_model(weights, model_config, set(initialise), dtype, seed)
    vae = plan_vae(_find_vae(places), model_config.vae)
    tokenizer = _find_tokenizer(places, model_config.llm.vocab_size)
    report = _reporter([model, vae], progress)
    _require_space(folder, [model, vae])
    with staged_folder(folder) as staging:
        (staging / CONFIG_FILE).write_text(config_to_json(model_config), encoding="utf-8")
        tokenizer.save(staging)
        for stem, part in ((MODEL_STEM, model), (VAE_STEM, vae)):
            write_weights(
                *(staging, stem, part.specs, part.read), shard_bytes=shard_bytes, progress=report
            )
    return _written(model_config, model)


def export_weights(
    model: str | Path, folder: str | Path, *, progress: Progress | None = None
) -> Written:
    """Write a model folder in the published form, whole or not at all.

    `folder`, which must not exist yet or be empty, gets ema.safetensors, ae.safetensors,
    llm_config.json, vit_config.json, config.json and the tokenizer's files. `import_weights` makes
    the same model of it again, bit for bit.

    Raises ValueError naming what is missing, damaged or does not fit.
    """
    model, folder = Path(model), Path(folder)
    _require_new(folder)
    config, weights = read_config(model), open_model_weights(model)
    tokenizer = Tokenizer.load(model)
    network = plan_copy(weights, config)
    vae = plan_vae(model / VAE_FILE, config.vae)
    report = _reporter([network, vae], progress)
    _require_space(folder, [network, vae])
    with staged_folder(folder) as staging:
        write_published_config(config, staging)
        tokenizer.save(staging)
        tokenizer.save_tables(staging)
        for stem, part in ((_PUBLISHED_STEM, network), (_PUBLISHED_VAE_STEM, vae)):
            write_weights(staging, stem, part.specs, part.read, shard_bytes=None, progress=report)
    return _written(config, network)


def _find_config(beside: Path, given: Path | None) -> tuple[ModelConfig, list[Path]]:
    """The configuration, and the folders in which the other parts are looked for, in order."""
    if given is None:
        if is_published_folder(beside):
            return read_published_config(beside), [beside]
        raise ValueError(
            f"{beside} has no llm_config.json and vit_config.json, which say what model this is: "
            "name a folder that has them, or a model folder's config.json, with --config"
        )
    folder = given if given.is_dir() else given.parent
    if given.is_dir() and is_published_folder(given):
        config = read_published_config(given)
    else:
        file = given / CONFIG_FILE if given.is_dir() else given
        if not file.is_file():
            raise ValueError(f"no configuration at {given}: there is no {file.name}")
        config = config_from_json(file.read_text("utf-8"), file)
    return config, [beside, folder]


def _find_vae(places: list[Path]) -> Path:
    for place in places:
        for name in (_PUBLISHED_VAE_FILE, VAE_FILE):
            if (place / name).is_file():
                return place / name
    raise ValueError(
        f"no autoencoder: neither {_PUBLISHED_VAE_FILE} nor {VAE_FILE} is in "
        f"{' or '.join(str(place) for place in places)}"
    )


def _find_tokenizer(places: list[Path], vocab_size: int) -> Tokenizer:
    for place in places:
        if (place / TOKENIZER_FILE).is_file() or (place / "vocab.json").is_file():
            tokenizer = Tokenizer.load(place)
            break
    else:
        raise ValueError(
            f"no tokenizer: neither {TOKENIZER_FILE} nor vocab.json and merges.txt are in "
            f"{' or '.join(str(place) for place in places)}"
        )
    if len(tokenizer) > vocab_size:
        raise ValueError(
            f"the tokenizer in {place} has {len(tokenizer)} ids, more than the model's vocabulary "
            f"of {vocab_size}"
        )
    return tokenizer


def _require_new(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists():
        raise ValueError(f"{folder} exists; name a new folder, or remove it first")


def _require_space(folder: Path, parts: list[PlannedWeights]) -> None:
    existing = next(place for place in folder.absolute().parents if place.exists())
    needed, free = sum(part.nbytes for part in parts), shutil.disk_usage(existing).free
    if needed > free:
        raise ValueError(
            f"{folder} needs {needed / 1e9:.1f} GB, its disk has {free / 1e9:.1f} GB free"
        )


def _reporter(parts: list[PlannedWeights], progress: Progress | None) -> Callable[[int], None]:
    total, done = sum(part.nbytes for part in parts), 0

    def report(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        if progress is not None:
            progress(done, total)

    return report


def _written(config: ModelConfig, model: PlannedWeights) -> Written:
    dtypes = {spec.dtype for spec in model.specs.values()}
    return Written(config, len(model.specs), model.nbytes, tuple(sorted(dtypes, key=str)))
