"""Write safetensors weights, one tensor at a time in memory."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from unigendet import parallel
from unigendet.models.weight_files import INDEX_ENDING
from unigendet.models.weight_specs import DTYPES, TensorSpec, spec_of

SHARD_BYTES = 4 * 2**30
"""From which size on weights are written as several files."""

_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def write_weights(
    folder: Path,
    stem: str,
    specs: Mapping[str, TensorSpec],
    read: Callable[[str], Tensor],
    *,
    shard_bytes: int | None = SHARD_BYTES,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write `stem.safetensors`, or shards and their index where it would pass `shard_bytes`.

    Args:
        specs: name -> what `read(name)` gives, in the order in which shards are filled.
        read: called once for each tensor, just before it is written.
        shard_bytes: None for one file of any size. A larger tensor gets a file of its own.
        progress: told the bytes of each tensor as it has been written.
    """
    shards = _split(specs, shard_bytes)
    if len(shards) == 1:
        _write_file(folder / f"{stem}.safetensors", shards[0], read, progress)
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_file(folder / name, shard, read, progress)
        weight_map |= dict.fromkeys(shard, name)
    total = sum(spec.nbytes for spec in specs.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / f"{stem}{INDEX_ENDING}").write_text(json.dumps(index, indent=2) + "\n", "utf-8")


def save_weights(
    folder: Path | None, stem: str, state: Mapping[str, Tensor], *, shard_bytes: int = SHARD_BYTES
) -> None:
    """Write a state dict as `write_weights` does, on one rank or on several.

    Of a model that is sharded (`unigendet.parallel`) one tensor after another is put together, for
    which every rank has to call this; where `folder` is None it writes nothing.
    """
    specs = {name: spec_of(value) for name, value in state.items()}

    def read(name: str) -> Tensor:
        return parallel.whole(state[name])

    if folder is not None:
        write_weights(folder, stem, specs, read, shard_bytes=shard_bytes)
        return
    for shard in _split(specs, shard_bytes):
        for name in _file_order(shard):
            read(name)


def _split(specs: Mapping[str, TensorSpec], most: int | None) -> list[dict[str, TensorSpec]]:
    shards: list[dict[str, TensorSpec]] = [{}]
    size = 0
    for name, spec in specs.items():
        if most is not None and shards[-1] and size + spec.nbytes > most:
            shards.append({})
            size = 0
        shards[-1][name] = spec
        size += spec.nbytes
    return shards


def _file_order(specs: Mapping[str, TensorSpec]) -> list[str]:
    """Wide numbers first: then every tensor starts at a multiple of its number's size."""
    return sorted(specs, key=lambda name: -specs[name].dtype.itemsize)


def _write_file(
    path: Path,
    specs: Mapping[str, TensorSpec],
    read: Callable[[str], Tensor],
    progress: Callable[[int], None] | None,
) -> None:
    """The safetensors format: the header's length, the header as JSON, then the values in order."""
    order = _file_order(specs)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in order:
        spec, start = specs[name], end
        end += spec.nbytes
        header[name] = {
            "dtype": _DTYPE_NAMES[spec.dtype],
            "shape": spec.shape,
            "data_offsets": (start, end),
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            tensor = read(name).detach().cpu().contiguous()
            if spec_of(tensor) != specs[name]:
                raise RuntimeError(f"{name} is {spec_of(tensor)}, announced as {specs[name]}")
            file.write(tensor.flatten().view(torch.uint8).numpy().data)
            if progress is not None:
                progress(specs[name].nbytes)
