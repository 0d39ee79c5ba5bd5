"""Bucketed attention against one dense, masked softmax over the whole pack."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unigendet.models.attention import PackAttention, plan_attention, plan_images, sample_mask
from unigendet.models.flex import FlexPackAttention
from unigendet.types import AttentionPlan, Split

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


def _case(
    samples: list[list[Split]], dim: int, device: str = "cpu"
) -> tuple[AttentionPlan, list[Tensor], Tensor]:
    """A plan over rows in random order, q, k, v, and the mask by row."""
    generator = torch.Generator().manual_seed(0)
    total = sum(split.length for splits in samples for split in splits)
    rows = torch.randperm(total, generator=generator)
    mask = torch.block_diag(*[sample_mask(splits).float() for splits in samples]).bool()
    by_row = torch.empty_like(mask)
    by_row[rows[:, None], rows[None, :]] = mask
    inputs = [
        torch.randn(total, heads, dim, generator=generator).to(device)
        for heads in (HEADS, KV_HEADS, KV_HEADS)
    ]
    return plan_attention(samples, rows).to(device), inputs, by_row.to(device)


LONG = [
    [Split(140, "causal"), Split(90, "noise"), Split(60, "full"), Split(17, "causal")],
    [Split(300, "full"), Split(9, "causal")],
]


@pytest.mark.parametrize("samples", [SAMPLES, LONG, [[Split(128, "full")]]])
def test_flex_attention_equals_dense_attention(samples: list[list[Split]]) -> None:
    plan, inputs, mask = _case(samples, dim=16)
    with torch.no_grad():
        actual = FlexPackAttention(plan)(*inputs, 0)
    torch.testing.assert_close(actual, _dense(*inputs, mask), atol=1e-5, rtol=1e-5)


def test_flex_attention_skips_blocks_in_which_nothing_is_seen() -> None:
    plan, _, _ = _case([[Split(256, "causal")], [Split(256, "full")]], dim=16)
    mask = FlexPackAttention(plan).mask
    # 128 x 128 tokens each: 3 of a triangle and 4 of a square, of 16.
    assert int(mask.kv_num_blocks.sum() + mask.full_kv_num_blocks.sum()) == 7


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_flex_attention_equals_buckets_on_cuda_with_gradients() -> None:
    for samples in (SAMPLES, LONG):  # two lengths: the second one without a new compilation
        plan, inputs, _ = _case(samples, dim=64, device="cuda")
        inputs = [value.requires_grad_() for value in inputs]
        upstream = torch.randn_like(inputs[0])
        expected = PackAttention(plan, torch.float32)(*inputs, 0)
        wanted = torch.autograd.grad(expected, inputs, upstream)
        actual = FlexPackAttention(plan)(*inputs, 0)
        torch.testing.assert_close(actual, expected, atol=2e-3, rtol=2e-3)
        gradients = torch.autograd.grad(actual, inputs, upstream)
        for gradient, one in zip(gradients, wanted, strict=True):
            torch.testing.assert_close(gradient, one, atol=5e-3, rtol=5e-3)


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
