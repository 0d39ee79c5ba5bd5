"""How many tokens a sample takes in a pack, known without its picture."""

from __future__ import annotations

from unigendet.config import ModelConfig, ResizeRule
from unigendet.data.prompts import QUESTION
from unigendet.data.streams import Outline
from unigendet.data.tokenizer import Tokenizer
from unigendet.data.transforms import resized_size
from unigendet.data.verdicts import answer_text

_MARKERS = 2
"""Around every text and every image."""


def generation_tokens(outline: Outline, tokenizer: Tokenizer, config: ModelConfig) -> int:
    """Of `prompts.generation_plan`, its caption not dropped."""
    words = tokenizer.encode(outline.caption.strip())
    caption = len(words) + _MARKERS if words else 0
    return caption + _latent_tokens(outline, config)


def detection_tokens(outline: Outline, tokenizer: Tokenizer, config: ModelConfig) -> int:
    """Of `prompts.detection_plan`."""
    answer = outline.explanation or answer_text(outline.fake)
    texts = sum(len(tokenizer.encode(text)) + _MARKERS for text in (QUESTION, answer))
    vit = _image_tokens(outline, config.vit_resize, config.vit.patch_size)
    return texts + vit + (_latent_tokens(outline, config) if config.smsa else 0)


def _latent_tokens(outline: Outline, config: ModelConfig) -> int:
    patch = config.vae.downsample * config.latent_patch_size
    return _image_tokens(outline, config.vae_resize, patch)


def _image_tokens(outline: Outline, rule: ResizeRule, patch: int) -> int:
    width, height = resized_size(outline.width, outline.height, rule)
    return (width // patch) * (height // patch) + _MARKERS
