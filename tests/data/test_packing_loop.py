"""The packing loop keeps every sample that the published one loses, and ends with its streams."""

from __future__ import annotations

import random
from itertools import islice, repeat

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


def test_a_waiting_sample_does_not_stop_the_draws() -> None:
    """One of each group and a waiting sample beside them are longer than a batch may be."""
    limits = PackingLimits(
        expected_num_tokens=512,
        max_num_tokens=600,
        max_num_tokens_per_sample=256,
        prefer_buffer_before=500,
        max_buffer_size=3,
    )
    groups = [
        SampleGroup(enumerate(repeat(size)), weight, mandatory=True)
        for size, weight in ((60, 4.0), (200, 1.0), (201, 1.0))
    ]
    loop = PackingLoop(groups, limits, lambda sample: sample[1], random.Random(0).random)
    batches = list(islice(loop, 200))
    assert all(sum(size for _, size in batch) <= 600 for batch in batches)
    assert all({size for _, size in batch} == {60, 200, 201} for batch in batches)
    for size in (60, 200, 201):
        seen = [place for batch in batches for place, other in batch if other == size]
        assert len(set(seen)) == len(seen)
        assert len(set(range(max(seen))) - set(seen)) <= limits.max_buffer_size + 1
    # Whenever nothing waits there is room for another one of the first group.
    more = [sum(size == 60 for _, size in batch) > 1 for batch in batches]
    assert sum(more[:100]) > 30 and sum(more[100:]) > 30


def test_what_waits_of_a_group_without_weight_is_dropped() -> None:
    groups = [SampleGroup(enumerate(repeat(name)), 1.0, mandatory=True) for name in "ab"]
    batches = iter(PackingLoop(groups, LIMITS, lambda _: 40, random.Random(0).random))
    assert {name for _ in range(20) for _, name in next(batches)} == {"a", "b"}
    groups[1].weight, groups[1].mandatory = 0.0, False
    assert {name for _ in range(20) for _, name in next(batches)} == {"a"}
    groups[1].weight, groups[1].mandatory = 1.0, True
    assert all({name for _, name in next(batches)} == {"a", "b"} for _ in range(20))


def test_impossible_limits_are_an_error() -> None:
    limits = PackingLimits(90, 50, 60, 50, 2)
    with pytest.raises(ValueError, match="larger than a batch"):
        PackingLoop([SampleGroup(iter([1]), 1.0)], limits, lambda _: 1, lambda: 0.0)
    with pytest.raises(ValueError, match="at least one group"):
        PackingLoop([], LIMITS, lambda _: 1, lambda: 0.0)
