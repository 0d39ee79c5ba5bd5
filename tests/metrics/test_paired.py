"""Paired differences over seeds, against scipy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_rel

from unigendet.metrics.bootstrap import Floats
from unigendet.metrics.paired import SeedDifference, hierarchical_difference, t_difference


def test_students_interval_is_scipys() -> None:
    generator = np.random.default_rng(0)
    control = generator.normal(0.9, 0.02, 6)
    treatment = control + generator.normal(0.01, 0.005, 6)
    found = t_difference(list(treatment), list(control))
    wanted = ttest_rel(treatment, control).confidence_interval(0.95)
    assert found.value == pytest.approx(float(np.mean(treatment - control)))
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert found.seeds == 6


def test_students_interval_by_hand() -> None:
    # Differences 1, 2, 3: mean 2, s = 1, t(0.975, 2) = 4.302653.
    found = t_difference([1.0, 2.0, 3.0], [0.0, 0.0, 0.0])
    assert found.value == 2.0
    assert found.low == pytest.approx(2 - 4.302653 / 3**0.5, abs=1e-6)


@pytest.mark.parametrize("seeds", [1, 2])
def test_too_few_seeds_have_no_interval(seeds: int) -> None:
    found = t_difference([1.0] * seeds, [0.5] * seeds)
    assert (found.value, found.low, found.high, found.seeds) == (0.5, None, None, seeds)
    every = hierarchical_difference([SeedDifference(lambda w: 0.5, ["a"])] * seeds)
    assert (every.value, every.low, every.high) == (0.5, None, None)


def test_bad_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="come in pairs"):
        t_difference([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="come in pairs"):
        t_difference([], [])
    with pytest.raises(ValueError, match="finite"):
        t_difference([float("nan")], [1.0])
    with pytest.raises(ValueError, match="at least one seed"):
        hierarchical_difference([])


def _mean(values: list[float]) -> SeedDifference:
    array = np.asarray(values)

    def mean(weights: Floats) -> float:
        return float(array @ weights / weights.sum())

    return SeedDifference(mean, [f"s{place}" for place in range(len(values))])


def test_the_bootstrap_draws_seeds_and_sources() -> None:
    """The same images in every seed. Its variance is that between the means of m seeds by m, of n
    sources by n, and of what is left by m n."""
    generator = np.random.default_rng(1)
    seeds, sources = 8, 50
    levels, images = generator.normal(1.0, 0.3, seeds), generator.normal(0.0, 0.5, sources)
    values = levels[:, None] + images + generator.normal(0.0, 1.0, (seeds, sources))
    found = hierarchical_difference([_mean(list(one)) for one in values], draws=4000)
    rest = values - values.mean(0) - values.mean(1)[:, None] + values.mean()
    variance = values.mean(1).var() / seeds + values.mean(0).var() / sources
    variance += rest.var() / seeds / sources
    assert found.value == pytest.approx(values.mean())
    assert found.low is not None and found.high is not None
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(float(variance**0.5), rel=0.08)


def test_more_seeds_on_the_same_images_do_not_make_them_more() -> None:
    images = list(np.random.default_rng(2).normal(0.0, 1.0, 40))
    found = hierarchical_difference([_mean(images)] * 5, draws=4000)
    assert found.low is not None and found.high is not None
    wanted = float(np.std(images)) / 40**0.5
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(wanted, rel=0.08)


def test_a_source_is_drawn_whole() -> None:
    """Ten copies of one source's observation say no more than one."""
    once = [_mean([0.0, 1.0, 2.0]) for _ in range(3)]
    array = np.repeat([0.0, 1.0, 2.0], 10)
    tenfold = [
        SeedDifference(lambda w: float(array @ w / w.sum()), np.repeat(["s0", "s1", "s2"], 10))
    ] * 3
    assert hierarchical_difference(once) == hierarchical_difference(tenfold)
