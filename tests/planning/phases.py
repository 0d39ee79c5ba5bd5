"""Real packs of a small model, and the phases that plan them."""

from __future__ import annotations

from dataclasses import replace

import torch

from benchmarks.workload import ANSWER_WORDS, CAPTION_WORDS, QUESTION_WORDS, Samples, markers, tiny
from unigendet.config import ModelConfig
from unigendet.data.packing import ImageItem, SamplePlan, TextItem, pack
from unigendet.planning.packs import PackShape, Texts, training_pack
from unigendet.types import AlignmentBatch, PackedBatch

SIZE = 64
INSTRUCTION_WORDS = 5
TEXTS = Texts(CAPTION_WORDS, QUESTION_WORDS, ANSWER_WORDS, INSTRUCTION_WORDS)


def real_pack(
    config: ModelConfig, generation: int, detection: int, size: int = SIZE
) -> PackedBatch:
    generator = torch.Generator().manual_seed(0)
    samples = Samples(config, size, generator)
    plans = [samples.generation() for _ in range(generation)]
    plans += [samples.detection() for _ in range(detection)]
    return pack(plans, config, markers(config), generator)


def real_alignment(config: ModelConfig, images: int) -> AlignmentBatch:
    generator = torch.Generator().manual_seed(1)
    question = Samples(config, SIZE, generator).question()
    vae, vit = (item for item in question if isinstance(item, ImageItem))
    words = TextItem(range(CAPTION_WORDS + INSTRUCTION_WORDS))
    plans = [SamplePlan([vae, words, vit]) for _ in range(images)]
    teacher = pack(plans, config, markers(config), generator)
    return AlignmentBatch(real_pack(config, images, 0), teacher)


def planned_pack(config: ModelConfig, generation: int, detection: int) -> PackShape:
    return training_pack(config, SIZE, generation=generation, detection=detection, texts=TEXTS)


def wide(layers: int = 2) -> ModelConfig:
    """The widths of profile gpu-256, with few layers and words."""
    config = tiny()
    return replace(
        config,
        llm=replace(
            config.llm,
            vocab_size=2000,
            hidden_size=768,
            intermediate_size=2048,
            num_hidden_layers=layers,
            num_attention_heads=12,
            num_key_value_heads=4,
        ),
        vit=replace(
            config.vit,
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=1,
            num_attention_heads=12,
        ),
    )
