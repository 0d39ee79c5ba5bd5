"""What is claimed, as figures of two arms, and what the results say of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.claims.arms import FULL
from pipeline.claims.result import ArmResult, by_seed
from unigendet.metrics.bootstrap import Floats
from unigendet.metrics.detection import DetectionTask, area_under, roc_curve
from unigendet.metrics.paired import (
    PairedDifference,
    SeedDifference,
    hierarchical_difference,
    t_difference,
)

UNSEEN = "auroc_unseen"
EVERYDAY = "auroc_everyday"
_DRAWS = 1000
FORGETTING_LIMIT = 0.01


@dataclass(frozen=True, slots=True)
class Claim:
    """`full` against `control` by one figure."""

    name: str
    control: str
    figure: str
    better: int
    """+1 where higher is better, -1 where lower is."""
    main: bool = False
    """Whether the claim stands or falls with it; the others are shown beside it."""


CLAIMS = tuple(
    Claim(name, control, figure, better, main=place == 0)
    for name, control, figures in (
        (
            "SMSA helps detection",
            "no_smsa",
            ((UNSEEN, 1), (EVERYDAY, 1), ("nll_unseen", -1), ("auroc_in_domain", 1), ("kd", -1)),
        ),
        (
            "GDUF helps detection",
            "no_gduf",
            ((UNSEEN, 1), (EVERYDAY, 1), ("nll_unseen", -1), ("auroc_in_domain", 1)),
        ),
        ("GDUF helps generation", "no_gduf", (("kd", -1), ("fd", -1), ("flow_loss", -1))),
        (
            "DIGA helps generation",
            "no_diga",
            (("kd", -1), ("fd", -1), ("flow_loss", -1), (UNSEEN, 1)),
        ),
        ("The full method beats a detector trained alone", "alone", ((UNSEEN, 1), (EVERYDAY, 1))),
    )
    for place, (figure, better) in enumerate(figures)
)

_ON_REQUEST = (("kd", -1), ("flow_loss", -1), (UNSEEN, 1))


def claims_of(results: Sequence[ArmResult]) -> list[Claim]:
    """What is claimed, then full against each other arm that is there; nothing is claimed of it."""
    controls = {claim.control for claim in CLAIMS}
    others = sorted({one.arm for one in results} - controls - {FULL})
    return [
        *CLAIMS,
        *(
            Claim(f"`full` against `{arm}`", arm, figure, better)
            for arm in others
            for figure, better in _ON_REQUEST
        ),
    ]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A claim's figure over the seeds in which both arms have it."""

    claim: Claim
    seeds: tuple[int, ...]
    full: tuple[float, ...]
    control: tuple[float, ...]
    student: PairedDifference
    """Full minus control."""
    hierarchical: PairedDifference | None
    """The same over seeds and sources, where the figure is made from stored scores."""
    sources: int
    """Of the images that all seeds were judged on together; 0 where no scores are stored."""

    @property
    def verdict(self) -> str:
        """In words, from Student's interval alone: the rule was fixed before any result."""
        if self.claim.figure == EVERYDAY:
            return "too few photographs to say"
        return verdict(self.student, self.claim.better)


def verdict(difference: PairedDifference, better: int) -> str:
    """`helps`, `hurts`, `no effect shown`, or that there are too few seeds."""
    if difference.low is None or difference.high is None:
        return "too few seeds"
    low, high = sorted((better * difference.low, better * difference.high))
    return "helps" if low > 0 else "hurts" if high < 0 else "no effect shown"


def compare(results: Sequence[ArmResult], claim: Claim) -> Comparison | None:
    """None where no seed has the figure in both arms."""
    full, control = by_seed(results), by_seed(results, claim.control)
    pairs = {
        seed: (figure_of(full[seed], claim.figure), figure_of(control[seed], claim.figure))
        for seed in sorted(full.keys() & control.keys())
    }
    pairs = {seed: pair for seed, pair in pairs.items() if all(map(math.isfinite, pair))}
    if not pairs:
        return None
    ours, theirs = zip(*pairs.values(), strict=True)
    hierarchical, sources = None, 0
    if claim.figure in (UNSEEN, EVERYDAY):
        drawn = [_by_weights(full[seed], control[seed], claim.figure) for seed in pairs]
        hierarchical = hierarchical_difference(drawn, draws=_DRAWS)
        sources = len({name for one in drawn for name in one.groups})
    student = t_difference(ours, theirs)
    return Comparison(claim, tuple(pairs), ours, theirs, student, hierarchical, sources)


def figure_of(result: ArmResult, name: str) -> float:
    """A figure of one result by its short name; NaN where it is undefined.

    `auroc_unseen`, `nll_unseen` and `auroc_everyday` are about families that the detector never saw
    and that our own autoencoder did not decode, those of good quality together against the real
    images of their set.
    """
    if name in (UNSEEN, EVERYDAY):
        fake, score, _ = pooled(result, name)
        return area_under(roc_curve(fake, score))
    if name == "nll_unseen":
        fake, score, _ = pooled(result, UNSEEN)
        return DetectionTask(fake, score).figures().balanced_nll
    group, key = {
        "auroc_in_domain": ("detection", "in_domain_all_auroc"),
        "balanced_accuracy_unseen": ("detection", "cross_generator_all_balanced_accuracy"),
        "auroc_in_domain_before_diga": ("forgetting", "in_domain_auroc_before_diga"),
        "auroc_in_domain_after_diga": ("forgetting", "in_domain_auroc_after_diga"),
        "kd": ("generation", "kd_model"),
        "fd": ("generation", "fd_model"),
        "flow_loss": ("generation", "flow_loss_model"),
    }[name]
    value = result.figures[group].get(key)
    return float("nan") if value is None else float(value)


def pooled(result: ArmResult, name: str) -> tuple[list[bool], list[float], list[str]]:
    """Labels, P(fake)s and sources of the real images and the counted fakes of one set."""
    by_family = result.scores["home" if name == UNSEEN else "everyday"]
    left_out = {*result.trained_on, *result.own_decoder, *result.below_floor}
    rows = [
        (family != "real", score, source)
        for family, sources in sorted(by_family.items())
        if family not in left_out
        for source, scores in sorted(sources.items())
        for score in scores
    ]
    fake, score, source = zip(*rows, strict=True)
    return list(fake), list(score), list(source)


def _by_weights(full: ArmResult, control: ArmResult, name: str) -> SeedDifference:
    fake, ours, sources = pooled(full, name)
    fake_too, theirs, sources_too = pooled(control, name)
    if (fake, sources) != (fake_too, sources_too):
        raise ValueError(f"seed {full.seed}: {control.arm} was judged on other images than {FULL}")

    def difference(weights: Floats) -> float:
        if not _both_classes(fake, weights):
            return float("nan")
        areas = [area_under(roc_curve(fake, score, weights)) for score in (ours, theirs)]
        return areas[0] - areas[1]

    return SeedDifference(difference, sources)


def _both_classes(fake: Sequence[bool], weights: Floats) -> bool:
    of_fakes = float(weights[np.asarray(fake)].sum())
    return 0 < of_fakes < float(weights.sum())


def forgetting(results: Sequence[ArmResult]) -> PairedDifference | None:
    """In-domain AUROC after the last DIGA minus before it, of the full arm; None without any."""
    pairs = [
        tuple(figure_of(one, f"auroc_in_domain_{when}_diga") for when in ("after", "before"))
        for one in by_seed(results).values()
    ]
    pairs = [pair for pair in pairs if all(map(math.isfinite, pair))]
    return t_difference(*zip(*pairs, strict=True)) if pairs else None


def forgetting_verdict(found: PairedDifference) -> str:
    """Whether the drop is shown to stay within one point of AUROC."""
    if found.low is None or found.high is None:
        return "too few seeds"
    if found.low >= -FORGETTING_LIMIT:
        return "holds: drop of at most 0.01"
    return "fails: drop of more than 0.01" if found.high < -FORGETTING_LIMIT else "not shown"
