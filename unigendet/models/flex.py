"""Attention over a whole pack as one FlexAttention call: the path on CUDA.

The mask is a function of a few numbers per token, and blocks of the pack in which nothing sees
anything are skipped, so that long samples cost no dense masks. On the CPU FlexAttention has no
backward, and `unigendet.models.attention.PackAttention` is faster.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unigendet.models.attention import MODES
from unigendet.types import AttentionPlan

_BLOCK = 128
"""The kernel's block; packs are padded to a multiple of it."""


class FlexPackAttention:
    """`Attend` for a pack whose plan is known. Make one per forward: the layers share its mask."""

    def __init__(self, plan: AttentionPlan) -> None:
        from torch.nn.attention.flex_attention import create_block_mask

        self.order = plan.order
        self.places = torch.empty_like(plan.order)
        self.places[plan.order] = torch.arange(len(plan.order), device=plan.order.device)
        self.padding = -len(plan.order) % _BLOCK
        # Padding is a sample of its own, which sees itself: no softmax is empty.
        sample, block, mode = (
            F.pad(values, (0, self.padding), value=-1)
            for values in (plan.sample, plan.block, plan.mode)
        )
        whole, noise = mode != MODES.index("causal"), mode == MODES.index("noise")

        def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            same_block = block[query] == block[key]
            reaches = (query >= key) | (same_block & whole[query])
            return (sample[query] == sample[key]) & reaches & (same_block | ~noise[key])

        length = len(sample)
        self.mask = create_block_mask(
            sees, None, None, length, length, device=plan.order.device, BLOCK_SIZE=_BLOCK
        )

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, layer: int) -> Tensor:
        # Under autocast the norms of queries and keys leave float32; the kernel wants one type.
        in_order = [self._ordered(x.to(v.dtype)) for x in (q, k, v)]
        mixed: Tensor = _kernel(v.device.type)(*in_order, block_mask=self.mask, enable_gqa=True)
        return mixed[0].transpose(0, 1).index_select(0, self.places)

    def _ordered(self, x: Tensor) -> Tensor:
        """Rows (N, heads, D) -> places (1, heads, N with padding, D)."""
        places = F.pad(x.index_select(0, self.order), (0, 0, 0, 0, 0, self.padding))
        return places.transpose(0, 1)[None]


@lru_cache(maxsize=2)
def _kernel(device: str) -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    # Uncompiled it is a dense reference, enough for the CPU, where only tests use it.
    kernel: Callable[..., Any] = flex_attention
    return kernel if device == "cpu" else torch.compile(kernel, dynamic=True)
