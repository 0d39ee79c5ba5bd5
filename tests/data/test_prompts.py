"""Plans of samples: order, what is learned, and that labels and answers agree."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from unigendet.config import (
    AutoencoderConfig,
    ModelConfig,
    ResizeRule,
    TransformerConfig,
    VisionConfig,
)
from unigendet.data.packing import ImageItem, TextItem
from unigendet.data.prompts import (
    QUESTION,
    answer_text,
    caption_context,
    detection_context,
    detection_plan,
    generation_plan,
    parse_verdict,
    teacher_plan,
)
from unigendet.data.tokenizer import Tokenizer, train_tokenizer
from unigendet.types import Sample

CONFIG = ModelConfig(
    llm=TransformerConfig(300, 32, 64, 2, 4, 2),
    vit=VisionConfig(24, 48, 1, 2, image_size=28, patch_size=7),
    vae=AutoencoderConfig(8, (1, 1), 1, 4, norm_groups=4),
    vae_resize=ResizeRule(max_size=32, min_size=16, stride=4),
    vit_resize=ResizeRule(max_size=28, min_size=14, stride=7),
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([QUESTION], 270)


@pytest.fixture
def sample() -> Sample:
    image = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    return Sample("k", image, "s", "train", "d", "pale desert", fake=False)


def test_detection_reads_latents_then_vit_then_question_then_learns_the_answer(
    sample: Sample, tokenizer: Tokenizer
) -> None:
    plan = detection_plan(sample, tokenizer, CONFIG)
    vae, vit, question, answer = plan.items
    assert isinstance(vae, ImageItem) and vae.kind == "vae" and not vae.loss
    assert vae.pixels.shape == (3, 24, 20)
    assert isinstance(vit, ImageItem) and vit.kind == "vit" and vit.pixels.shape == (3, 21, 21)
    assert isinstance(question, TextItem) and not question.loss
    assert tokenizer.decode(question.ids) == QUESTION
    assert isinstance(answer, TextItem) and answer.loss
    assert tokenizer.decode(answer.ids) == "This is a real image."
    assert plan.fake is False


def test_training_and_inference_share_the_context(sample: Sample, tokenizer: Tokenizer) -> None:
    for smsa in (True, False):
        config = dataclasses.replace(CONFIG, smsa=smsa)
        plan = detection_plan(sample, tokenizer, config)
        context = detection_context(sample.image, tokenizer, config)
        assert len(plan.items) == len(context) + 1
        kinds = [i.kind for i in context if isinstance(i, ImageItem)]
        assert kinds == (["vae", "vit"] if smsa else ["vit"])


def test_the_explanation_is_the_answer_and_must_agree(sample: Sample, tokenizer: Tokenizer) -> None:
    fake = dataclasses.replace(
        sample, fake=True, generator="gan", explanation=answer_text(True, "The grain is missing.")
    )
    plan = detection_plan(fake, tokenizer, CONFIG)
    answer = plan.items[-1]
    assert isinstance(answer, TextItem)
    assert tokenizer.decode(answer.ids) == "This is a fake image. The grain is missing."
    assert plan.fake is True
    with pytest.raises(ValueError, match="says otherwise"):
        detection_plan(dataclasses.replace(fake, fake=False), tokenizer, CONFIG)


def test_generation_learns_real_images_only(sample: Sample, tokenizer: Tokenizer) -> None:
    text, image = generation_plan(sample, tokenizer, CONFIG, text_dropout=0.25).items
    assert isinstance(text, TextItem) and text.dropout == 0.25 and not text.loss
    assert isinstance(image, ImageItem) and image.kind == "vae" and image.loss
    fake = dataclasses.replace(sample, fake=True, generator="gan")
    with pytest.raises(ValueError, match="only real images"):
        generation_plan(fake, tokenizer, CONFIG)
    with pytest.raises(ValueError, match="real images only"):
        teacher_plan(fake, tokenizer, CONFIG)


def test_the_teacher_reads_latents_instruction_vit(sample: Sample, tokenizer: Tokenizer) -> None:
    vae, text, vit = teacher_plan(sample, tokenizer, CONFIG).items
    assert isinstance(vae, ImageItem) and vae.kind == "vae" and not vae.loss
    assert isinstance(text, TextItem) and "pale desert" in tokenizer.decode(text.ids)
    assert isinstance(vit, ImageItem) and vit.kind == "vit"


def test_a_blank_prompt_is_no_context(tokenizer: Tokenizer) -> None:
    assert caption_context("  \n", tokenizer) == []


@pytest.mark.parametrize(
    ("answer", "fake"),
    [
        ("This is a real image. The grain is natural.", False),
        ("This is a fake image.", True),
        ("this is a FAKE picture of sand", True),
        ("The image is real.", False),
        ("", None),
        ("sand and snow", None),
        ("This is not a real image.", None),
        ("This is a real image. This is a fake image.", None),
        ("This is a real image. It looks fake to some.", False),
    ],
)
def test_verdicts(answer: str, fake: bool | None) -> None:
    assert parse_verdict(answer) is fake
