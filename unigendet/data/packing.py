"""Samples become one packed sequence, with every random draw of the step (specification 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from unigendet.config import ModelConfig
from unigendet.models.attention import plan_attention, plan_images
from unigendet.models.positions import grid_position_ids
from unigendet.models.vision import patchify_pixels
from unigendet.types import AttentionMode, Markers, PackedBatch, Split

__all__ = ["ImageItem", "Markers", "SamplePlan", "TextItem", "pack"]


@dataclass(frozen=True, slots=True)
class TextItem:
    """A text block. `ids` are the words alone: packing adds bos and eos."""

    ids: Sequence[int]
    loss: bool = False
    """Whether each next token is learned, the first word from bos and eos from the last word."""
    dropout: float = 0.0
    """Probability to leave the text out, so that guidance has an unconditional branch."""
    end_label: int | None = None
    """A token to predict at the end marker."""


@dataclass(frozen=True, slots=True)
class ImageItem:
    """An image block: latents of the autoencoder (`vae`) or tokens of the image encoder (`vit`)."""

    kind: Literal["vae", "vit"]
    pixels: Tensor
    """(3, H, W) float32 in [-1, 1]; H and W are multiples of the latent or ViT patch."""
    loss: bool = False
    """Only `vae`: True is an image to generate (noised), False a clean one."""
    dropout: float = 0.0
    end_label: int | None = None


@dataclass(frozen=True, slots=True)
class SamplePlan:
    """The blocks of one sample, in order."""

    items: Sequence[TextItem | ImageItem]
    fake: bool | None = None
    """The verdict to learn at the first answer (text with loss); None: no verdict."""


def pack(
    plans: Sequence[SamplePlan],
    config: ModelConfig,
    markers: Markers,
    generator: torch.Generator | Sequence[torch.Generator],
) -> PackedBatch:
    """Pack samples one after another (specification 2).

    Every random number of the training step is drawn here, sample by sample: which conditions are
    dropped, timesteps, flow noise, and the noise of the autoencoder's posterior.

    Args:
        generator: what is drawn from: one for all samples, or one for each. With its own a sample
            gets the same draws whichever others it is packed with.

    Raises:
        ValueError: for an image whose size does not fit, a token outside the vocabulary, a verdict
            without an answer, or a pack without tokens.
    """
    packer = _Packer(config, markers)
    if isinstance(generator, torch.Generator):
        generator = [generator] * len(plans)
    for index, (plan, own) in enumerate(zip(plans, generator, strict=True)):
        try:
            packer.add(plan, own)
        except ValueError as error:
            raise ValueError(f"Sample {index} of the pack: {error}") from error
    return packer.finish()


@dataclass(slots=True)
class _Packer:
    """The pack so far, in lists; `finish` makes tensors of them."""

    config: ModelConfig
    markers: Markers
    length: int = 0
    positions: list[int] = field(default_factory=list)
    text_ids: list[int] = field(default_factory=list)
    text_indexes: list[int] = field(default_factory=list)
    ce_indexes: list[int] = field(default_factory=list)
    ce_labels: list[int] = field(default_factory=list)
    ce_weights: list[float] = field(default_factory=list)
    det_indexes: list[int] = field(default_factory=list)
    det_labels: list[int] = field(default_factory=list)
    vit_tokens: list[Tensor] = field(default_factory=list)
    vit_starts: list[int] = field(default_factory=list)
    vit_shapes: list[tuple[int, int]] = field(default_factory=list)
    images: list[Tensor] = field(default_factory=list)
    latent_starts: list[int] = field(default_factory=list)
    latent_shapes: list[tuple[int, int]] = field(default_factory=list)
    raw_timesteps: list[float] = field(default_factory=list)
    posterior_noise: list[Tensor] = field(default_factory=list)
    noise: list[Tensor] = field(default_factory=list)
    sample_splits: list[tuple[Split, ...]] = field(default_factory=list)

    def add(self, plan: SamplePlan, generator: torch.Generator) -> None:
        splits: list[Split] = []
        position = 0
        answer: int | None = None
        for item in plan.items:
            dropped = item.dropout > 0 and _uniform(generator) < item.dropout
            if isinstance(item, TextItem):
                if dropped:
                    continue
                if item.loss and answer is None:
                    answer = self.length
                splits.append(self._add_text(item, position))
                position += splits[-1].length
            else:
                if item.loss and plan.fake:
                    raise ValueError(
                        "flow matching learns from real images only, and this is fake."
                    )
                if not dropped:
                    splits.append(self._add_image(item, position, generator))
                # An image to generate leaves the position to what follows it.
                position += 0 if item.kind == "vae" and item.loss else 1
        if plan.fake is not None:
            if answer is None:
                raise ValueError("it has a verdict but no text with loss to read the verdict at.")
            self.det_indexes.append(answer)
            self.det_labels.append(0 if plan.fake else 1)
        if not splits:
            raise ValueError("it has no tokens.")
        self.sample_splits.append(tuple(splits))

    def _add_text(self, item: TextItem, position: int) -> Split:
        words = list(item.ids)
        if words and not 0 <= min(words) <= max(words) < self.config.llm.vocab_size:
            raise ValueError(
                f"a token id lies outside 0 .. {self.config.llm.vocab_size - 1}: the tokenizer "
                "does not belong to this model."
            )
        start, length = self.length, len(words) + 2
        self._add_words([self.markers.bos, *words, self.markers.eos], range(start, start + length))
        self.positions.extend(range(position, position + length))
        if item.loss:
            terms = len(words) + 1
            self.ce_indexes.extend(range(start, start + terms))
            self.ce_labels.extend([*words, self.markers.eos])
            self.ce_weights.extend([terms**-0.5] * terms)
        self._close(length, item.end_label)
        return Split(length, "causal")

    def _add_image(self, item: ImageItem, position: int, generator: torch.Generator) -> Split:
        mode: AttentionMode = "full"
        if item.kind == "vit":
            if item.loss:
                raise ValueError("a ViT image cannot be generated; only a VAE image can have loss.")
            shape = self._grid(item.pixels, self.config.vit.patch_size)
            self.vit_tokens.append(patchify_pixels(item.pixels, self.config.vit.patch_size))
            self.vit_starts.append(self.length + 1)
            self.vit_shapes.append(shape)
        else:
            patch = self.config.vae.downsample * self.config.latent_patch_size
            shape = self._grid(item.pixels, patch)
            self.images.append(item.pixels)
            self.latent_starts.append(self.length + 1)
            self.latent_shapes.append(shape)
            self._draw(item, generator)
            mode = "noise" if item.loss else "full"
        length = shape[0] * shape[1] + 2
        ends = (self.length, self.length + length - 1)
        self._add_words([self.markers.vision_start, self.markers.vision_end], ends)
        self.positions.extend([position] * length)
        self._close(length, item.end_label)
        return Split(length, mode)

    def _draw(self, item: ImageItem, generator: torch.Generator) -> None:
        """The timestep and the noises of an image for the autoencoder."""
        timestep = float(torch.randn((), generator=generator)) if item.loss else -torch.inf
        self.raw_timesteps.append(timestep)
        vae, patch = self.config.vae, self.config.latent_patch_size
        rows, columns = (side // vae.downsample for side in item.pixels.shape[1:])
        shape = (vae.latent_channels, rows, columns)
        self.posterior_noise.append(torch.randn(shape, generator=generator))
        tokens = (rows // patch) * (columns // patch)
        values = patch**2 * vae.latent_channels
        self.noise.append(torch.randn(tokens, values, generator=generator))

    def _grid(self, pixels: Tensor, patch: int) -> tuple[int, int]:
        if pixels.ndim != 3 or pixels.shape[0] != 3:
            raise ValueError(f"an image must be (3, H, W), not {tuple(pixels.shape)}.")
        height, width = pixels.shape[1:]
        if not height or not width or height % patch or width % patch:
            raise ValueError(f"an image of {width} x {height} is no multiple of its patch {patch}.")
        return height // patch, width // patch

    def _add_words(self, ids: Sequence[int], places: Sequence[int]) -> None:
        self.text_ids.extend(ids)
        self.text_indexes.extend(places)

    def _close(self, length: int, end_label: int | None) -> None:
        """Step over a block of `length`; its last token is the end marker."""
        self.length += length
        if end_label is not None:
            self.ce_indexes.append(self.length - 1)
            self.ce_labels.append(end_label)
            self.ce_weights.append(1.0)

    def finish(self) -> PackedBatch:
        if not self.length:
            raise ValueError("A pack needs at least one sample.")
        config = self.config
        text_indexes = torch.tensor(self.text_indexes)
        vit_indexes = _image_places(self.vit_starts, self.vit_shapes)
        latent_indexes = _image_places(self.latent_starts, self.latent_shapes)
        rows = torch.empty(self.length, dtype=torch.int64)
        rows[torch.cat([text_indexes, vit_indexes, latent_indexes])] = torch.arange(self.length)
        sizes = torch.tensor([h * w for h, w in self.latent_shapes], dtype=torch.int64)
        latent_images = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
        raw_timesteps = torch.tensor(self.raw_timesteps, dtype=torch.float32)
        flow_rows = (raw_timesteps > -torch.inf)[latent_images].nonzero().flatten()
        pixels = _padded(self.images, 3)
        ce_indexes = torch.tensor(self.ce_indexes, dtype=torch.int64)
        values = config.latent_patch_size**2 * config.vae.latent_channels
        vit_values = config.vit.patch_size**2 * config.vit.num_channels
        return PackedBatch(
            text_ids=torch.tensor(self.text_ids),
            text_indexes=text_indexes,
            position_ids=torch.tensor(self.positions),
            vit_tokens=torch.cat([torch.zeros(0, vit_values), *self.vit_tokens]),
            vit_indexes=vit_indexes,
            vit_position_ids=self._grid_ids(self.vit_shapes, config.vit.patches_per_side),
            vit_shapes=tuple(self.vit_shapes),
            pixels=pixels,
            posterior_noise=_padded(self.posterior_noise, config.vae.latent_channels),
            latent_shapes=tuple(self.latent_shapes),
            latent_indexes=latent_indexes,
            latent_position_ids=self._grid_ids(self.latent_shapes, config.max_latent_size),
            latent_images=latent_images,
            raw_timesteps=raw_timesteps,
            noise=torch.cat([torch.zeros(0, values), *self.noise]),
            flow_indexes=latent_indexes[flow_rows],
            flow_rows=flow_rows,
            ce_indexes=ce_indexes,
            ce_rows=rows[ce_indexes],
            ce_labels=torch.tensor(self.ce_labels, dtype=torch.int64),
            ce_weights=torch.tensor(self.ce_weights, dtype=torch.float32),
            det_rows=rows[torch.tensor(self.det_indexes, dtype=torch.int64)],
            det_labels=torch.tensor(self.det_labels, dtype=torch.int64),
            sample_lens=tuple(sum(s.length for s in splits) for splits in self.sample_splits),
            splits=tuple(self.sample_splits),
            attention=plan_attention(self.sample_splits, rows),
            vit_attention=plan_images(self.vit_shapes),
        )

    def _grid_ids(self, shapes: Sequence[tuple[int, int]], side: int) -> Tensor:
        known = {
            shape: grid_position_ids(*shape, side, interpolate=self.config.interpolate_pos)
            for shape in set(shapes)
        }
        return torch.cat([torch.zeros(0, dtype=torch.int64), *(known[shape] for shape in shapes)])


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def _padded(grids: Sequence[Tensor], channels: int) -> Tensor:
    """(n, channels, H, W): zero, mid grey for pixels, at the bottom and right (specification 2)."""
    height = max((grid.shape[1] for grid in grids), default=0)
    width = max((grid.shape[2] for grid in grids), default=0)
    padded = torch.zeros(len(grids), channels, height, width)
    for slot, grid in zip(padded, grids, strict=True):
        slot[:, : grid.shape[1], : grid.shape[2]] = grid
    return padded


def _image_places(starts: Sequence[int], shapes: Sequence[tuple[int, int]]) -> Tensor:
    places = [torch.arange(s, s + h * w) for s, (h, w) in zip(starts, shapes, strict=True)]
    return torch.cat([torch.zeros(0, dtype=torch.int64), *places])
