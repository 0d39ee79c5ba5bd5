"""F3: who sees whom, for single samples and for whole packs."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.golden.fixtures import Case, exact
from unigendet.models.attention import plan_attention, sample_mask
from unigendet.types import AttentionPlan, Split

FIXTURE = "F3_*/*"


def test_sample_masks(case: Case) -> None:
    for index, blocks in enumerate(case.value("cases")):
        splits = _splits(blocks["split_lens"], blocks["attn_modes"])
        exact(sample_mask(splits), case[f"mask.{index}"] == 0, f"mask {index}")


def test_packs_through_buckets(case: Case) -> None:
    """What the bucketed plan lets through is what the dense mask of the pack allows."""
    for index, pack in enumerate(case.value("packs")):
        splits = _splits(pack["split_lens"], pack["attn_modes"])
        samples: list[list[Split]] = []
        for length in pack["sample_lens"]:
            sample: list[Split] = []
            while sum(split.length for split in sample) < length:
                sample.append(splits.pop(0))
            samples.append(sample)
        total = sum(pack["sample_lens"])
        rows = torch.randperm(total, generator=torch.Generator().manual_seed(index))
        dense = _dense(plan_attention(samples, rows), total)
        exact(dense[rows][:, rows], case[f"sparse.{index}"].bool(), f"pack {index}")


def _splits(lengths: list[int], modes: list[str]) -> list[Split]:
    return [Split(length, mode) for length, mode in zip(lengths, modes, strict=True)]


def _dense(plan: AttentionPlan, total: int) -> Tensor:
    """The (N, N) mask of rows that a plan stands for."""
    dense = torch.zeros(total, total, dtype=torch.bool)
    real = torch.zeros(len(plan.gather), dtype=torch.bool)
    real[plan.scatter] = True
    offset = 0
    for bucket in plan.buckets:
        for slot in range(bucket.batch):
            places = torch.arange(offset, offset + bucket.length)
            mask = torch.ones(bucket.length, bucket.length, dtype=torch.bool)
            if bucket.mask is not None:
                mask = bucket.mask[slot if len(bucket.mask) > 1 else 0, 0]
            kept = real[places]
            rows = plan.gather[places[kept]]
            assert not mask[kept][:, ~kept].any(), "a token sees padding"
            assert mask.any(1).all(), "a query without keys"
            dense[rows[:, None], rows[None, :]] = mask[kept][:, kept]
            offset += bucket.length
    return dense
