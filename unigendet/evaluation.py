"""A detector judged on labelled images: one `EvalRecord` per image and suite, then tables.

Three suites ask three questions. All share the held-out real images of their domain:

- `in_domain`: new tiles, fakes by families that the detector learned from;
- `cross_generator`: the same tiles, fakes by families that it never saw;
- `cross_dataset`: another kind of image altogether, fakes by families that it never saw.

Nothing is dropped: an answer that states no verdict counts as wrong and as unparsed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from unigendet.data.verdicts import parse_verdict
from unigendet.figures import figures_of
from unigendet.metrics.bootstrap import Estimate, Floats, estimate, mean_estimate, weighted_mean
from unigendet.metrics.detection import THRESHOLD, detection_estimates
from unigendet.types import EvalRecord, Sample

IN_DOMAIN, CROSS_GENERATOR, CROSS_DATASET = "in_domain", "cross_generator", "cross_dataset"
SUITES = (IN_DOMAIN, CROSS_GENERATOR, CROSS_DATASET)
ALL = "all"
"""The row of a table that holds every family of its suite."""
MEAN = "mean"
"""The row with the mean over families, each against the reals that it stands against."""
Against = Callable[[str, Collection[str]], Collection[str]]
"""(a family, the generators that real images carry) -> those of its reals."""


class Judgement(Protocol):
    """What a detector says of one image (`inference.Detection`)."""

    @property
    def score(self) -> float:
        """P(fake) in [0, 1]."""

    @property
    def explanation(self) -> str:
        """The decoded answer; empty where none was asked for."""


class Detector(Protocol):
    """Whatever judges images, `inference.UniGenDet` or a baseline."""

    def detect(
        self, images: Sequence[NDArray[np.uint8]], *, explain: bool = True
    ) -> Sequence[Judgement]: ...


def suites_of(generator: str, trained_on: frozenset[str], *, home: bool) -> tuple[str, ...]:
    """The suites that an image belongs to.

    Args:
        generator: the family that made it, `real` for a real image.
        trained_on: families whose fakes the detector learned from.
        home: whether it comes from the domain that was trained on.
    """
    if not home:
        return (CROSS_DATASET,)
    if generator == "real":
        return (IN_DOMAIN, CROSS_GENERATOR)
    return (IN_DOMAIN,) if generator in trained_on else (CROSS_GENERATOR,)


def records_of(
    sample: Sample, suites: Sequence[str], score: float, answer: str
) -> Iterator[EvalRecord]:
    """The records of one judged image, one for each of its suites."""
    for suite in suites:
        yield EvalRecord(
            key=sample.key,
            source_id=sample.source_id,
            suite=suite,
            generator=sample.generator,
            fake=sample.fake,
            score=score,
            answer=answer,
            reference=sample.explanation,
            answer_fake=parse_verdict(answer),
        )


def judge(
    detector: Detector,
    samples: Sequence[Sample],
    trained_on: frozenset[str],
    *,
    home: bool,
    explain: bool = True,
) -> list[EvalRecord]:
    """Let a detector judge samples of one domain, in order, none dropped."""
    judgements = detector.detect([sample.image for sample in samples], explain=explain)
    assert len(judgements) == len(samples), "a detector must judge every image"
    return [
        record
        for sample, judged in zip(samples, judgements, strict=True)
        for record in records_of(
            sample,
            suites_of(sample.generator, trained_on, home=home),
            judged.score,
            judged.explanation,
        )
    ]


@dataclass(frozen=True, slots=True)
class DetectionRow:
    """One line of the detection table: fakes of one family against their suite's real images."""

    suite: str
    generator: str
    """A family, `all` or `mean`."""
    fakes: int
    reals: int
    figures: Mapping[str, Estimate]
    """Fields of `metrics.detection.DetectionFigures`, from scores."""
    verdicts: Mapping[str, Estimate]
    """What the written answers say; empty where no answer was asked for."""


def rows_of(
    records: Sequence[EvalRecord],
    suite: str,
    against: Against | None = None,
    repeats: Collection[str] = (),
    uncounted: Collection[str] = (),
) -> Iterator[tuple[str, list[EvalRecord]]]:
    """For each family of a suite, then for `all`: the suite's reals and the family's fakes.

    Reals are all of the suite, or those of the generators that `against` names for the family.
    `all` does without the records whose keys are among `repeats`: another stands for the image; and
    without the families `uncounted`, unless no other one is there.
    """
    chosen = [record for record in records if record.suite == suite]
    reals = [record for record in chosen if not record.fake]
    kinds = {record.generator for record in reals}
    for generator in sorted({record.generator for record in chosen if record.fake}):
        own = kinds if against is None else set(against(generator, kinds))
        yield (
            generator,
            [
                *(record for record in reals if record.generator in own),
                *(record for record in chosen if record.fake and record.generator == generator),
            ],
        )
    if len(reals) < len(chosen):
        counted = [r for r in chosen if r.key not in repeats and r.generator not in uncounted]
        if not any(record.fake for record in counted):
            counted = [record for record in chosen if record.key not in repeats]
        yield ALL, counted


def detection_row(
    suite: str, generator: str, rows: Sequence[EvalRecord], *, draws: int, seed: int
) -> DetectionRow:
    """The fakes among `rows` against the reals among them."""
    fake, score, groups = _columns(rows)
    return DetectionRow(
        suite=suite,
        generator=generator,
        fakes=sum(fake),
        reals=len(fake) - sum(fake),
        figures=detection_estimates(fake, score, groups, draws=draws, seed=seed),
        verdicts=_verdicts(rows, draws, seed),
    )


def detection_table(
    records: Sequence[EvalRecord],
    *,
    suites: Sequence[str] = SUITES,
    against: Against | None = None,
    uncounted: Collection[str] = (),
    draws: int = 1000,
    seed: int = 0,
) -> list[DetectionRow]:
    """Every suite's families and, last, all of them together. Suites without fakes give no row.

    Args:
        uncounted: families too poor to stand among the others, see `rows_of`.
    """
    return [
        detection_row(suite, generator, rows, draws=draws, seed=seed)
        for suite in suites
        for generator, rows in rows_of(records, suite, against, uncounted=uncounted)
    ]


def mean_row(
    records: Sequence[EvalRecord], suite: str, against: Against | None, *, draws: int, seed: int
) -> DetectionRow | None:
    """Means over the families of a suite; None where it has but one."""
    families = [rows for name, rows in rows_of(records, suite, against) if name != ALL]
    if len(families) < 2:
        return None
    chosen = [record for record in records if record.suite == suite]
    place = {id(record): at for at, record in enumerate(chosen)}
    parts = [np.array([place[id(record)] for record in rows]) for rows in families]
    fake, score, groups = _columns(chosen)
    figures = detection_estimates(fake, score, groups, parts=parts, draws=draws, seed=seed)
    return DetectionRow(suite, MEAN, sum(fake), len(fake) - sum(fake), figures, {})


def _columns(rows: Sequence[EvalRecord]) -> tuple[list[bool], list[float], list[str]]:
    """Class, score and source of each."""
    return [r.fake for r in rows], [r.score for r in rows], [r.source_id for r in rows]


def _verdicts(rows: Sequence[EvalRecord], draws: int, seed: int) -> dict[str, Estimate]:
    if not any(record.answer for record in rows):
        return {}
    groups = [record.source_id for record in rows]
    fake = np.array([record.fake for record in rows])
    right = _floats([record.answer_fake == record.fake for record in rows])
    parsed = _floats([record.answer_fake is not None for record in rows])
    agree = _floats([record.answer_fake == (record.score > THRESHOLD) for record in rows])

    def balanced(w: Floats) -> float:
        of_fakes = weighted_mean(right, np.where(fake, w, 0.0))
        return (of_fakes + weighted_mean(right, np.where(fake, 0.0, w))) / 2.0

    return {
        "answer_balanced_accuracy": estimate(balanced, groups, draws=draws, seed=seed),
        "answer_parsed": mean_estimate(parsed, groups, draws=draws, seed=seed),
        "answer_agrees_with_score": mean_estimate(agree, groups, draws=draws, seed=seed),
    }


def _floats(values: Sequence[bool]) -> Floats:
    return np.asarray(values, dtype=np.float64)


def detection_figures(table: Sequence[DetectionRow], seed: int) -> dict[str, Any]:
    """suite -> family (or `all`) -> counts, `figures` and `verdicts`."""
    out: dict[str, Any] = {}
    for row in table:
        out.setdefault(row.suite, {})[row.generator] = {
            "fakes": row.fakes,
            "reals": row.reals,
            "figures": figures_of(row.figures, seed),
            "verdicts": figures_of(row.verdicts, seed),
        }
    return out
