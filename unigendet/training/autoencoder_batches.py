"""Batches for the autoencoder: augmented crops with the draws of their posterior, by step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unigendet.config import AutoencoderConfig, ResizeRule
from unigendet.data.composition import Counts, Share
from unigendet.data.streams import SampleStream, draw_generator
from unigendet.data.transforms import to_pixels
from unigendet.training.autoencoder import AutoencoderBatch
from unigendet.types import Sample


class AutoencoderBatches:
    """`batches(step)`: this rank's part of `per_step` square crops, a function of seed and step.

    Args:
        samples: real images.
        crop: side of the crops in pixels, a multiple of the autoencoder's downsampling and at
            most the images' shorter side under `resize`.
        steps: the whole run, for the batch's `progress`.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        per_step: int,
        *,
        crop: int,
        config: AutoencoderConfig,
        resize: ResizeRule,
        steps: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if crop % config.downsample:
            raise ValueError(
                f"crop is {crop}; it must be a multiple of {config.downsample}, the pixels of one "
                "latent cell"
            )
        self._stream = SampleStream(samples, seed=seed)
        self._composition = Counts({"real": per_step}, Share(rank, world))
        self._crop, self._config, self._resize = crop, config, resize
        self._steps, self._seed = steps, seed

    def __call__(self, step: int) -> AutoencoderBatch:
        cells = self._crop // self._config.downsample
        shape = (self._config.latent_channels, cells, cells)
        pixels, noise = list[Tensor](), list[Tensor]()
        for _, position in self._composition.places(step):
            generator = draw_generator(self._seed, 0, position)
            pixels.append(self._cut(self._stream.at(position), generator))
            noise.append(torch.randn(shape, generator=generator))
        progress = step / self._steps
        return AutoencoderBatch(torch.stack(pixels), torch.stack(noise), progress)

    def _cut(self, sample: Sample, generator: torch.Generator) -> Tensor:
        """A random (3, crop, crop) window of the resized image."""
        pixels = to_pixels(sample.image, self._resize)
        spare = [side - self._crop for side in pixels.shape[1:]]
        if min(spare) < 0:
            raise ValueError(
                f"{sample.key}: the image is {pixels.shape[2]} x {pixels.shape[1]} pixels after "
                f"resizing, too small for crops of {self._crop}"
            )
        top, left = (int(torch.randint(room + 1, (), generator=generator)) for room in spare)
        return pixels[:, top : top + self._crop, left : left + self._crop]
