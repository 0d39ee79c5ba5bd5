"""The quality floor flags families that are no better than flat colours."""

from __future__ import annotations

import numpy as np
import pytest

from unigendet.forgeries.quality import FLAT, flat_colours, measure_distances, nearest_other
from unigendet.metrics.generation import FeatureSet


def test_flat_colours_keep_the_mean_alone() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    flat = flat_colours(images)
    assert flat.dtype == np.uint8
    assert (flat == flat[:, :1, :1]).all()
    np.testing.assert_allclose(flat[:, 0, 0], images.mean((1, 2)), atol=0.51)


def _features(shift: float, count: int = 60, seed: int = 0) -> FeatureSet:
    rows = np.random.default_rng(seed).normal(shift, 1.0, (count, 16)).astype(np.float32)
    return FeatureSet.independent(rows, f"source{seed}")


def test_a_family_below_the_floor_is_flagged() -> None:
    fakes = {"near": _features(0.3, seed=2), "far": _features(1.9, seed=3)}
    found = measure_distances(_features(0.0), _features(2.0, seed=1), fakes, floor=0.7, seed=0)
    assert found["near"].above_floor and found["near"].relative < 0.1
    assert not found["far"].above_floor
    assert found[FLAT].relative == 1.0 and not found[FLAT].above_floor
    assert found["near"].kd.n == 60 and found["near"].kd.low <= found["near"].kd.value
    assert found["far"].fd > found["near"].fd


def test_nothing_counts_where_flat_images_look_real() -> None:
    same = {"near": _features(0.0, seed=2)}
    found = measure_distances(_features(0.0), _features(0.0, 60, seed=5), same, floor=0.7, seed=0)
    assert found[FLAT].kd.value <= 0
    assert not found["near"].above_floor


def test_a_family_that_repeats_a_few_real_images_is_flagged() -> None:
    real = _features(0.0, 48)
    few = FeatureSet(_features(0.0, 6, seed=2).rows.repeat(8, axis=0), real.groups)
    found = measure_distances(real, _features(2.0, seed=1), {"few": few}, floor=0.7, seed=0)["few"]
    assert found.relative < 0.7, "the distance alone would let it pass"
    assert found.variety < 1e-3 and not found.above_floor


def test_crops_of_one_source_are_no_collapse() -> None:
    rows = _features(0.0, 12).rows
    crops = FeatureSet(rows.repeat(4, axis=0), tuple(f"s{n // 4}" for n in range(48)))
    assert nearest_other(crops) == pytest.approx(
        nearest_other(FeatureSet.independent(rows, "s")), rel=1e-5
    )
    assert nearest_other(FeatureSet(rows, ("one",) * 12)) == 0.0
