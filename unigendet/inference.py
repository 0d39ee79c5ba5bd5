"""The public way to use a trained model: detect and explain images, generate images.

model = UniGenDet.from_pretrained("outputs/model")
for found in model.detect(["photo.jpg", "other.png"]):
    print(found.score, found.fake, found.explanation)
images = model.generate(["pale desert"], seed=1)        # [(H, W, 3) uint8]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from unigendet.config import (
    DEFAULT_GUIDANCE,
    DEFAULT_STEPS,
    DEFAULT_TIMESTEP_SHIFT,
    ModelConfig,
)
from unigendet.data.image_files import ImageError, read_image
from unigendet.data.prompts import QUESTION, Picture, caption_context, detection_context
from unigendet.data.tokenizer import Tokenizer
from unigendet.data.transforms import as_rgb, to_image
from unigendet.decoding import DecodingConfig, decode_answers
from unigendet.flow import unpatchify_latents
from unigendet.models.pretrained import load_pretrained
from unigendet.models.unified import UniGenDetModel
from unigendet.models.vae import LatentAutoencoder
from unigendet.prefill import read_contexts
from unigendet.sampling import Guidance, SamplerConfig, flow_steps, guidance_contexts

Progress = Callable[[int, int], None]
"""Called with how much is done, and of how much."""


@dataclass(frozen=True, slots=True)
class Detection:
    """What the detector says of one image."""

    score: float
    """P(fake) in [0, 1], from the verdict head."""
    fake: bool
    """Whether the score is above one half."""
    explanation: str
    """The decoded answer, its own verdict first; empty where none was asked for."""


class UniGenDet:
    """A model with its autoencoder and tokenizer, ready for use.

    Results depend on the image (or prompt, seed and place in the list) alone: images are read as
    their posterior mean, and batches change nothing but rounding.
    """

    def __init__(self, model: UniGenDetModel, vae: LatentAutoencoder, tokenizer: Tokenizer) -> None:
        self.model, self.vae, self.tokenizer = model, vae, tokenizer

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str | torch.device = "cpu") -> Self:
        """Load a model folder. Raises ValueError where it, or the device, cannot be used."""
        try:
            target = torch.device(device)
            torch.empty(0, device=target)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"device {device!s} cannot be used here: {error}") from error
        loaded = load_pretrained(folder)
        return cls(loaded.model.to(target), loaded.vae.to(target), loaded.tokenizer)

    @property
    def config(self) -> ModelConfig:
        return self.model.config

    def detect(
        self,
        images: Sequence[Picture | str | Path],
        *,
        explain: bool = True,
        batch_size: int = 32,
        question: str = QUESTION,
        max_tokens: int = 128,
        progress: Progress | None = None,
    ) -> list[Detection]:
        """Judge images: paths, Pillow images or (H, W, 3) uint8 RGB arrays, in their order.

        Args:
            explain: decode the answer too, at most `max_tokens` tokens, greedily.

        Raises ImageError (a ValueError) naming the first image that cannot be read.
        """
        if isinstance(images, str | Path | Image.Image):
            raise ValueError("detect takes a list of images; put the one image into a list")
        decoding = DecodingConfig(max_tokens=max_tokens if explain else 0)
        markers = self.tokenizer.markers
        found: list[Detection] = []
        for start in _starts(len(images), batch_size):
            batch = images[start : start + batch_size]
            contexts = [
                detection_context(
                    _opened(image, start + index),
                    self.tokenizer,
                    self.config,
                    question=question,
                )
                for index, image in enumerate(batch)
            ]
            room = max(1, decoding.max_tokens)
            cache = read_contexts(self.model, self.vae, markers, contexts, room=room)
            answers = decode_answers(self.model, cache, markers, decoding)
            _refuse_not_finite(answers.det_logits)
            for score, ids in zip(answers.scores.tolist(), answers.ids, strict=True):
                found.append(Detection(score, score > 0.5, self.tokenizer.decode(ids).strip()))
            if progress is not None:
                progress(len(found), len(images))
        return found

    def generate(
        self,
        prompts: Sequence[str],
        *,
        size: tuple[int, int] | None = None,
        steps: int = DEFAULT_STEPS,
        guidance: float | Guidance = DEFAULT_GUIDANCE,
        timestep_shift: float = DEFAULT_TIMESTEP_SHIFT,
        seed: int = 0,
        batch_size: int = 32,
        progress: Progress | None = None,
    ) -> list[NDArray[np.uint8]]:
        """One (H, W, 3) uint8 image per prompt.

        Args:
            prompts: a blank one asks for any image.
            size: (height, width) in pixels; the largest trained square where None.
            steps: Euler steps from noise to image.
            guidance: the text scale (1 or less: none), or all of `Guidance`.
            timestep_shift: above 1 spends more steps near noise; the published value is 3.
            seed: image i starts from noise of (seed, i).
        """
        if isinstance(prompts, str):
            raise ValueError("generate takes a list of prompts; put the one prompt into a list")
        if not isinstance(guidance, Guidance):
            guidance = Guidance(text_scale=guidance)
        sampler = SamplerConfig(steps, timestep_shift, guidance)
        shape = self._latent_shape(size)
        markers = self.tokenizer.markers
        device = self.model.llm2vae.weight.device
        images: list[NDArray[np.uint8]] = []
        for start in _starts(len(prompts), batch_size):
            batch = prompts[start : start + batch_size]
            context = [caption_context(prompt, self.tokenizer) for prompt in batch]
            contexts = guidance_contexts(self.model, self.vae, markers, context)
            noise = [self._noise(seed, start + index, shape) for index in range(len(batch))]
            x_t = torch.cat(noise).to(device)
            euler = flow_steps(self.model, markers, contexts, x_t, [shape] * len(batch), sampler)
            for done, step in enumerate(euler, start=1):
                x_t = step.x_next
                if progress is not None:
                    progress(start * steps + done * len(batch), len(prompts) * steps)
            _refuse_not_finite(x_t)
            latents = unpatchify_latents(x_t, shape, self.config.latent_patch_size)
            with torch.no_grad():
                images.extend(to_image(self.vae.decode(latents)))
        return images

    def _latent_shape(self, size: tuple[int, int] | None) -> tuple[int, int]:
        """(rows, columns) in latent patches of a size in pixels."""
        config = self.config
        cell = config.vae.downsample * config.latent_patch_size
        height, width = size or (config.vae_resize.max_size // cell * cell,) * 2
        most = config.max_latent_size * cell
        if height % cell or width % cell or min(height, width) < cell:
            raise ValueError(f"sizes are multiples of {cell} pixels, got {height} x {width}")
        if max(height, width) > most and not config.interpolate_pos:
            raise ValueError(
                f"this model draws at most {most} pixels a side, got {height} x {width}"
            )
        return height // cell, width // cell

    def _noise(self, seed: int, index: int, shape: tuple[int, int]) -> Tensor:
        """(rows * columns, p * p * z): drawn on the CPU, the same on every device."""
        values = self.config.latent_patch_size**2 * self.config.vae.latent_channels
        state = int(np.random.SeedSequence((seed, index)).generate_state(1, np.uint64)[0])
        generator = torch.Generator().manual_seed(state >> 1)  # torch takes a signed 64-bit seed
        return torch.randn(shape[0] * shape[1], values, generator=generator)


def _opened(image: Picture | str | Path, index: int) -> Image.Image:
    """The image in RGB. Raises ImageError with its path, or its place in the list."""
    if isinstance(image, str | Path):
        return read_image(image)
    try:
        return as_rgb(image)
    except ImageError as error:
        raise ImageError(f"images[{index}]: {error}") from error


def _refuse_not_finite(values: Tensor) -> None:
    if not bool(values.isfinite().all()):
        raise ValueError("the model gives values that are no numbers: its weights are damaged")


def _starts(count: int, batch_size: int) -> range:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    return range(0, count, batch_size)
