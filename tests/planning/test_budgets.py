"""The fullest pack of a token budget is one that the loader reaches and never exceeds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from unigendet.data.composition import Budget, Share, TokenBudget
from unigendet.data.packing_loop import PackingLimits
from unigendet.planning.budgets import fullest_packs

LIMITS = PackingLimits(
    expected_num_tokens=900,
    max_num_tokens=1000,
    max_num_tokens_per_sample=90,
    prefer_buffer_before=500,
    max_buffer_size=4,
)
EVEN = {"generation": 1.0, "real": 1.0, "fake": 1.0}
SIZES = {"generation": 60, "real": 80, "fake": 80}


def budget(mixture: dict[str, float] = EVEN, **limits: int) -> Budget:
    return Budget(1, replace(LIMITS, **limits), ((0, mixture),))


def tokens(pack: dict[str, object]) -> float:
    return float(sum(SIZES[name] * count for name, count in pack.items()))  # type: ignore[misc]


@pytest.mark.parametrize(
    "limits",
    [{}, {"max_num_tokens": 930}, {"expected_num_tokens": 1000}, {"expected_num_tokens": 100}],
    ids=["room for the last", "no room for it", "as much as may be", "one of each is enough"],
)
def test_the_loader_comes_near_and_never_beyond(limits: dict[str, int]) -> None:
    given = budget(**limits)
    rng = np.random.default_rng(0)
    lengths = {name: rng.integers(20, 90, 20_000).tolist() for name in EVEN}
    sizes = {name: found.__getitem__ for name, found in lengths.items()}
    plan = TokenBudget(given, sizes, Share(), seed=1)
    packs = [
        sum(lengths[name][position] for name, position in plan.places(step)) for step in range(400)
    ]
    (planned,) = {tokens(pack) for pack in fullest_packs(given, SIZES)}
    first = 3 * 89  # samples of each stream that are longer than those of the plan
    assert max(packs) <= max(planned, first + 90)
    assert max(packs) > 0.9 * planned


def test_each_stream_may_fill_a_pack_after_one_of_each() -> None:
    packs = fullest_packs(budget(), SIZES)
    assert [tokens(pack) for pack in packs] == [899 + 90] * 3
    for pack, filler in zip(packs, EVEN, strict=True):
        assert {name: count for name, count in pack.items() if name != filler} == {
            name: 1 for name in EVEN if name != filler
        }
    (alone,) = fullest_packs(budget({"generation": 1.0, "real": 0.0}), SIZES)
    assert alone == {"generation": pytest.approx(989 / 60)}
    assert fullest_packs(budget(), {"generation": 60}) == [alone]  # the phase has no detection


def test_streams_of_a_later_mixture_count_too() -> None:
    later = Budget(1, LIMITS, ((0, {"generation": 1.0}), (9, {"real": 1.0})))
    assert len(fullest_packs(later, SIZES)) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (budget({"generation": 0.0, "fake": 1.0}), r"draws none .*\(generation, real\)"),
        (budget(max_num_tokens_per_sample=70), "real sample takes 80 tokens, more than the 70"),
    ],
)
def test_what_the_loader_could_not_fill_is_told(given: Budget, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fullest_packs(given, {name: SIZES[name] for name in ("generation", "real")})
