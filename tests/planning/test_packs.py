"""A pack's counts without making it equal those of a real one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.workload import tiny
from tests.planning.phases import SIZE, TEXTS, planned_pack, real_alignment, real_pack
from unigendet.data.prompts import QUESTION, teacher_instruction
from unigendet.planning.packs import Texts, shape_of, teacher_pack, training_pack


@pytest.mark.parametrize(("generation", "detection"), [(3, 2), (3, 0), (0, 2)])
def test_a_planned_pack_has_the_counts_of_a_real_one(generation: int, detection: int) -> None:
    config = tiny()
    real, planned = (
        shape_of(real_pack(config, generation, detection)),
        planned_pack(config, generation, detection),
    )
    assert planned.pairs >= real.pairs  # samples that are alike share one mask
    assert replace(planned, pairs=0) == replace(real, pairs=0)


def test_a_teachers_pack() -> None:
    real = shape_of(real_alignment(tiny(), 3).teacher)
    planned = teacher_pack(tiny(), SIZE, 3, TEXTS)
    assert planned.pairs >= real.pairs
    assert replace(planned, pairs=0) == replace(real, pairs=0)


def test_without_latents_the_detector_reads_the_image_encoder_alone() -> None:
    config = replace(tiny(), smsa=False)
    pack = training_pack(config, SIZE, generation=0, detection=2, texts=Texts())
    assert (pack.latents, pack.images, pack.pixels, pack.vit) == (0, 0, 0, 2 * 64)


def test_texts_that_are_not_given_are_of_the_prompts_length() -> None:
    texts = Texts()
    assert len(QUESTION.split()) < texts.question <= 2 * len(QUESTION.split())
    assert len(teacher_instruction("").split()) < texts.instruction
