"""Memory as it really is: bytes that autograd saves, and the most bytes alive at once."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from unigendet.models.unified import UniGenDetModel


class SavedBytes:
    """Distinct storages that autograd saves inside the block, those of `model` not counted."""

    def __init__(self, model: nn.Module) -> None:
        own = [*model.parameters(), *model.buffers()]
        self._own = {tensor.untyped_storage().data_ptr() for tensor in own}
        self._found: dict[int, int] = {}
        self._alive: list[Tensor] = []  # a freed storage's address may come back
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._save, lambda tensor: tensor)

    def _save(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._own:
            self._found[storage.data_ptr()] = storage.nbytes()
        self._alive.append(tensor)
        return tensor

    def __enter__(self) -> SavedBytes:
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.__exit__(*error)

    @property
    def total(self) -> int:
        return sum(self._found.values())


class PeakBytes(TorchDispatchMode):
    """The most bytes that lived at once in tensors made inside the block, and the bytes of `own`,
    which live throughout."""

    def __init__(self, own: Sequence[Tensor] = ()) -> None:
        super().__init__()
        self._live: dict[int, int] = {}
        self.now = self.peak = 0
        for tensor in own:
            self._see(tensor)

    def __torch_dispatch__(
        self, function: Any, kinds: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._see(leaf)
        return result

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._live:
            return
        self._live[key] = size
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.now -= self._live.pop(key)


def recomputed(model: UniGenDetModel) -> None:
    """Make every decoder and image encoder block keep its inputs alone."""
    for block in (
        *model.language_model.model.layers,
        *model.vit_model.vision_model.encoder.layers,
    ):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def nbytes(tensors: Mapping[str, Tensor] | Iterator[Tensor] | Sequence[Tensor]) -> int:
    """Bytes of tensors."""
    values = tensors.values() if isinstance(tensors, Mapping) else tensors
    return sum(tensor.numel() * tensor.element_size() for tensor in values)
