"""Keys and values of what B contexts have read so far, and attention over them (specification 8).

The contexts may differ in length and in content. A block of tokens is appended to all of them at
once, padded to the longest, and a mask remembers which entries are real: rotary positions are in
the keys already, so entries need no particular order and nothing is ever moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from unigendet.config import TransformerConfig
from unigendet.models.attention import grouped_attention
from unigendet.models.queries import Query


@dataclass(slots=True)
class KVCache:
    """The memory of B contexts; `length` entries of each buffer are in use, padding included."""

    keys: list[Tensor]
    """Per layer (B, kv heads, capacity, D), after norm and rotation: a head's keys lie together."""
    values: list[Tensor]
    """Per layer (B, kv heads, capacity, D)."""
    valid: Tensor
    """(B, capacity) bool: False for padding."""
    next_position: Tensor
    """(B,) int64: the RoPE position r that the next block starts at."""
    length: int = 0

    @classmethod
    def empty(
        cls,
        config: TransformerConfig,
        batch_size: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """B contexts that have read nothing."""
        shape = (batch_size, config.num_key_value_heads, 0, config.head_dim)
        layers = range(config.num_hidden_layers)
        return cls(
            keys=[torch.zeros(shape, device=device, dtype=dtype) for _ in layers],
            values=[torch.zeros(shape, device=device, dtype=dtype) for _ in layers],
            valid=torch.zeros(batch_size, 0, dtype=torch.bool, device=device),
            next_position=torch.zeros(batch_size, dtype=torch.int64, device=device),
        )

    @property
    def batch_size(self) -> int:
        return self.valid.shape[0]

    @property
    def lengths(self) -> Tensor:
        """(B,) int64: tokens that each context holds."""
        return self.valid[:, : self.length].sum(1)

    def clone(self) -> Self:
        """A copy that can grow on its own."""
        return self.select(torch.arange(self.batch_size, device=self.valid.device))

    def select(self, contexts: Tensor) -> Self:
        """A copy of these contexts (int64 indexes, repeats allowed), in this order."""
        used = self.length
        return type(self)(
            keys=[key[:, :, :used].index_select(0, contexts) for key in self.keys],
            values=[value[:, :, :used].index_select(0, contexts) for value in self.values],
            valid=self.valid[:, :used].index_select(0, contexts),
            next_position=self.next_position.index_select(0, contexts),
            length=used,
        )

    @classmethod
    def join(cls, caches: Sequence[KVCache]) -> Self:
        """One cache of all contexts, those of the first one first: one forward for all of them."""
        used = max(cache.length for cache in caches)
        for cache in caches:
            cache.reserve(used)
        return cls(
            keys=_stacked([cache.keys for cache in caches], used),
            values=_stacked([cache.values for cache in caches], used),
            valid=torch.cat([cache.valid[:, :used] for cache in caches]),
            next_position=torch.cat([cache.next_position for cache in caches]),
            length=used,
        )

    def content(self, layer: int, context: int) -> tuple[Tensor, Tensor]:
        """Keys and values that a context holds, each (tokens, kv heads, D), in reading order."""
        real = self.valid[context, : self.length]
        return (
            self.keys[layer][context, :, : self.length].transpose(0, 1)[real],
            self.values[layer][context, :, : self.length].transpose(0, 1)[real],
        )

    def reserve(self, length: int) -> None:
        """Make room for `length` entries; growing by a quarter keeps appending cheap."""
        capacity = self.valid.shape[1]
        if length <= capacity:
            return
        grow = max(length - capacity, capacity // 4)
        # Zeros, as masked entries still take part in products: 0 * anything finite is 0.
        self.keys = [F.pad(key, (0, 0, 0, grow)) for key in self.keys]
        self.values = [F.pad(value, (0, 0, 0, grow)) for value in self.values]
        self.valid = F.pad(self.valid, (0, grow))

    def advance(self, query: Query) -> None:
        """Count a block whose keys and values have just been written as read."""
        end = self.length + query.width
        self.valid[:, self.length : end] = query.filled
        self.next_position = self.next_position + query.advance
        self.length = end


def _stacked(buffers: Sequence[Sequence[Tensor]], used: int) -> list[Tensor]:
    """Per layer, the used entries of several caches, one cache after another."""
    layers = zip(*buffers, strict=True)
    return [torch.cat([buffer[:, :, :used] for buffer in layer]) for layer in layers]


class CachedAttention:
    """`Attend` for a block of every context over its cache and itself.

    Keys and values are written behind the cache's last entry; they stay there for good only where
    `KVCache.advance` follows.
    """

    def __init__(self, cache: KVCache, query: Query, dtype: torch.dtype) -> None:
        self.cache, self.query = cache, query
        self.start, self.end = cache.length, cache.length + query.width
        cache.reserve(self.end)
        self.bias = self._bias(dtype)
        # Whether the tokens lie as the blocks do, none missing, as in every step of decoding.
        self.in_order = query.causal and query.places.shape[0] == query.filled.numel()

    def _bias(self, dtype: torch.dtype) -> Tensor | None:
        """(B, 1, Q, cache + Q) additive; None where every entry is visible."""
        query, past = self.query, self.cache.valid[:, : self.start]
        width = query.width
        own = query.filled[:, None, :].expand(-1, width, -1)
        if query.causal:
            own = own & torch.ones(width, width, dtype=torch.bool, device=own.device).tril()
        sees = torch.cat([past[:, None, :].expand(-1, width, -1), own], dim=2)
        # A padded query may see all: its output is thrown away, but it must not be NaN.
        sees = sees | ~query.filled[:, :, None]
        if bool(sees.all()):
            return None
        bias = torch.zeros(sees.shape, dtype=dtype, device=sees.device)
        return bias.masked_fill_(~sees, -torch.inf)[:, None]

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, layer: int) -> Tensor:
        self.write(k, v, layer)
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        out = grouped_attention(
            self._padded(q), keys[:, :, : self.end], values[:, :, : self.end], self.bias
        )
        rows = out.transpose(1, 2).flatten(0, 1)
        return rows if self.in_order else rows.index_select(0, self.query.places)

    def write(self, k: Tensor, v: Tensor, layer: int) -> None:
        """Put keys and values (N, kv heads, D) behind the cache's last entry."""
        self.cache.keys[layer][:, :, self.start : self.end] = self._padded(k)
        self.cache.values[layer][:, :, self.start : self.end] = self._padded(v)

    def _padded(self, x: Tensor) -> Tensor:
        """Token rows (N, heads, D) -> (B, heads, Q, D), zeros where a block is shorter."""
        batch, width = self.query.filled.shape
        if not self.in_order:
            x = x.new_zeros(batch * width, *x.shape[1:]).index_copy_(0, self.query.places, x)
        return x.view(batch, width, *x.shape[1:]).transpose(1, 2)
