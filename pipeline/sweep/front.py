"""The Pareto front of a sweep, the noise between seeds, and the rule that picks the best.

Two objectives: the AUROC on validation fakes of the `val` families (higher is better) and the
generator's distance to validation tiles (lower is better). Trials that ASHA stopped early have
neither, and are on no front. The rule is `RULE`. It asks for AUROC first, since a detector that
lost its eye teaches the generator nothing, but does not let chance decide: differences within the
noise between seeds count as none, so that a trial that another one beats by less may still be the
best. Noise is measured and not assumed: the first guess is trained again with other seeds
(`sweep.repeats`), and its standard deviation in each objective is one noise.
Two or three runs give it roughly; with `repeats: 0` it counts as 0, so that the best AUROC wins,
and of equal AUROCs the least distance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import stdev
from typing import Literal

from pipeline.loss_weights import AlignmentWeights

Status = Literal["finished", "stopped", "failed"]
RULE = (
    "On the front are the trials trained to their end that no other one matches or beats in both "
    "objectives. Of these, and of those that are behind by noise alone: the trials whose AUROC is "
    "within one noise of the best AUROC stay; of them, those whose distance is within one noise of "
    "the least distance count as equal, and of the equal ones the weights nearest to the first "
    "guess, the middle of all ranges, are the best. One noise is the standard deviation between "
    "runs of the first guess with different seeds"
)


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial as `trials.json` stores it."""

    number: int
    weights: AlignmentWeights
    repeat: int
    """0; or, of the first guess with another seed, which repeat it is, from 1."""
    status: Status
    """`stopped` is by ASHA, before its last step: the trial has no objectives."""
    steps: int
    """Optimizer steps done when it last reported."""
    progress: float | None
    """ASHA's scalar at that step; lower is better."""
    auroc: float | None
    distance: float | None
    seconds: float
    figures: Mapping[str, float]
    """All validation figures; empty unless it finished."""
    trial_id: str
    """Ray Tune's name of it."""
    error: str
    """What failed, in a line; empty where nothing did."""

    @property
    def objectives(self) -> tuple[float, float]:
        """AUROC and distance of a finished trial."""
        assert self.auroc is not None and self.distance is not None
        return self.auroc, self.distance


@dataclass(frozen=True, slots=True)
class Noise:
    """Standard deviation of each objective between seeds; 0 where fewer than two runs tell."""

    auroc: float
    distance: float
    runs: int


def finished(trials: Sequence[Trial]) -> list[Trial]:
    """The searched trials that were trained to their end."""
    return [trial for trial in trials if trial.status == "finished" and not trial.repeat]


def pareto_front(trials: Sequence[Trial]) -> list[Trial]:
    """The searched, finished trials that no other one matches or beats; nearest generator first.

    Of trials with equal objectives all stay.
    """
    full = finished(trials)
    front = [one for one in full if not any(_beats(other, one) for other in full)]
    return sorted(front, key=lambda trial: (trial.objectives[1], trial.number))


def noise_between_seeds(trials: Sequence[Trial]) -> Noise:
    """From trial 0 and its repeats, as far as they finished."""
    runs = [
        trial.objectives
        for trial in trials
        if trial.status == "finished" and (trial.repeat or trial.number == 0)
    ]
    if len(runs) < 2:
        return Noise(0.0, 0.0, len(runs))
    return Noise(stdev(run[0] for run in runs), stdev(run[1] for run in runs), len(runs))


def choose(
    trials: Sequence[Trial], noise: Noise, from_the_middle: Callable[[AlignmentWeights], float]
) -> Trial:
    """The best by `RULE`, of equally near ones the earliest. At least one trial has finished.

    Args:
        from_the_middle: how far weights are from the first guess.
    """
    full = finished(trials)
    best = max(trial.objectives[0] for trial in full)
    seeing = [t for t in full if _at_most(best - t.objectives[0], noise.auroc)]
    least = min(trial.objectives[1] for trial in seeing)
    equal = [t for t in seeing if _at_most(t.objectives[1] - least, noise.distance)]
    return min(equal, key=lambda trial: (from_the_middle(trial.weights), trial.number))


def finished_or_raise(trials: Sequence[Trial]) -> None:
    """Raise ValueError with the trials' errors where no searched trial reached its end."""
    if finished(trials):
        return
    told = "\n  ".join(f"trial {t.number}: {t.error or t.status}" for t in trials)
    raise ValueError(f"no trial of the sweep reached its end:\n  {told}")


def _beats(one: Trial, other: Trial) -> bool:
    """At least as good in both objectives and better in one."""
    (auroc, distance), (its_auroc, its_distance) = one.objectives, other.objectives
    as_good = auroc >= its_auroc and distance <= its_distance
    return as_good and one.objectives != other.objectives


def _at_most(difference: float, noise: float) -> bool:
    return difference <= noise or math.isclose(difference, noise, rel_tol=1e-9)
