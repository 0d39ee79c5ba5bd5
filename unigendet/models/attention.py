"""Block-diagonal attention over a pack: masks, buckets of similar length, and the call itself.

A pack of a few thousand tokens is a hundred times too large for one dense mask, as samples never
see each other. Samples are sorted by length into buckets, padded there, and each bucket is one
`scaled_dot_product_attention` with a mask of its own size (none where everything is visible).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from unigendet.types import AttentionBucket, AttentionMode, AttentionPlan, Split

MODES: tuple[AttentionMode, ...] = get_args(AttentionMode)

_PADDING_LIMIT = 0.8
"""A sample joins a bucket where it is at least this share of the bucket's length."""


class Attend(Protocol):
    """Self-attention over rows: q (N, heads, D), k and v (N, kv heads, D) -> (N, heads, D)."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, layer: int) -> Tensor: ...


def sample_mask(splits: Sequence[Split]) -> Tensor:
    """Which token (row) of a sample sees which (column): (S, S) bool (specification 3)."""
    lengths = torch.tensor([split.length for split in splits])
    block = torch.repeat_interleave(torch.arange(len(splits)), lengths)
    whole = torch.tensor([split.mode != "causal" for split in splits])[block]
    noise = torch.tensor([split.mode == "noise" for split in splits])[block]
    place = torch.arange(block.numel())
    same_block = block[:, None] == block[None, :]
    sees = (place[:, None] >= place[None, :]) | (same_block & whole[:, None])
    return sees & (same_block | ~noise[None, :])


def plan_attention(samples: Sequence[Sequence[Split]], rows: Tensor) -> AttentionPlan:
    """Plan the attention of a pack.

    Args:
        samples: the blocks of each sample, in pack order.
        rows: (N,) int64, the row of each place of the pack (places run through the samples).
    """
    lengths = [sum(split.length for split in splits) for splits in samples]
    starts = [0]
    for length in lengths:
        starts.append(starts[-1] + length)
    assert starts[-1] == len(rows), "a row for every place of the pack"
    groups: list[list[int]] = []
    for sample in sorted(range(len(samples)), key=lambda index: -lengths[index]):
        if groups and lengths[sample] >= _PADDING_LIMIT * lengths[groups[-1][0]]:
            groups[-1].append(sample)
        else:
            groups.append([sample])

    gather, scatter, buckets, offset = [], torch.empty_like(rows), [], 0
    for group in groups:
        width = lengths[group[0]]
        for slot, sample in enumerate(group):
            own = rows[starts[sample] : starts[sample + 1]]
            place = offset + slot * width
            scatter[own] = torch.arange(place, place + lengths[sample])
            # Padding repeats a row of the sample itself; masks keep anyone from seeing it.
            gather.append(F.pad(own, (0, width - lengths[sample]), value=int(own[0])))
        buckets.append(AttentionBucket(len(group), width, _bucket_mask(samples, group, width)))
        offset += len(group) * width
    blocks = [split for splits in samples for split in splits]
    sizes = torch.tensor([split.length for split in blocks], dtype=torch.int64)
    modes = torch.tensor([MODES.index(split.mode) for split in blocks], dtype=torch.int64)
    block = torch.repeat_interleave(torch.arange(len(blocks)), sizes)
    return AttentionPlan(
        gather=torch.cat(gather) if gather else rows,
        scatter=scatter,
        buckets=tuple(buckets),
        order=rows,
        sample=torch.repeat_interleave(
            torch.arange(len(samples)), torch.tensor(lengths, dtype=torch.int64)
        ),
        block=block,
        mode=modes[block],
    )


def plan_images(shapes: Sequence[tuple[int, int]]) -> AttentionPlan:
    """Full attention inside each image of (rows, columns) patches, images one after another."""
    sizes = [rows * columns for rows, columns in shapes]
    return plan_attention([(Split(size, "full"),) for size in sizes], torch.arange(sum(sizes)))


def _bucket_mask(
    samples: Sequence[Sequence[Split]], group: Sequence[int], width: int
) -> Tensor | None:
    """The mask of samples padded to `width`, one for all where they are alike."""
    alike = all(tuple(samples[index]) == tuple(samples[group[0]]) for index in group)
    shown = group[:1] if alike else group
    mask = torch.ones(len(shown), 1, width, width, dtype=torch.bool)
    for slot, index in enumerate(shown):
        own = sample_mask(samples[index])
        size = own.shape[0]
        mask[slot, 0, :size, :size] = own
        mask[slot, 0, :size, size:] = False
    return None if bool(mask.all()) else mask


class _ToBuckets(torch.autograd.Function):
    """Rows (N, ...) -> bucket places (P, ...). The backward of an index with repeats is a slow
    accumulation; here padding has no gradient (nobody sees it), so it is one more gather."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gather: Tensor, scatter: Tensor) -> Tensor:
        ctx.save_for_backward(scatter)
        return x.index_select(0, gather)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (scatter,) = ctx.saved_tensors
        return grads[0].index_select(0, scatter), None, None


class _FromBuckets(torch.autograd.Function):
    """Bucket places (P, ...) -> rows (N, ...); padding gets a gradient of zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scatter: Tensor) -> Tensor:
        ctx.save_for_backward(scatter)
        ctx.places = x.shape[0]
        return x.index_select(0, scatter)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (scatter,) = ctx.saved_tensors
        grad = grads[0]
        if ctx.places == scatter.shape[0]:
            full = torch.empty_like(grad)
        else:
            full = grad.new_zeros(ctx.places, *grad.shape[1:])
        return full.index_copy_(0, scatter, grad), None


def _to_buckets(x: Tensor, gather: Tensor, scatter: Tensor) -> Tensor:
    places: Tensor = _ToBuckets.apply(x, gather, scatter)  # type: ignore[no-untyped-call]
    return places


def _from_buckets(x: Tensor, scatter: Tensor) -> Tensor:
    rows: Tensor = _FromBuckets.apply(x, scatter)  # type: ignore[no-untyped-call]
    return rows


class PackAttention:
    """`Attend` for a pack whose plan is known. Make one per forward: the layers share its masks."""

    def __init__(self, plan: AttentionPlan, dtype: torch.dtype) -> None:
        self.plan = plan
        # An additive mask once per forward, not one conversion per layer and direction.
        self.biases = [_bias(bucket.mask, dtype) for bucket in plan.buckets]

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, layer: int) -> Tensor:
        gather, scatter = self.plan.gather, self.plan.scatter
        q, k, v = (_to_buckets(x, gather, scatter) for x in (q, k, v))
        outputs, offset = [], 0
        for bucket, bias in zip(self.plan.buckets, self.biases, strict=True):
            end = offset + bucket.batch * bucket.length
            padded = (bucket.batch, bucket.length, -1, q.shape[2])
            own_q, own_k, own_v = (x[offset:end].view(padded).transpose(1, 2) for x in (q, k, v))
            mixed = grouped_attention(own_q, own_k, own_v, bias)
            outputs.append(mixed.transpose(1, 2).flatten(0, 1))
            offset = end
        joined = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        return _from_buckets(joined, scatter)


def _bias(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    if mask is None:
        return None
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, -torch.inf)


def grouped_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """q (B, heads, Q, D), k and v (B, kv heads, K, D), mask (B or 1, 1, Q, K) -> as q.

    Key/value head j serves query heads `j g .. j g + g - 1`; scale 1 / sqrt(D).
    """
    k, v = k.to(q.dtype), v.to(q.dtype)
    if q.shape[2] != 1:
        return _attention(q, k, v, mask)
    # One token, as in decoding: the g heads of a group become g queries of one head, so that its
    # keys and values are read once, not g times.
    grouped = q.reshape(*k.shape[:2], -1, q.shape[3])  # (B, kv heads, g, D)
    if q.device.type == "cpu" and q.dtype == torch.float32:
        return _few_queries(grouped, k, v, mask).view(q.shape)
    return _attention(grouped, k, v, mask).reshape(q.shape)


def _few_queries(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """`_attention` as two plain products: the fused kernel is made for more queries a head."""
    with torch.autocast("cpu", enabled=False):
        flat = q.flatten(0, 1) * q.shape[3] ** -0.5  # (B * kv heads, g, D)
        scores = torch.bmm(flat, k.flatten(0, 1).transpose(1, 2)).view(*q.shape[:3], -1)
        if mask is not None:
            scores += mask
        return torch.bmm(scores.softmax(3).flatten(0, 1), v.flatten(0, 1))


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    gqa = q.shape[1] != k.shape[1]
    if q.device.type == "cpu":
        # The bfloat16 kernel is slower than the float32 one here, so autocast stays out of it.
        with torch.autocast("cpu", enabled=False):
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=gqa)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=gqa)
