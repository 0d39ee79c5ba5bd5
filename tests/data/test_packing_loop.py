"""The packing loop keeps every sample that the published one loses, and ends with its streams."""

from __future__ import annotations

import random

import pytest

from unigendet.data.packing_loop import PackingLimits, PackingLoop, SampleGroup

LIMITS = PackingLimits(
    expected_num_tokens=90,
    max_num_tokens=100,
    max_num_tokens_per_sample=60,
    prefer_buffer_before=50,
    max_buffer_size=2,
)


def _loop(sizes: list[list[int]], *, published: bool = False) -> PackingLoop[tuple[int, int, int]]:
    groups = [
        SampleGroup(iter([(g, i, size) for i, size in enumerate(group)]), weight=g + 1.0)
        for g, group in enumerate(sizes)
    ]
    groups[0].mandatory = True
    draw = random.Random(0).random
    return PackingLoop(groups, LIMITS, lambda sample: sample[2], draw, as_published=published)


def _sizes(count: int) -> list[list[int]]:
    source = random.Random(1)
    return [[source.randint(5, 70) for _ in range(count)] for _ in range(3)]


def test_every_sample_that_fits_appears_exactly_once() -> None:
    sizes = _sizes(200)
    batches = list(_loop(sizes))
    seen = sorted(sample for batch in batches for sample in batch)
    expected = {(g, i, s) for g, group in enumerate(sizes) for i, s in enumerate(group) if s <= 60}
    assert len(seen) == len(set(seen))
    assert set(seen) == expected
    assert all(sum(size for _, _, size in batch) <= 100 for batch in batches)


def test_published_behaviour_loses_samples() -> None:
    sizes = _sizes(200)
    ours, theirs = (sum(map(len, _loop(sizes, published=published))) for published in (False, True))
    assert theirs < ours


def test_a_batch_may_start_with_a_sample_of_the_largest_size() -> None:
    """Where all are, an endless stream of them would never give a batch."""
    assert [[sample[2] for sample in batch] for batch in _loop([[60] * 3])] == [[60]] * 3
    assert list(_loop([[60] * 3], published=True)) == []


def test_batches_start_with_a_mandatory_sample_while_there_are_any() -> None:
    batches = list(_loop(_sizes(200)))
    last = max(i for i, batch in enumerate(batches) if any(sample[0] == 0 for sample in batch))
    assert all(batch[0][0] == 0 for batch in batches[:last])


def test_impossible_limits_are_an_error() -> None:
    limits = PackingLimits(90, 50, 60, 50, 2)
    with pytest.raises(ValueError, match="larger than a batch"):
        PackingLoop([SampleGroup(iter([1]), 1.0)], limits, lambda _: 1, lambda: 0.0)
    with pytest.raises(ValueError, match="at least one group"):
        PackingLoop([], LIMITS, lambda _: 1, lambda: 0.0)
