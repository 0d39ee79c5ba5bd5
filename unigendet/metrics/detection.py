"""How well scores and verdicts tell fake images from real ones.

Throughout `fake` is the positive class (label 1), a score is P(fake) in [0, 1], and an image is
called fake where its score is above the fixed threshold 0.5: a threshold tuned on test data would
hide the main failure under distribution shift. Every figure takes weights, so that the grouped
bootstrap of `metrics.bootstrap` is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unigendet.metrics.bootstrap import Draws, Estimate, Floats, percentile_interval, weighted_mean

THRESHOLD = 0.5
ECE_BINS = 15
_CLIP = 1e-6
"""Scores are clipped to [1e-6, 1 - 1e-6] before a logarithm: one sure mistake costs 13.8 nats."""


@dataclass(frozen=True, slots=True)
class DetectionFigures:
    """All figures of one comparison of fakes with reals; NaN where a class is absent."""

    balanced_accuracy: float
    """Mean of `recall_real` and `recall_fake`."""
    accuracy: float
    macro_f1: float
    recall_real: float
    recall_fake: float
    auroc: float
    """P(a fake scores above a real), ties counted half."""
    average_precision: float
    """Sum over thresholds of precision times the step in recall."""
    eer: float
    """Rate at which false alarms equal misses, interpolated linearly on the ROC."""
    pd_at_far_10: float
    """Largest detection rate with at most 10 % false alarms, not interpolated."""
    pd_at_far_5: float
    pd_at_far_1: float
    balanced_nll: float
    """Negative log-likelihood in nats, mean of the two classes."""
    balanced_ece: float
    """Expected calibration error, 15 equal bins, both classes given the same total weight."""


@dataclass(frozen=True, slots=True)
class RocCurve:
    """Operating points from (0, 0) to (1, 1), one per distinct score."""

    false_alarm: Floats
    detection: Floats
    precision: Floats
    """Undefined at the first point, where it is 1."""


def _inputs(fake: ArrayLike, score: ArrayLike) -> tuple[NDArray[np.bool_], Floats]:
    labels = np.asarray(fake, dtype=bool)
    scores = np.asarray(score, dtype=np.float64)
    if labels.shape != scores.shape or labels.ndim != 1:
        raise ValueError(f"{labels.shape} labels do not match {scores.shape} scores")
    if len(scores) == 0:
        raise ValueError("no scores to judge")
    if not np.isfinite(scores).all() or scores.min() < 0.0 or scores.max() > 1.0:
        raise ValueError("a score must be a probability in [0, 1]")
    return labels, scores


def roc_curve(fake: ArrayLike, score: ArrayLike, weights: Floats | None = None) -> RocCurve:
    """The ROC of scores, tied scores moved through as one step.

    Args:
        fake: (n,) true for a fake.
        score: (n,) P(fake).
        weights: (n,) how often each counts; ones where left out.
    """
    labels, scores = _inputs(fake, score)
    w = np.ones(len(scores)) if weights is None else weights
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    return _curve(labels[order], w[order], last)


def _curve(labels: NDArray[np.bool_], w: Floats, last: NDArray[np.int64]) -> RocCurve:
    """ROC from labels and weights already in falling order of score; `last` ends each tie."""
    hits = np.cumsum(np.where(labels, w, 0.0))[last]
    alarms = np.cumsum(np.where(labels, 0.0, w))[last]
    with np.errstate(invalid="ignore", divide="ignore"):
        detection = np.insert(hits / hits[-1], 0, 0.0)
        false_alarm = np.insert(alarms / alarms[-1], 0, 0.0)
        precision = np.insert(np.nan_to_num(hits / (hits + alarms), nan=1.0), 0, 1.0)
    return RocCurve(false_alarm, detection, precision)


def area_under(curve: RocCurve) -> float:
    return float(np.trapezoid(curve.detection, curve.false_alarm))


def average_precision(curve: RocCurve) -> float:
    if not np.isfinite(curve.false_alarm).all():
        return float("nan")  # without reals every precision is 1
    return float((np.diff(curve.detection) * curve.precision[1:]).sum())


def equal_error_rate(curve: RocCurve) -> float:
    gap = curve.false_alarm - (1.0 - curve.detection)  # rises from -1 to 1
    if not np.isfinite(gap).all():
        return float("nan")
    right = int(np.argmax(gap >= 0.0))
    left = max(right - 1, 0)
    span = gap[right] - gap[left]
    share = -gap[left] / span if span > 0.0 else 0.0
    at = curve.false_alarm[left]
    return float(at + share * (curve.false_alarm[right] - at))


def detection_at(curve: RocCurve, false_alarm: float) -> float:
    """The largest detection rate among operating points with at most this false-alarm rate."""
    if not np.isfinite(curve.false_alarm).all():
        return float("nan")  # without reals there is no false-alarm rate to keep to
    allowed = curve.false_alarm <= false_alarm + 1e-12
    return float(curve.detection[allowed].max()) if allowed.any() else float("nan")


class DetectionTask:
    """One set of labels and scores, sorted once, from which figures are computed under weights."""

    def __init__(self, fake: ArrayLike, score: ArrayLike) -> None:
        self.fake, self.score = _inputs(fake, score)
        self._order = np.argsort(-self.score, kind="stable")
        steps = np.flatnonzero(np.diff(self.score[self._order]))
        self._last = np.append(steps, len(self.score) - 1)
        self._called = self.score > THRESHOLD
        clipped = np.clip(self.score, _CLIP, 1.0 - _CLIP)
        self._nll = -np.where(self.fake, np.log(clipped), np.log1p(-clipped))
        self._bin = np.minimum((self.score * ECE_BINS).astype(np.int64), ECE_BINS - 1)

    def figures(self, weights: Floats | None = None) -> DetectionFigures:
        w = np.ones(len(self.score)) if weights is None else weights
        w_fake, w_real = np.where(self.fake, w, 0.0), np.where(self.fake, 0.0, w)
        recall_fake = weighted_mean(self._called.astype(np.float64), w_fake)
        recall_real = weighted_mean((~self._called).astype(np.float64), w_real)
        curve = _curve(self.fake[self._order], w[self._order], self._last)
        right = (self._called == self.fake).astype(np.float64)
        return DetectionFigures(
            balanced_accuracy=(recall_fake + recall_real) / 2.0,
            accuracy=weighted_mean(right, w),
            macro_f1=(self._f1(self.fake, w) + self._f1(~self.fake, w)) / 2.0,
            recall_real=recall_real,
            recall_fake=recall_fake,
            auroc=area_under(curve),
            average_precision=average_precision(curve),
            eer=equal_error_rate(curve),
            pd_at_far_10=detection_at(curve, 0.10),
            pd_at_far_5=detection_at(curve, 0.05),
            pd_at_far_1=detection_at(curve, 0.01),
            balanced_nll=(weighted_mean(self._nll, w_fake) + weighted_mean(self._nll, w_real)) / 2,
            balanced_ece=self._ece(w_fake, w_real),
        )

    def _f1(self, positive: NDArray[np.bool_], w: Floats) -> float:
        """F1 of the class `positive`; 0 where nothing is right."""
        called = self._called == self.fake
        hit = float(w[called & positive].sum())
        # Each mistake is a miss of one class and a false alarm of the other.
        wrong = float(w[~called].sum())
        return 2.0 * hit / (2.0 * hit + wrong) if hit + wrong > 0.0 else float("nan")

    def _ece(self, w_fake: Floats, w_real: Floats) -> float:
        if w_fake.sum() == 0.0 or w_real.sum() == 0.0:
            return float("nan")
        w = w_fake / (2.0 * w_fake.sum()) + w_real / (2.0 * w_real.sum())
        gap = np.bincount(self._bin, w * (self.fake - self.score), minlength=ECE_BINS)
        return float(np.abs(gap).sum())


def detection_estimates(
    fake: ArrayLike,
    score: ArrayLike,
    groups: Sequence[str],
    *,
    parts: Sequence[NDArray[np.int64]] | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Every field of `DetectionFigures` with its interval, sources resampled.

    Args:
        fake: (n,) true for a fake.
        score: (n,) P(fake).
        groups: (n,) source ids; a real image and the fakes made from it share one.
        parts: positions of the images of each part, where figures are means over parts: every
            part weighs the same, and one draw of sources serves all of them.
        draws: number of resamples.
        seed: fixes them.
    """
    labels, scores = _inputs(fake, score)
    n = len(scores)
    wholes = [np.arange(n)] if parts is None else parts
    tasks = [(DetectionTask(labels[part], scores[part]), part) for part in wholes]
    plan = Draws(groups, draws=draws, seed=seed)

    def figures(weights: Floats) -> Floats:
        """(fields,): means over the parts."""
        found = [astuple(task.figures(weights[part])) for task, part in tasks]
        means: Floats = np.asarray(found, dtype=np.float64).mean(axis=0)
        return means

    value = figures(np.ones(n))
    drawn = np.stack([figures(weights) for (weights,) in plan.counts()])
    out = {}
    for at, field in enumerate(fields(DetectionFigures)):
        low, high = percentile_interval(drawn[:, at])
        out[field.name] = Estimate(float(value[at]), low, high, n, plan.sources, n)
    return out
