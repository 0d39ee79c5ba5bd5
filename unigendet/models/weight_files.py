"""Find and read safetensors weights, in one file or many, one tensor at a time in memory.

A set of weights is a file, an index (`NAME.safetensors.index.json`) with its files, or the shards
`NAME-0000i-of-0000N.safetensors` of a folder. Opening one reads the files' headers only, which
already shows what is truncated.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from unigendet.models.weight_specs import DTYPES, TensorSpec, list_keys

INDEX_ENDING = ".safetensors.index.json"

_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors")
_PREFIX = 8
"""Bytes of a safetensors file that say how long its header is."""
_PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """An opened set of weights: what is in it, and where."""

    source: Path
    """What was asked for; errors name it."""
    files: tuple[Path, ...]
    specs: Mapping[str, TensorSpec]
    _places: Mapping[str, _Place]

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        """One tensor, or some of its rows (a slice without a step, of the first dimension).

        Raises ValueError naming the file if that has changed since it was opened.
        """
        spec, place = self.specs[name], self._places[name]
        if rows is not None:
            count = rows.stop - rows.start
            row_bytes = spec.nbytes // spec.shape[0]
            spec = TensorSpec(spec.dtype, (count, *spec.shape[1:]))
            place = _Place(place.file, place.start + rows.start * row_bytes)
        values = torch.empty(spec.nbytes, dtype=torch.uint8)
        # Read, not mapped: a private mapping of a whole file counts as memory, and one that is
        # larger than the machine's is refused.
        with place.file.open("rb") as file:
            file.seek(place.start)
            if file.readinto(values.numpy().data) != spec.nbytes:
                raise _damaged(place.file, f"it ends within {name}")
        return values.view(spec.dtype).reshape(spec.shape)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tensor's values are: so many bytes into a file."""

    file: Path
    start: int


def open_weights(path: Path, *, leaving_out: Collection[str] = ()) -> WeightFiles:
    """Open the set of weights at `path`: a file, an index, or a folder that holds just one set.

    Args:
        path: a shard stands for its whole set.
        leaving_out: names of files in a folder that hold something else, the autoencoder for one.

    Raises:
        ValueError: there is no such set, or more than one; a file is missing, truncated, damaged,
            a pickle, or of a type of number that no model here has; two files hold one tensor.
    """
    places: dict[str, _Place] = {}
    specs: dict[str, TensorSpec] = {}
    files, index = _locate(path, leaving_out)
    for file in files:
        for name, (spec, place) in _read_header(file).items():
            if name in places:
                raise ValueError(f"{name} is both in {places[name].file} and in {file}")
            specs[name], places[name] = spec, place
    if index is not None:
        listed = set(_weight_map(index).items())
        found = {(name, place.file.name) for name, place in places.items()}
        if listed != found:
            odd = list_keys({name for name, _ in listed ^ found})
            raise ValueError(f"{index} does not say what its files hold: {odd}")
    return WeightFiles(path, files, specs, places)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises ValueError naming a file that is damaged."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def _locate(path: Path, leaving_out: Collection[str]) -> tuple[tuple[Path, ...], Path | None]:
    """The files of the set of weights at `path`, and the index that lists them, if one does."""
    if path.is_dir():
        path = _only_set(path, leaving_out)
    elif not path.is_file():
        raise ValueError(f"no weights at {path}: there is no such file or folder")
    if path.suffix in _PICKLES:
        raise _pickle(path)
    if path.name.endswith(INDEX_ENDING):
        files = tuple(path.with_name(name) for name in sorted(set(_weight_map(path).values())))
        index = path
    elif path.suffix == ".safetensors":
        files, index = _shards_beside(path), None
    else:
        raise ValueError(f"{path} holds no weights: expected a .safetensors file or its index")
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ValueError(f"{path} is one part of several; missing: {list_keys(missing)}")
    return files, index


def _only_set(folder: Path, leaving_out: Collection[str]) -> Path:
    """The one set of weights in a folder, as its index or one of its files."""
    indexes = sorted(folder.glob(f"*{INDEX_ENDING}"))
    indexed = {name for index in indexes for name in _weight_map(index).values()}
    sets: dict[str, Path] = {index.name: index for index in indexes}
    for file in sorted(folder.glob("*.safetensors")):
        if file.name not in indexed and file.name not in leaving_out:
            shard = _SHARD.fullmatch(file.name)
            sets.setdefault(shard["stem"] if shard else file.name, file)
    if len(sets) > 1:
        names = ", ".join(file.name for file in sets.values())
        raise ValueError(f"{folder} holds several sets of weights; name the one to use: {names}")
    if not sets:
        for file in sorted(folder.iterdir()):
            if file.suffix in _PICKLES:
                raise _pickle(file)
        raise ValueError(f"no weights in {folder}: it needs a .safetensors file or its index")
    (only,) = sets.values()
    return only


def _shards_beside(path: Path) -> tuple[Path, ...]:
    """All shards of the set that `path` belongs to, whether they exist or not."""
    shard = _SHARD.fullmatch(path.name)
    if shard is None:
        return (path,)
    return tuple(
        path.with_name(f"{shard['stem']}-{number:05d}-of-{shard['count']}.safetensors")
        for number in range(1, int(shard["count"]) + 1)
    )


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor -> file, from an index. Only files beside the index are allowed."""
    try:
        content = json.loads(index.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{index} is not JSON: {error}") from error
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{index} is no index of weights: it has no weight_map")
    for name in weight_map.values():
        if not isinstance(name, str) or Path(name).name != name:
            raise ValueError(f"{index} names {name!r}, which is no file beside it")
        if Path(name).suffix in _PICKLES:
            raise _pickle(index.with_name(name))
    return weight_map


def _read_header(path: Path) -> dict[str, tuple[TensorSpec, _Place]]:
    try:
        # Checks the whole layout against the file's size. For numpy it maps the file read-only.
        with safe_open(path, framework="np"):
            pass
    except SafetensorError as error:
        raise _damaged(path, error) from error
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(_PREFIX))
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        if entry["dtype"] not in DTYPES:
            raise ValueError(
                f"{path}: {name} is of type {entry['dtype']}; weights here are of type "
                f"{', '.join(DTYPES)}, and quantised ones cannot be read"
            )
        spec = TensorSpec(DTYPES[entry["dtype"]], tuple(entry["shape"]))
        found[name] = spec, _Place(path, _PREFIX + length + entry["data_offsets"][0])
    return found


def _damaged(path: Path, error: Exception | str) -> ValueError:
    return ValueError(f"{path} is damaged or not a safetensors file: {error}")


def _pickle(path: Path) -> ValueError:
    return ValueError(
        f"{path} is a pickle, which can run any code while it is read, and is refused: "
        "use the safetensors file of the same weights, or convert it where you trust its source"
    )
