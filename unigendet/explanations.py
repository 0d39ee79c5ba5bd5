"""Reference answers: the verdict, and the measured evidence that supports it.

A statement is about one measure of `unigendet.evidence`: on which side of a threshold the image
lies, and whether clearly so. Thresholds come from the training split, and only measures that lie
apart between real and fake images there are spoken of. An answer lists the strongest statements
that are true of its image and that support its verdict; `statements_in` reads them back, so that
any answer, a model's included, can be checked against the image.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from unigendet.data.verdicts import answer_text
from unigendet.evidence import MEASURES, Evidence, as_array

Side = Literal["low", "high"]

WORDS: dict[tuple[str, Side], str] = {
    ("fall_off", "low"): "the spectrum falls off steeply.",
    ("fall_off", "high"): "the spectrum falls off gently.",
    ("fine_detail", "low"): "fine detail is missing.",
    ("fine_detail", "high"): "fine detail is rich.",
    ("grid", "low"): "the spectrum shows no regular grid.",
    ("grid", "high"): "a regular grid shows in the spectrum.",
    ("noise", "low"): "there is little pixel noise.",
    ("noise", "high"): "there is much pixel noise.",
    ("unevenness", "low"): "the noise is even across the image.",
    ("unevenness", "high"): "the noise differs from place to place.",
    ("flatness", "low"): "few small areas are flat.",
    ("flatness", "high"): "many small areas are flat.",
    ("channel_agreement", "low"): "the colour channels disagree in fine detail.",
    ("channel_agreement", "high"): "the colour channels share their fine detail.",
    ("saturation", "low"): "colours are muted.",
    ("saturation", "high"): "colours are vivid.",
    ("edge_contrast", "low"): "edges are soft.",
    ("edge_contrast", "high"): "edges are crisp.",
}
NOTHING = "Measured traces alone do not show it."
"""What is said where no measure supports the verdict."""
EVIDENCE_FILE = "evidence.json"
"""Name of an explainer's file among the fakes."""
CLEARLY = "Clearly, "
MOST_STATEMENTS = 3


@dataclass(frozen=True, slots=True)
class Statement:
    """That an image lies on `side` of a measure's threshold, and by a good margin if `clear`."""

    measure: str
    side: Side
    clear: bool = False

    def text(self) -> str:
        """The sentence that says it."""
        words = WORDS[self.measure, self.side]
        return CLEARLY + words if self.clear else words[0].upper() + words[1:]


@dataclass(frozen=True, slots=True)
class Threshold:
    """Where a measure parts real from fake images of the training split."""

    measure: str
    value: float
    fake_side: Side
    scale: float
    """Half the distance between the quartiles of all training images: the margin of `clear`."""
    separation: float
    """Share of the fakes beyond the threshold minus that of the real images, in [0, 1]."""

    def margin(self, evidence: Evidence) -> float:
        """How far above (or, negative, below) the threshold, in scales."""
        return (float(getattr(evidence, self.measure)) - self.value) / self.scale

    def side(self, evidence: Evidence) -> Side:
        """On which side the image lies."""
        return "high" if self.margin(evidence) > 0 else "low"

    def weight(self, evidence: Evidence) -> float:
        """How much the measure says of this image: its separation, more so by a good margin."""
        return self.separation * min(abs(self.margin(evidence)), 2.0)

    def supports(self, evidence: Evidence, fake: bool) -> bool:
        """Whether the image lies on the side of that class."""
        return (self.side(evidence) == self.fake_side) == fake


@dataclass(frozen=True, slots=True)
class Explainer:
    """The thresholds in force, the most separating first; makes answers and checks statements."""

    thresholds: tuple[Threshold, ...]

    def explain(self, evidence: Evidence, fake: bool) -> str:
        """The reference answer for an image whose class is known."""
        supporting = [t for t in self.thresholds if t.supports(evidence, fake)]
        strongest = sorted(supporting, key=lambda t: -t.weight(evidence))[:MOST_STATEMENTS]
        # The thresholds' order, the same in every answer, is easier to learn than one by margin.
        said = [self._statement(t, evidence) for t in self.thresholds if t in strongest]
        return answer_text(fake, " ".join(statement.text() for statement in said) or NOTHING)

    def holds(self, statement: Statement, evidence: Evidence) -> bool:
        """Whether a statement is true of the image; one about a measure not in force is not."""
        for threshold in self.thresholds:
            if threshold.measure == statement.measure:
                far = abs(threshold.margin(evidence)) >= 1
                return threshold.side(evidence) == statement.side and (far or not statement.clear)
        return False

    def to_json(self) -> str:
        """Human-readable JSON, which `from_json` reads."""
        return json.dumps([asdict(threshold) for threshold in self.thresholds], indent=1)

    @classmethod
    def from_json(cls, text: str) -> Explainer:
        """Raises ValueError where `text` is not what `to_json` writes."""
        try:
            return cls(tuple(Threshold(**entry) for entry in json.loads(text)))
        except TypeError as error:
            raise ValueError(f"not a list of evidence thresholds: {error}") from error

    @staticmethod
    def _statement(threshold: Threshold, evidence: Evidence) -> Statement:
        clear = abs(threshold.margin(evidence)) >= 1
        return Statement(threshold.measure, threshold.side(evidence), clear)


def fit_explainer(
    real: Sequence[Evidence], fake: Sequence[Evidence], *, least_separation: float = 0.2
) -> Explainer:
    """Choose thresholds on training images; measures that hardly differ are left out.

    The threshold of a measure maximises its separation (Youden's index). A measure is kept where
    that reaches `least_separation` and what chance alone would reach once in a hundred times (the
    Kolmogorov-Smirnov bound).
    """
    if not real or not fake:
        raise ValueError(
            f"evidence needs images of both classes: {len(real)} real, {len(fake)} fake"
        )
    chance = 1.63 * math.sqrt(1 / len(real) + 1 / len(fake))
    on_real = np.stack([as_array(evidence) for evidence in real])
    on_fake = np.stack([as_array(evidence) for evidence in fake])
    thresholds = []
    for column, name in enumerate(MEASURES):
        values = np.concatenate([on_real[:, column], on_fake[:, column]])
        grid = np.unique(values)
        if len(grid) < 2:
            continue
        cuts = (grid[1:] + grid[:-1]) / 2
        real_above = (on_real[:, column][:, None] > cuts).mean(0)
        fake_above = (on_fake[:, column][:, None] > cuts).mean(0)
        best = int(np.abs(fake_above - real_above).argmax())
        gap = float(fake_above[best] - real_above[best])
        if abs(gap) >= max(least_separation, chance):
            quartiles = np.percentile(values, (25, 75))
            scale = max(float(quartiles[1] - quartiles[0]) / 2, 1e-6)
            side: Side = "high" if gap > 0 else "low"
            thresholds.append(Threshold(name, float(cuts[best]), side, scale, abs(gap)))
    return Explainer(tuple(sorted(thresholds, key=lambda t: -t.separation)))


def statements_in(answer: str) -> list[Statement]:
    """Every statement of this vocabulary that `answer` makes, in order."""
    lowered = answer.lower()
    found: list[tuple[int, Statement]] = []
    for (measure, side), words in WORDS.items():
        start = lowered.find(words)
        if start >= 0:
            clear = lowered[:start].endswith(CLEARLY.lower())
            found.append((start, Statement(measure, side, clear)))
    return [statement for _, statement in sorted(found, key=lambda pair: pair[0])]


def phrase_corpus() -> list[str]:
    """Answers that together use every phrase; a tokenizer is trained before there is evidence."""
    sentences = [
        Statement(measure, side, clear).text() for measure, side in WORDS for clear in (False, True)
    ]
    groups = [" ".join(sentences[i : i + MOST_STATEMENTS]) for i in range(len(sentences))]
    return [answer_text(fake, text) for text in [*groups, NOTHING] for fake in (False, True)]
