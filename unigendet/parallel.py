"""Training in several processes: gradients averaged, or the model sharded over them (FSDP2).

Either way a step is that of one process on all ranks' samples: losses are means over all ranks
(`unigendet.losses`), and what a rank reads is its part of the step (`unigendet.data.loader`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor, distributed, nn

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


@runtime_checkable
class Blocks(Protocol):
    """A model that names its repeated blocks: each is sharded, and compiled, by itself."""

    def blocks(self) -> Sequence[nn.Module]: ...


def rank() -> int:
    """This process's number; 0 where there is only one."""
    return distributed.get_rank() if _several() else 0


def world() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if _several() else 1


def wait_for_all() -> None:
    """Return once every rank has come here."""
    if _several():
        distributed.barrier()


@contextmanager
def all_or_none() -> Iterator[None]:
    """A block that each rank runs by itself: all leave it once all have run it, or all fail.

    Without it the others would wait, for hours, for a rank whose disk is full. The block must not
    wait for other ranks.

    Raises the rank's own `OSError`; on the others one that says which rank failed, and of what.
    """
    if not _several():
        yield
        return
    own: OSError | None = None
    try:
        yield
    except OSError as error:
        own = error
    causes: list[str | None] = [None] * world()
    distributed.all_gather_object(causes, None if own is None else str(own))
    if own is not None:
        raise own
    for number, cause in enumerate(causes):
        if cause is not None:
            raise OSError(f"rank {number} failed, so this one stops too: {cause}")


def shard(model: nn.Module, *, device: torch.device | str, bf16: bool) -> None:
    """Share `model`'s parameters out over all ranks, in place (FSDP2); every rank has to call it.

    A block is whole only while it runs, on `device`. Parameters on the meta device stay there,
    as shards, until `to_empty` gives them memory.

    Args:
        bf16: compute with bfloat16 copies; the shards themselves, their gradients and what the
            optimizer keeps stay as they are. Inputs are left to autocast.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    if not _several():
        raise ValueError("a model is sharded over several processes, and this is the only one")
    mesh = init_device_mesh(torch.device(device).type, (world(),))
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if bf16 else None,
        reduce_dtype=torch.float32 if bf16 else None,
        cast_forward_inputs=False,
    )
    for block in model.blocks() if isinstance(model, Blocks) else ():
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)


def is_shard(tensor: Tensor) -> bool:
    """Whether `tensor` stands for one that lies in parts on several ranks."""
    # Nothing can be a DTensor where there is one process, which spares it the slow import.
    if not _several():
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def whole(tensor: Tensor) -> Tensor:
    """The whole of a sharded tensor, on every rank (all have to call it); others as they are."""
    if not is_shard(tensor):
        return tensor
    shards: DTensor = tensor  # type: ignore[assignment]
    return shards.full_tensor()


def local_rows(tensor: Tensor) -> tuple[Tensor, slice]:
    """This rank's part of a tensor that is sharded along its first dimension, and which rows it is.

    The part shares its memory with `tensor`.
    """
    shards: DTensor = tensor  # type: ignore[assignment]
    part = shards.to_local()
    # As torch.chunk cuts: all parts of the same size but the last ones.
    size = -(-shards.shape[0] // shards.device_mesh.size())
    start = min(shards.device_mesh.get_local_rank() * size, shards.shape[0])
    return part, slice(start, start + part.shape[0])


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over the ranks; sharded ones, which are means, stay.

    What no rank has a gradient of has none afterwards.
    """
    if not _several():
        return
    replicated = [parameter for parameter in parameters if not is_shard(parameter)]
    if not replicated:
        return
    # A rank whose batch did not touch a parameter contributes zeros, or ranks would disagree; how
    # many ranks did travels behind the gradients.
    gradients = [
        p.grad if p.grad is not None else torch.zeros_like(p, memory_format=torch.contiguous_format)
        for p in replicated
    ]
    touched = torch.tensor([p.grad is not None for p in replicated]).to(gradients[0])
    flat = torch.cat([*(gradient.reshape(-1) for gradient in gradients), touched])
    distributed.all_reduce(flat)
    *sums, ranks = torch.split(flat, [*(p.numel() for p in replicated), len(replicated)])
    for parameter, total, count in zip(replicated, sums, ranks.tolist(), strict=True):
        # Zeros are no gradient: AdamW would let a weight decay that one process leaves alone.
        parameter.grad = (total / world()).view_as(parameter) if count else None


def sum_over_ranks(value: Tensor) -> Tensor:
    """The sum of the ranks' values, which have no gradient."""
    if not _several():
        return value
    total = value.detach().clone()
    distributed.all_reduce(total)
    return total


def mean_over_ranks(
    values: Mapping[str, float], device: torch.device | str = "cpu"
) -> dict[str, float]:
    """The mean of each value over the ranks, the same on all of them."""
    if not _several():
        return dict(values)
    means = torch.tensor(list(values.values()), dtype=torch.float64, device=device)
    distributed.all_reduce(means)
    return dict(zip(values, (means / world()).tolist(), strict=True))


def least(value: int, device: torch.device | str = "cpu") -> int:
    """The smallest of the ranks' values."""
    if not _several():
        return value
    smallest = torch.tensor(value, device=device)
    distributed.all_reduce(smallest, distributed.ReduceOp.MIN)
    return int(smallest)


def _several() -> bool:
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )
