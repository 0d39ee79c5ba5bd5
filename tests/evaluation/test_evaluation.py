"""Records and tables: nothing dropped, unparsed is wrong, statements are checked on the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from unigendet.evaluation import (
    ALL,
    detection_table,
    judge,
    suites_of,
)
from unigendet.evidence import measure
from unigendet.explanation_evaluation import Checked, explanation_table
from unigendet.explanations import Explainer, Threshold
from unigendet.types import EvalRecord, Sample

REAL, FAKE = "This is a real image.", "This is a fake image."


@dataclass(frozen=True)
class Said:
    score: float
    explanation: str


class Brightness:
    """Calls dark images fake, and says nothing sensible of the darkest."""

    def detect(self, images, *, explain: bool = True):  # type: ignore[no-untyped-def]
        found = []
        for image in images:
            score = 1.0 - float(image.mean()) / 255.0
            answer = "no idea" if score > 0.99 else FAKE if score > 0.5 else REAL
            found.append(Said(score, answer if explain else ""))
        return found


def _sample(key: str, level: int, generator: str = "real", source: str = "") -> Sample:
    return Sample(
        key=key,
        image=np.full((8, 8, 3), level, dtype=np.uint8),
        source_id=source or key,
        split="test",
        domain="d",
        caption="c",
        fake=generator != "real",
        generator=generator,
        explanation=REAL if generator == "real" else FAKE,
    )


def test_suites_follow_from_family_and_domain() -> None:
    trained = frozenset({"flow"})
    assert suites_of("real", trained, home=True) == ("in_domain", "cross_generator")
    assert suites_of("flow", trained, home=True) == ("in_domain",)
    assert suites_of("gan", trained, home=True) == ("cross_generator",)
    assert suites_of("gan", trained, home=False) == ("cross_dataset",)
    assert suites_of("real", trained, home=False) == ("cross_dataset",)


def test_every_sample_is_recorded_and_unparsed_counts_as_wrong() -> None:
    samples = [
        _sample("a", 250),
        _sample("b", 200),
        _sample("a-flow", 100, "flow", "a"),
        _sample("b-flow", 0, "flow", "b"),  # rightly scored, but its answer states no verdict
    ]
    records = judge(Brightness(), samples, frozenset({"flow"}), home=True)
    assert [r.key for r in records if r.suite == "in_domain"] == ["a", "b", "a-flow", "b-flow"]
    assert [r.key for r in records if r.suite == "cross_generator"] == ["a", "b"]
    rows = {(row.suite, row.generator): row for row in detection_table(records, draws=20)}
    assert set(rows) == {("in_domain", "flow"), ("in_domain", ALL)}, "a suite without fakes"
    row = rows["in_domain", ALL]
    assert (row.fakes, row.reals) == (2, 2)
    assert row.figures["balanced_accuracy"].value == 1.0
    assert row.figures["auroc"].groups == 2, "an image and its fake are one source"
    assert row.verdicts["answer_balanced_accuracy"].value == pytest.approx(0.75)
    assert row.verdicts["answer_parsed"].value == pytest.approx(0.75)
    assert row.verdicts["answer_agrees_with_score"].value == pytest.approx(0.75)


def test_a_poor_family_stands_for_itself_alone_unless_all_are_poor() -> None:
    samples = [_sample("a", 250), _sample("f", 10, "flow", "a"), _sample("g", 255, "gan", "a")]
    records = judge(Brightness(), samples, frozenset({"flow", "gan"}), home=True)
    for poor, fakes in (((), 2), (("gan",), 1), (("flow", "gan"), 2)):
        rows = {row.generator: row for row in detection_table(records, uncounted=poor, draws=5)}
        assert set(rows) == {"flow", "gan", ALL}
        assert (rows[ALL].fakes, rows[ALL].reals) == (fakes, 1)


def test_without_answers_there_are_no_verdicts() -> None:
    samples = [_sample("a", 250), _sample("f", 10, "flow", "a")]
    records = judge(Brightness(), samples, frozenset({"flow"}), home=True, explain=False)
    assert detection_table(records, draws=5)[0].verdicts == {}
    assert explanation_table(records, draws=5) == []


def _noise(key: str, strength: float) -> Sample:
    generator = np.random.default_rng(int(key[1:]))
    image = np.clip(128 + strength * generator.normal(size=(32, 32, 3)), 0, 255).astype(np.uint8)
    return Sample(key, image, key, "test", "d", "c", fake=False)


def _record(sample: Sample, answer: str, reference: str) -> EvalRecord:
    return EvalRecord(
        sample.key, sample.source_id, "in_domain", "real", False, 0.1, answer, reference, False
    )


def test_statements_are_checked_on_the_image_they_are_about() -> None:
    samples = [_noise(f"s{i}", 2.0 if i % 2 else 20.0) for i in range(8)]
    evidence = {sample.key: measure(sample.image) for sample in samples}
    middle = float(np.median([e.noise for e in evidence.values()]))
    explainer = Explainer((Threshold("noise", middle, "low", 100.0, 1.0),))
    records = []
    for sample in samples:
        words = "There is little pixel noise."
        if evidence[sample.key].noise > middle:
            words = "There is much pixel noise."
        records.append(_record(sample, f"{REAL} {words}", f"{REAL} {words}"))
    liar = _record(samples[0], f"{REAL} There is little pixel noise.", REAL)
    [row] = explanation_table([*records, liar], Checked(explainer, evidence), draws=50)
    assert row.figures["rouge_l"].n == 9
    true = row.figures["statements_true"]
    assert true.value == pytest.approx(8 / 9)
    other = row.figures["statements_true_other"]
    assert other.value < 0.8, "of other images the same statements hold by chance alone"


def test_missing_references_lower_n_and_not_n_total() -> None:
    samples = [_noise(f"s{i}", 5.0) for i in range(3)]
    records = [_record(sample, f"{REAL} Crisp.", f"{REAL} Crisp.") for sample in samples[:2]]
    records.append(_record(samples[2], f"{REAL} Crisp.", ""))
    [row] = explanation_table(records, draws=10)
    assert (row.figures["rouge_l"].n, row.figures["rouge_l"].n_total) == (2, 3)
    assert row.figures["rouge_l"].value == 1.0
    assert "statements_true" not in row.figures
