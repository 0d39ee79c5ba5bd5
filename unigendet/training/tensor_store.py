"""Tensors of several ranks as one folder of safetensors files, by torch's distributed checkpoint.

Any number of ranks can read what any number has written, in other parts than it was written in.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from unigendet import parallel

FILE_BYTES = 2**30
"""About what one file holds. A rank has its part of a file in memory when it writes it."""


def write_tensors(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write `shard-R-model-I-of-N.safetensors` of rank R (from 1), flushed to the disk.

    Every rank calls it, each with a folder of its own or all with the same one. Of a tensor that is
    sharded a rank writes its part; the others are alike on all ranks, and the first writes them.
    Raises `OSError` on every rank where one of them cannot write.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    files, size = dict[str, int](), 0
    for name, tensor in tensors.items():
        files[name] = 1 + size // FILE_BYTES
        size += tensor.nbytes
    writer = HuggingFaceStorageWriter(
        str(folder), fqn_to_index_mapping=files, save_distributed=True
    )
    try:
        with _alone_on_purpose():
            save(
                dict(tensors),
                storage_writer=writer,
                planner=DefaultSavePlanner(dedup_save_to_lowest_rank=True),
                no_dist=parallel.world() == 1,
            )
    except CheckpointException as error:
        raise OSError(f"{folder} could not be written: {_causes(error)}") from error


def stored_shapes(folder: Path) -> dict[str, torch.Size]:
    """Name and shape of every tensor in the folder; smaller where the files of a rank are missing.

    Raises ValueError where a file is damaged.
    """
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    try:
        metadata = HuggingFaceStorageReader(str(folder)).read_metadata()
    except (OSError, SafetensorError) as error:
        raise ValueError(str(error)) from error
    return {
        name: entry.size
        for name, entry in metadata.state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata)
    }


def read_tensors(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Fill `tensors`, or this rank's parts of them, in place. Raises ValueError where it cannot."""
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    try:
        with _alone_on_purpose():
            # Each rank reads what it needs by itself.
            load(dict(tensors), storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
    except CheckpointException as error:
        raise ValueError(_causes(error)) from error


def _alone_on_purpose() -> warnings.catch_warnings[None]:
    """Within it torch does not warn that it saves or loads without other processes."""
    return warnings.catch_warnings(action="ignore", category=UserWarning)


def _causes(error: BaseException) -> str:
    failures = getattr(error, "failures", {})
    return "; ".join(str(cause) for cause, _ in failures.values())
