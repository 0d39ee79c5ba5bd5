"""Answers say only what is true of their image, and what parts real from fake in training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from unigendet.data.answers import read_answers, write_answers
from unigendet.data.tokenizer import train_tokenizer
from unigendet.data.verdicts import parse_verdict
from unigendet.evidence import MEASURES, Evidence, measure
from unigendet.explanations import (
    NOTHING,
    WORDS,
    Explainer,
    Statement,
    Threshold,
    fit_explainer,
    phrase_corpus,
    statements_in,
)

Images = NDArray[np.uint8]


@pytest.fixture(scope="module")
def real(tiles: Images) -> list[Evidence]:
    return [measure(tile) for tile in tiles]


@pytest.fixture(scope="module")
def fake(tiles: Images) -> list[Evidence]:
    """Half of the images slightly blurred, half noisy in colour."""
    draw = np.random.default_rng(0)
    found = []
    for place, tile in enumerate(tiles):
        if place % 2:
            made = np.asarray(Image.fromarray(tile).filter(ImageFilter.GaussianBlur(0.8)))
        else:
            made = np.clip(tile + draw.normal(0, 2, tile.shape), 0, 255).astype(np.uint8)
        found.append(measure(made))
    return found


@pytest.fixture(scope="module")
def explainer(real: list[Evidence], fake: list[Evidence]) -> Explainer:
    found = fit_explainer(real[:24], fake[:24])
    assert found.thresholds
    return found


def test_every_statement_is_true_of_its_image(
    explainer: Explainer, real: list[Evidence], fake: list[Evidence]
) -> None:
    said = 0
    for evidence, is_fake in [*((e, False) for e in real), *((e, True) for e in fake)]:
        answer = explainer.explain(evidence, is_fake)
        assert parse_verdict(answer) is is_fake
        statements = statements_in(answer)
        assert all(explainer.holds(statement, evidence) for statement in statements)
        assert statements or NOTHING in answer
        said += len(statements)
    assert said > len(real)


def test_statements_discriminate_on_images_not_fitted_on(
    explainer: Explainer, real: list[Evidence], fake: list[Evidence]
) -> None:
    for threshold in explainer.thresholds[:2]:
        statement = Statement(threshold.measure, threshold.fake_side)
        on_fake = np.mean([explainer.holds(statement, e) for e in fake[24:]])
        on_real = np.mean([explainer.holds(statement, e) for e in real[24:]])
        assert on_fake - on_real > 0.1


def test_the_other_class_is_never_argued_for(explainer: Explainer, fake: list[Evidence]) -> None:
    sides = {t.measure: t.fake_side for t in explainer.thresholds}
    for evidence in fake:
        for statement in statements_in(explainer.explain(evidence, fake=True)):
            assert statement.side == sides[statement.measure]
        for statement in statements_in(explainer.explain(evidence, fake=False)):
            assert statement.side != sides[statement.measure]


def test_measures_that_do_not_differ_are_not_spoken_of(real: list[Evidence]) -> None:
    assert fit_explainer(real[:24], real[24:]).thresholds == () or all(
        t.separation >= 0.47 for t in fit_explainer(real[:24], real[24:]).thresholds
    )
    assert fit_explainer(real, real).thresholds == ()
    brighter = [replace(e, saturation=e.saturation + 1000) for e in real]
    (only,) = fit_explainer(real, brighter).thresholds
    assert (only.measure, only.fake_side, only.separation) == ("saturation", "high", 1.0)


def test_nothing_is_claimed_where_no_measure_supports_the_verdict(real: list[Evidence]) -> None:
    threshold = Threshold("noise", 1e9, "high", 1.0, 0.5)
    explainer = Explainer((threshold,))
    assert explainer.explain(real[0], fake=True) == f"This is a fake image. {NOTHING}"
    assert "pixel noise" in explainer.explain(real[0], fake=False)


def test_a_false_statement_does_not_hold(explainer: Explainer, real: list[Evidence]) -> None:
    threshold = explainer.thresholds[0]
    true_side = threshold.side(real[0])
    false_side = "low" if true_side == "high" else "high"
    assert explainer.holds(Statement(threshold.measure, true_side), real[0])
    assert not explainer.holds(Statement(threshold.measure, false_side), real[0])
    near = replace(real[0], **{threshold.measure: threshold.value + 0.5 * threshold.scale})
    assert explainer.holds(Statement(threshold.measure, "high"), near)
    assert not explainer.holds(Statement(threshold.measure, "high", clear=True), near)
    unspoken = set(MEASURES) - {t.measure for t in explainer.thresholds}
    for measure_name in unspoken:
        assert not explainer.holds(Statement(measure_name, "low"), real[0])


def test_every_statement_is_read_back() -> None:
    assert {measure_name for measure_name, _ in WORDS} == set(MEASURES)
    for measure_name, side in WORDS:
        for clear in (False, True):
            statement = Statement(measure_name, side, clear)
            assert statements_in(f"This is a fake image. {statement.text()}") == [statement]
    first, second = Statement("grid", "high", True), Statement("noise", "low")
    assert statements_in(f"{second.text()} {first.text()}") == [second, first]
    assert statements_in("This is a fake image. It looks odd.") == []


def test_an_explainer_is_stored_whole(explainer: Explainer) -> None:
    assert Explainer.from_json(explainer.to_json()) == explainer
    with pytest.raises(ValueError, match="thresholds"):
        Explainer.from_json('[{"measure": "noise"}]')


def test_fitting_needs_both_classes(real: list[Evidence]) -> None:
    with pytest.raises(ValueError, match="both classes: 48 real, 0 fake"):
        fit_explainer(real, [])


def test_the_phrase_corpus_teaches_a_tokenizer_short_answers(
    explainer: Explainer, real: list[Evidence], fake: list[Evidence]
) -> None:
    tokenizer = train_tokenizer(phrase_corpus(), 600)
    answers = [explainer.explain(e, False) for e in real] + [
        explainer.explain(e, True) for e in fake
    ]
    lengths = [len(tokenizer.encode(answer)) for answer in answers]
    assert max(lengths) <= 60
    assert all(
        statement.text() in " ".join(phrase_corpus()) for statement in statements_in(answers[0])
    )


def test_answers_of_real_images_are_kept_by_set_and_key(tmp_path) -> None:  # type: ignore[no-untyped-def]
    write_answers(tmp_path, {"train": {"a": "This is a real image."}})
    assert read_answers(tmp_path, "train") == {"a": "This is a real image."}
    with pytest.raises(ValueError, match="answers for train, not for 'val'"):
        read_answers(tmp_path, "val")
    with pytest.raises(ValueError, match="run the stage forge first"):
        read_answers(tmp_path / "absent", "val")
