"""The front of a sweep, the noise between seeds, and which trial the rule takes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from pipeline.loss_weights import AlignmentWeights
from pipeline.params import load_params
from pipeline.sweep.front import (
    Noise,
    Status,
    Trial,
    choose,
    finished_or_raise,
    noise_between_seeds,
    pareto_front,
)
from pipeline.sweep.space import first_guess, from_the_middle

ROOT = Path(__file__).parents[2]
SECTION = load_params(ROOT / "profiles" / "smoke.yaml").sweep.model_copy(
    update={"flow_weight": (0.5, 2.0), "align_weight": (0.04, 1.0), "tap_layers": (1, 2, 3)}
)
MIDDLE = AlignmentWeights(**first_guess(SECTION))  # type: ignore[arg-type]
AWAY = AlignmentWeights(2.0, 2.0, 1.0, 1.0, 3)


def trial(
    number: int,
    auroc: float | None = None,
    distance: float | None = None,
    *,
    weights: AlignmentWeights = AWAY,
    repeat: int = 0,
    status: Status = "finished",
    error: str = "",
) -> Trial:
    found = 0.5, auroc, distance, 1.0, {}, f"id{number}"
    return Trial(number, weights, repeat, status, 4, *found, error)


def chosen(trials: list[Trial], noise: Noise) -> int:
    section_away = partial(from_the_middle, section=SECTION)
    return choose(trials, noise, section_away).number


def test_the_front_holds_what_nothing_else_matches_or_beats() -> None:
    trials = [
        trial(0, 0.90, 0.10),
        trial(1, 0.95, 0.20),
        trial(2, 0.94, 0.20),  # beaten by 1 at equal distance
        trial(3, 0.90, 0.30),  # beaten by 0 and 1
        trial(4, 0.80, 0.05),
        trial(5, 0.95, 0.20),  # as good as 1
    ]
    assert [one.number for one in pareto_front(trials)] == [4, 0, 1, 5]


def test_only_searched_trials_of_the_full_budget_are_on_the_front() -> None:
    trials = [
        trial(0, 0.90, 0.10),
        trial(1, status="stopped"),
        trial(2, status="failed", error="out of memory"),
        trial(3, 0.99, 0.01, repeat=1),
    ]
    assert [one.number for one in pareto_front(trials)] == [0]


def test_noise_is_the_deviation_between_the_first_guess_and_its_repeats() -> None:
    trials = [
        trial(0, 0.90, 0.10),
        trial(1, 0.50, 0.90),
        trial(2, 0.92, 0.12, repeat=1),
        trial(3, 0.94, 0.14, repeat=2),
        trial(4, repeat=3, status="failed"),
    ]
    noise = noise_between_seeds(trials)
    assert (noise.auroc, noise.distance) == (pytest.approx(0.02), pytest.approx(0.02))
    assert noise.runs == 3
    assert noise_between_seeds(trials[:2]) == Noise(0.0, 0.0, 1)


def test_without_noise_the_best_auroc_wins_and_of_equal_ones_the_nearest_generator() -> None:
    still = Noise(0.0, 0.0, 0)
    assert chosen([trial(0, 0.90, 0.10), trial(1, 0.91, 0.20), trial(2, 0.80, 0.01)], still) == 1
    assert chosen([trial(0, 0.90, 0.20), trial(1, 0.90, 0.10)], still) == 1


def test_within_the_noise_of_the_best_auroc_the_least_distance_wins() -> None:
    trials = [trial(0, 0.90, 0.10), trial(1, 0.91, 0.20), trial(2, 0.80, 0.01)]
    assert chosen(trials, Noise(0.01, 0.0, 3)) == 0
    assert chosen(trials, Noise(0.009, 0.0, 3)) == 1
    assert chosen(trials, Noise(0.2, 0.0, 3)) == 2


def test_within_the_noise_of_both_the_weights_nearest_to_the_first_guess_win() -> None:
    near = AlignmentWeights(
        1.1, *[getattr(MIDDLE, n) for n in ("det_weight", "text_weight")], 0.2, 2
    )
    trials = [
        trial(0, 0.90, 0.110, weights=MIDDLE),
        trial(1, 0.89, 0.100, weights=AWAY),
        trial(2, 0.895, 0.105, weights=near),
    ]
    assert chosen(trials, Noise(0.02, 0.02, 3)) == 0
    assert chosen(trials, Noise(0.02, 0.006, 3)) == 2
    assert chosen(trials, Noise(0.02, 0.001, 3)) == 1


def test_a_trial_that_is_beaten_by_noise_alone_may_be_the_best() -> None:
    trials = [trial(0, 0.900, 0.100, weights=MIDDLE), trial(1, 0.901, 0.099)]
    assert [one.number for one in pareto_front(trials)] == [1]
    assert chosen(trials, Noise(0.02, 0.02, 3)) == 0
    assert chosen(trials, Noise(0.0, 0.0, 0)) == 1


def test_what_did_not_finish_and_what_is_a_repeat_is_never_the_best() -> None:
    trials = [
        trial(0, 0.9, 0.1),
        trial(1, status="stopped", weights=MIDDLE),
        trial(2, 0.99, 0.01, repeat=1, weights=MIDDLE),
    ]
    assert chosen(trials, Noise(0.5, 0.5, 2)) == 0


def test_a_sweep_without_a_finished_trial_tells_every_error() -> None:
    trials = [trial(0, status="failed", error="out of memory"), trial(1, status="stopped")]
    with pytest.raises(ValueError, match=r"trial 0: out of memory\n  trial 1: stopped"):
        finished_or_raise(trials)
    finished_or_raise([*trials, trial(2, 0.9, 0.1)])


def test_the_first_guess_is_the_middle_of_every_range() -> None:
    assert MIDDLE.flow_weight == pytest.approx(1.0)
    assert MIDDLE.align_weight == pytest.approx(0.2)
    assert MIDDLE.tap_layer == 2
    assert from_the_middle(MIDDLE, SECTION) == 0.0
    edge = AlignmentWeights(2.0, MIDDLE.det_weight, MIDDLE.text_weight, MIDDLE.align_weight, 2)
    assert from_the_middle(edge, SECTION) == pytest.approx(0.5)
    fixed = SECTION.model_copy(update={"flow_weight": (1.0, 1.0), "tap_layers": (2,)})
    assert from_the_middle(MIDDLE, fixed) == pytest.approx(0.0)
