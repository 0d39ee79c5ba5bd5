"""Detection figures against scikit-learn, by hand, and under the grouped bootstrap."""

from __future__ import annotations

import numpy as np
import pytest

from unigendet.metrics.detection import (
    DetectionTask,
    detection_at,
    detection_estimates,
    equal_error_rate,
    roc_curve,
)


def _scores(n: int, seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    fake = generator.random(n) < 0.4
    score = 1.0 / (1.0 + np.exp(-generator.normal(np.where(fake, 0.8, -0.4), 1.0)))
    return fake, np.round(score, 1) if ties else score


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_areas_equal_scikit_learn(ties: bool, weighted: bool) -> None:
    from sklearn.metrics import (
        accuracy_score,
        average_precision_score,
        balanced_accuracy_score,
        f1_score,
        roc_auc_score,
    )

    fake, score = _scores(300, 1, ties)
    weights = np.random.default_rng(2).integers(0, 4, 300).astype(float) if weighted else None
    figures = DetectionTask(fake, score).figures(weights)
    called = score > 0.5
    assert figures.auroc == pytest.approx(roc_auc_score(fake, score, sample_weight=weights))
    expected = average_precision_score(fake, score, sample_weight=weights)
    assert figures.average_precision == pytest.approx(expected)
    expected = balanced_accuracy_score(fake, called, sample_weight=weights)
    assert figures.balanced_accuracy == pytest.approx(expected)
    assert figures.accuracy == pytest.approx(accuracy_score(fake, called, sample_weight=weights))
    expected = f1_score(fake, called, average="macro", sample_weight=weights)
    assert figures.macro_f1 == pytest.approx(expected)


def test_nll_and_ece_by_hand() -> None:
    # Three fakes and one real: the single real weighs as much as all the fakes.
    task = DetectionTask([True, True, True, False], [0.9, 0.8, 0.2, 0.3])
    figures = task.figures()
    fake_part = -(np.log(0.9) + np.log(0.8) + np.log(0.2)) / 3
    assert figures.balanced_nll == pytest.approx((fake_part - np.log(0.7)) / 2)
    gaps = [abs(1 - 0.9) / 6, abs(1 - 0.8) / 6, abs(1 - 0.2) / 6, abs(0 - 0.3) / 2]
    assert figures.balanced_ece == pytest.approx(sum(gaps))


def test_a_sure_mistake_costs_a_finite_amount() -> None:
    figures = DetectionTask([True, False], [0.0, 0.0]).figures()
    assert figures.balanced_nll == pytest.approx(-np.log(1e-6) / 2, rel=1e-3)


def test_operating_points_by_hand() -> None:
    curve = roc_curve([1, 0, 1, 0, 0], [0.9, 0.8, 0.7, 0.2, 0.1])
    assert detection_at(curve, 0.10) == 0.5
    assert detection_at(curve, 1 / 3) == 1.0
    assert equal_error_rate(curve) == pytest.approx(1 / 3)
    perfect = roc_curve([1, 1, 0, 0], [0.9, 0.8, 0.2, 0.1])
    assert equal_error_rate(perfect) == 0.0
    assert detection_at(perfect, 0.01) == 1.0
    assert np.isnan(detection_at(roc_curve([1, 1], [0.9, 0.8]), 0.01))


def test_scores_that_are_all_equal_are_chance() -> None:
    figures = DetectionTask([True, False, True, False], [0.5] * 4).figures()
    assert figures.auroc == 0.5
    assert figures.eer == pytest.approx(0.5)
    assert figures.balanced_accuracy == 0.5


def test_interval_resamples_sources_and_not_images() -> None:
    """Twenty copies of ten sources must be as uncertain as the ten sources."""
    fake, score = _scores(40, 5, ties=False)
    groups = [f"tile{i % 20}" for i in range(40)]
    once = detection_estimates(fake, score, groups, draws=400, seed=3)["auroc"]
    copies = detection_estimates(
        np.tile(fake, 20), np.tile(score, 20), groups * 20, draws=400, seed=3
    )["auroc"]
    assert copies.n == 800 and copies.groups == once.groups == 20
    assert (copies.low, copies.high) == pytest.approx((once.low, once.high))
    alone = [f"image{i}" for i in range(800)]
    ungrouped = detection_estimates(
        np.tile(fake, 20), np.tile(score, 20), alone, draws=400, seed=3
    )["auroc"]
    assert (ungrouped.high - ungrouped.low) < 0.5 * (once.high - once.low)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    inside = 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        fake = np.arange(80) % 2 == 0
        score = 1 / (1 + np.exp(-generator.normal(np.where(fake, 1.0, 0.0))))
        found = detection_estimates(fake, score, [str(i) for i in range(80)], draws=150, seed=seed)
        inside += found["auroc"].low <= 0.7602 <= found["auroc"].high  # Phi(1 / sqrt(2))
    assert 50 <= inside <= 60


def test_same_seed_same_interval() -> None:
    fake, score = _scores(60, 9, ties=False)
    groups = [str(i // 2) for i in range(60)]
    first = detection_estimates(fake, score, groups, draws=50, seed=1)
    assert first == detection_estimates(fake, score, groups, draws=50, seed=1)
    assert first != detection_estimates(fake, score, groups, draws=50, seed=2)


def test_one_class_gives_nan_and_not_a_number_that_looks_good() -> None:
    figures = DetectionTask([True, True], [0.9, 0.8]).figures()
    assert np.isnan(figures.auroc) and np.isnan(figures.balanced_accuracy)
    assert figures.recall_fake == 1.0


@pytest.mark.parametrize(
    ("fake", "score", "message"),
    [
        ([True], [0.1, 0.2], "do not match"),
        ([], [], "no scores"),
        ([True, False], [1.5, 0.0], "probability"),
        ([True, False], [float("nan"), 0.0], "probability"),
    ],
)
def test_bad_input_is_named(fake: list[bool], score: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DetectionTask(fake, score)


def test_one_class_has_no_ranking() -> None:
    figures = DetectionTask([True, True], [0.2, 0.9]).figures()
    assert figures.recall_fake == 0.5
    assert np.isnan([figures.auroc, figures.average_precision, figures.balanced_accuracy]).all()


def test_means_over_parts_share_their_draws() -> None:
    fake, score = _scores(60, 3, ties=True)
    groups = [f"s{at // 2}" for at in range(60)]
    parts = [np.arange(20), np.arange(20, 60)]
    means = detection_estimates(fake, score, groups, parts=parts, draws=50)
    own = [DetectionTask(fake[part], score[part]).figures().auroc for part in parts]
    assert means["auroc"].value == pytest.approx(np.mean(own))
    assert means["auroc"].groups == 30 and means["auroc"].n == 60
    twice = detection_estimates(fake, score, groups, parts=[np.arange(60)] * 2, draws=50)
    assert twice == detection_estimates(fake, score, groups, draws=50)
