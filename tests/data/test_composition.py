"""Which samples a step reads: each once per epoch, none lost between packs, shared by ranks."""

from __future__ import annotations

from collections import Counter

import pytest

from unigendet.data.composition import Budget, Counts, Share, TokenBudget, by_stream
from unigendet.data.packing_loop import PackingLimits
from unigendet.data.streams import epoch_order

LIMITS = PackingLimits(
    expected_num_tokens=120,
    max_num_tokens=150,
    max_num_tokens_per_sample=60,
    prefer_buffer_before=80,
    max_buffer_size=3,
)
EVEN = {"generation": 1.0, "real": 1.0, "fake": 1.0}


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("count", [12, 13])
def test_every_sample_exactly_once_per_epoch_over_the_world(world: int, count: int) -> None:
    shares = [Counts({"real": 6}, Share(rank, world)) for rank in range(world)]
    steps = count  # whole epochs for every world and count here
    drawn = [
        epoch_order(count, 1, position // count)[position % count]
        for step in range(steps)
        for share in shares
        for _, position in share.places(step)
    ]
    assert len(drawn) == steps * 6
    epochs = [drawn[start : start + count] for start in range(0, len(drawn), count)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_ranks_together_read_what_one_rank_reads() -> None:
    alone = Counts({"generation": 2, "real": 4}, Share())
    pair = [Counts({"generation": 2, "real": 4}, Share(rank, 2)) for rank in range(2)]
    for step in range(5):
        together = sorted(place for share in pair for place in share.places(step))
        assert together == alone.places(step)


def test_a_budget_loses_no_sample_and_every_pack_has_every_stream() -> None:
    sizes = {
        name: (lambda position, n=n: 7 + (13 * position + n) % 50) for n, name in enumerate(EVEN)
    }
    plan = TokenBudget(Budget(2, LIMITS, ((0, EVEN),)), sizes, Share(), seed=3)
    read: dict[str, list[int]] = {name: [] for name in EVEN}
    for step in range(60):
        for name, position in plan.places(step):
            read[name].append(position)
        assert all(by_stream(plan.places(step), name) for name in EVEN)
    for positions in read.values():
        assert len(positions) == len(set(positions))
        # What is not read yet waits for one of the next packs.
        assert len(set(range(max(positions) + 1)) - set(positions)) <= LIMITS.max_buffer_size + 1


def test_a_budget_resumes_anywhere_and_ranks_share_its_packs() -> None:
    sizes = {name: (lambda position: 9 + position % 40) for name in EVEN}
    budget = Budget(2, LIMITS, ((0, EVEN), (5, {"generation": 5.0, "fake": 1.0})))

    def plan(rank: int = 0, world: int = 1) -> TokenBudget:
        return TokenBudget(budget, sizes, Share(rank, world), seed=3)

    alone = plan()
    whole = [sorted(alone.places(step)) for step in range(12)]
    assert sorted(plan().places(7)) == whole[7]
    assert sorted(alone.places(2)) == whole[2]  # back again
    pair = plan(0, 2), plan(1, 2)
    for step, places in enumerate(whole):
        assert sorted(place for part in pair for place in part.places(step)) == places
    # The mixture from step 5 on has no real images to judge, and mostly some to generate.
    later = Counter(name for places in whole[5:] for name, _ in places)
    assert later["real"] == 0 and later["generation"] > later["fake"]


def test_a_mixture_that_leaves_a_stream_out_leaves_none_of_it_waiting() -> None:
    """Else one rank's pack alone would hold it, and the ranks would compute different things."""
    sizes = {
        name: (lambda position, n=n: 31 + (13 * position + n) % 30) for n, name in enumerate(EVEN)
    }
    without = {"generation": 1.0, "real": 0.0, "fake": 0.0}
    budget = Budget(2, LIMITS, tuple((step, (EVEN, without)[step % 2]) for step in range(40)))
    plan = TokenBudget(budget, sizes, Share(), seed=3)
    for step in range(1, 40, 2):
        assert {name for name, _ in plan.places(step)} == {"generation"}
    again = TokenBudget(budget, sizes, Share(), seed=3)
    assert again.places(31) == plan.places(31)


def test_a_mixture_without_the_streams_of_the_phase_is_refused() -> None:
    later = Budget(1, LIMITS, ((0, EVEN), (7, {"generation": 0.0, "real": 1.0})))
    with pytest.raises(ValueError, match=r"from step 7: draws none .* \(generation\)"):
        later.check(["generation"])
    with pytest.raises(ValueError, match="from step 7: the phase cannot do without generation"):
        later.check(["generation", "real"], always=["generation"])
    later.check(["generation", "real"])
    with pytest.raises(ValueError, match="from step 7: draws none"):
        TokenBudget(later, {"generation": lambda _: 30}, Share(), seed=0)


def test_what_cannot_be_composed_is_told() -> None:
    with pytest.raises(ValueError, match="rank must lie in"):
        Share(rank=2, world=2)
    with pytest.raises(ValueError, match="begins at step 0"):
        Budget(1, LIMITS, ((3, EVEN),))
    with pytest.raises(ValueError, match="from step 0: weights"):
        Budget(1, LIMITS, ((0, {"generation": 0.0}),))
