"""The words around images, and the plan of a sample: the same in training and at inference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unigendet.config import ModelConfig
from unigendet.data.packing import ImageItem, SamplePlan, TextItem
from unigendet.data.tokenizer import Tokenizer
from unigendet.data.transforms import to_pixels
from unigendet.data.verdicts import FAKE_ANSWER, REAL_ANSWER, answer_text, parse_verdict
from unigendet.types import Sample

QUESTION = "Is this image real or fake? Explain."

Picture = NDArray[np.uint8] | Image.Image
"""An RGB image: (H, W, 3) uint8, or Pillow's."""


def teacher_instruction(caption: str) -> str:
    """What DIGA's teacher is told about a real image (specification 7, pass 2)."""
    return f"This real image shows: {caption}. What proves that it is real?"


def caption_context(prompt: str, tokenizer: Tokenizer, dropout: float = 0.0) -> list[TextItem]:
    """What the generator reads before the image. A blank prompt is no text, as a dropped one is."""
    ids = tokenizer.encode(prompt.strip())
    return [TextItem(ids, dropout=dropout)] if ids else []


def detection_context(
    image: Picture,
    tokenizer: Tokenizer,
    config: ModelConfig,
    *,
    question: str = QUESTION,
) -> list[TextItem | ImageItem]:
    """What the detector reads before it answers: clean latents, ViT tokens, the question.

    Both views start from the picture as it is, each with its own resize rule. A model
    without `smsa` sees no latents.
    """
    items: list[TextItem | ImageItem] = []
    if config.smsa:
        items.append(ImageItem("vae", to_pixels(image, config.vae_resize)))
    items.append(ImageItem("vit", to_pixels(image, config.vit_resize)))
    items.append(TextItem(tokenizer.encode(question)))
    return items


def generation_plan(
    sample: Sample, tokenizer: Tokenizer, config: ModelConfig, text_dropout: float = 0.1
) -> SamplePlan:
    """Caption, then the image to generate. ValueError for a fake: flow learns real images only."""
    if sample.fake:
        raise ValueError(
            f"sample {sample.key} is a fake ({sample.generator}); only real images may be generated"
        )
    context = caption_context(sample.caption, tokenizer, text_dropout)
    target = ImageItem("vae", to_pixels(sample.image, config.vae_resize), loss=True)
    return SamplePlan([*context, target])


def detection_plan(sample: Sample, tokenizer: Tokenizer, config: ModelConfig) -> SamplePlan:
    """Image, question, and the answer to learn: the verdict alone where there is no explanation.

    Raises ValueError where the explanation states another verdict than the label.
    """
    answer = sample.explanation or answer_text(sample.fake)
    if parse_verdict(answer) is not sample.fake:
        raise ValueError(
            f"sample {sample.key} is {'fake' if sample.fake else 'real'}, "
            f"its explanation says otherwise: {answer!r}"
        )
    context = detection_context(sample.image, tokenizer, config)
    return SamplePlan([*context, TextItem(tokenizer.encode(answer), loss=True)], fake=sample.fake)


def teacher_plan(sample: Sample, tokenizer: Tokenizer, config: ModelConfig) -> SamplePlan:
    """What the teacher reads of a real image: clean latents, caption in a text, ViT tokens."""
    if sample.fake:
        raise ValueError(f"sample {sample.key} is a fake; the teacher explains real images only")
    return SamplePlan(
        [
            ImageItem("vae", to_pixels(sample.image, config.vae_resize)),
            TextItem(tokenizer.encode(teacher_instruction(sample.caption))),
            ImageItem("vit", to_pixels(sample.image, config.vit_resize)),
        ]
    )


def prompt_corpus() -> Sequence[str]:
    """Every fixed wording, for the tokenizer to be trained on beside captions and explanations."""
    return (QUESTION, REAL_ANSWER, FAKE_ANSWER, teacher_instruction("land"))
