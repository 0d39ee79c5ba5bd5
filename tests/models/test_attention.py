"""Bucketed attention against one dense, masked softmax over the whole pack."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unigendet.models.attention import PackAttention, plan_attention, plan_images, sample_mask
from unigendet.types import Split

HEADS, KV_HEADS, DIM = 6, 2, 8
SAMPLES = [
    [Split(5, "causal"), Split(6, "noise")],
    [Split(6, "full"), Split(11, "full"), Split(5, "causal"), Split(7, "causal")],
    [Split(6, "full"), Split(11, "full"), Split(5, "causal"), Split(9, "causal")],
    [Split(3, "causal"), Split(4, "noise"), Split(4, "full"), Split(2, "causal")],
    [Split(1, "causal")],
    [Split(5, "causal"), Split(6, "noise")],
]


def _dense(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    scores = torch.einsum("qhd,khd->hqk", q, k) / q.shape[2] ** 0.5
    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, v)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_equals_dense_attention_with_gradients(dtype: torch.dtype) -> None:
    total = sum(split.length for splits in SAMPLES for split in splits)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randperm(total, generator=generator)
    plan = plan_attention(SAMPLES, rows)
    mask = torch.block_diag(*[sample_mask(splits).float() for splits in SAMPLES]).bool()
    by_row = torch.empty_like(mask)
    by_row[rows[:, None], rows[None, :]] = mask

    shapes = ((total, HEADS, DIM), (total, KV_HEADS, DIM), (total, KV_HEADS, DIM))
    values = [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]
    inputs = [value.requires_grad_() for value in values]
    upstream = torch.randn(total, HEADS, DIM, generator=generator, dtype=dtype)
    expected = _dense(*inputs, by_row)
    expected_gradients = torch.autograd.grad(expected, inputs, upstream)
    actual = PackAttention(plan, dtype)(*inputs, 0)
    gradients = torch.autograd.grad(actual, inputs, upstream)
    tolerance = {"atol": 1e-10 if dtype == torch.float64 else 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(actual, expected, **tolerance)
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, wanted, **tolerance)


def test_buckets_hold_similar_lengths_and_every_row_once() -> None:
    total = sum(split.length for splits in SAMPLES for split in splits)
    plan = plan_attention(SAMPLES, torch.randperm(total))
    assert torch.equal(plan.gather[plan.scatter], torch.arange(len(plan.scatter)))
    assert [(bucket.batch, bucket.length) for bucket in plan.buckets] == [
        (2, 31),  # 29 and 31 tokens
        (3, 13),  # 11, 11 and 13
        (1, 1),
    ]


def test_no_pack_wide_mask() -> None:
    """A pack of many samples costs masks of its samples' size, one where they are alike."""
    splits = [Split(30, "causal"), Split(66, "noise")]
    plan = plan_attention([splits] * 64, torch.arange(64 * 96))
    (bucket,) = plan.buckets
    assert bucket.mask is not None and bucket.mask.shape == (1, 1, 96, 96)


def test_images_of_one_size_need_no_mask() -> None:
    (bucket,) = plan_images([(4, 5)] * 3).buckets
    assert bucket.mask is None and (bucket.batch, bucket.length) == (3, 20)


def test_nothing_to_attend_to() -> None:
    assert plan_images([]).buckets == ()
