"""Blocks of tokens for cached inference: what B contexts read next, all at once (specification 8).

Every builder takes one entry per context. A context whose entry is None (or empty) reads nothing
in that step. A query knows positions only relative to a context's own next position, so one query
serves any cache with as many contexts: build an image query once, use it for every guidance branch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unigendet.config import ModelConfig
from unigendet.models.attention import plan_images
from unigendet.models.positions import grid_position_ids
from unigendet.models.vision import patchify_pixels
from unigendet.types import AttentionPlan, Markers, moved

Shape = tuple[int, int]
_NO_IDS = torch.zeros(0, dtype=torch.int64)
_NO_IMAGES = plan_images([])


@dataclass(frozen=True, slots=True)
class Query:
    """N tokens of B contexts: text, then ViT, then latent tokens, contexts in order within each."""

    text_ids: Tensor
    """(Nt,) int64."""
    vit_tokens: Tensor
    """(Nv, patch * patch * 3)."""
    vit_position_ids: Tensor
    """(Nv,) int64."""
    vit_attention: AttentionPlan
    x_t: Tensor
    """(Nl, p * p * z)."""
    timesteps: Tensor
    """(n,) float32 in [0, 1], one per latent image."""
    latent_images: Tensor
    """(Nl,) int64: the image of each latent token."""
    latent_position_ids: Tensor
    """(Nl,) int64."""
    contexts: Tensor
    """(N,) int64: the context of each token."""
    places: Tensor
    """(N,) int64: its place in the blocks padded to (B, width) and flattened."""
    offsets: Tensor
    """(N,) int64: its RoPE position past the context's next position."""
    filled: Tensor
    """(B, width) bool: which padded places hold a token."""
    advance: Tensor
    """(B,) int64: how far the block moves the context's next position."""
    causal: bool

    @property
    def width(self) -> int:
        """Tokens of the longest block."""
        return self.filled.shape[1]

    def at(self, x_t: Tensor, t: Tensor | float) -> Query:
        """The same image query with other latent tokens, all at timestep `t` (or (n,) of them)."""
        timesteps = torch.zeros_like(self.timesteps) + t
        return replace(self, x_t=x_t, timesteps=timesteps)

    def to(self, device: torch.device | str) -> Query:
        """A copy whose tensors are on `device`."""
        return moved(self, device)


def text_query(texts: Sequence[Sequence[int] | None]) -> Query:
    """A text block per context: ids with bos and eos in place; causal."""
    ids = [list(text or ()) for text in texts]
    lengths = torch.tensor([len(text) for text in ids])
    filled = torch.arange(max(1, int(lengths.max()))) < lengths[:, None]
    places = filled.flatten().nonzero().flatten()
    return _query(
        text_ids=torch.tensor([token for text in ids for token in text], dtype=torch.int64),
        places=places,
        offsets=places % filled.shape[1],
        filled=filled,
        advance=lengths,
        causal=True,
    )


def step_query(ids: Tensor) -> Query:
    """One token per context, `ids` (B,) int64: a step of decoding."""
    count = ids.shape[0]
    return _query(
        text_ids=ids,
        places=torch.arange(count),
        offsets=torch.zeros(count, dtype=torch.int64),
        filled=torch.ones(count, 1, dtype=torch.bool),
        advance=torch.ones(count, dtype=torch.int64),
        causal=True,
    ).to(ids.device)


def latent_query(
    tokens: Tensor,
    shapes: Sequence[Shape | None],
    config: ModelConfig,
    markers: Markers,
    t: Tensor | float = 0.0,
) -> Query:
    """An image of latent tokens per context, between its two markers; it sees itself whole.

    Args:
        tokens: (Nl, p * p * z), the contexts' images one after another (`patchify_latents`).
        shapes: (rows, columns) of each image in latent patches.
        t: the timestep of all images, or (n,) of them; 0 is a clean image.
    """
    present = [shape for shape in shapes if shape is not None]
    sizes = torch.tensor([rows * columns for rows, columns in present], dtype=torch.int64)
    query = _image_query(shapes, markers)
    return replace(
        query,
        x_t=tokens,
        timesteps=torch.zeros(len(present)) + t,
        latent_images=torch.repeat_interleave(torch.arange(len(present)), sizes),
        latent_position_ids=_grid_ids(present, config.max_latent_size, config),
    )


def vit_query(pixels: Sequence[Tensor | None], config: ModelConfig, markers: Markers) -> Query:
    """An image of ViT tokens per context, (3, H, W) in [-1, 1], between its two markers."""
    patch = config.vit.patch_size
    shapes = [None if p is None else (p.shape[1] // patch, p.shape[2] // patch) for p in pixels]
    present = [shape for shape in shapes if shape is not None]
    tokens = [patchify_pixels(image, patch) for image in pixels if image is not None]
    values = patch**2 * config.vit.num_channels
    return replace(
        _image_query(shapes, markers),
        vit_tokens=torch.cat([torch.zeros(0, values), *tokens]),
        vit_position_ids=_grid_ids(present, config.vit.patches_per_side, config),
        vit_attention=plan_images(present),
    )


def _image_query(shapes: Sequence[Shape | None], markers: Markers) -> Query:
    """Markers and places of one image per context; the image tokens follow the markers' rows."""
    sizes = torch.tensor([0 if shape is None else shape[0] * shape[1] + 2 for shape in shapes])
    width = max(1, int(sizes.max()))
    filled = torch.arange(width) < sizes[:, None]
    starts = (torch.arange(len(shapes)) * width)[sizes > 0]
    ends = starts + sizes[sizes > 0] - 1
    inner = filled.clone()
    inner[:, 0] = False
    inner.view(-1)[ends] = False
    places = torch.cat(
        [torch.stack([starts, ends], dim=1).flatten(), inner.flatten().nonzero().flatten()]
    )
    return _query(
        text_ids=torch.tensor([markers.vision_start, markers.vision_end]).repeat(len(starts)),
        places=places,
        offsets=torch.zeros_like(places),
        filled=filled,
        advance=(sizes > 0).long(),
        causal=False,
    )


def _query(
    *,
    text_ids: Tensor,
    places: Tensor,
    offsets: Tensor,
    filled: Tensor,
    advance: Tensor,
    causal: bool,
) -> Query:
    """A query without image tokens."""
    return Query(
        text_ids=text_ids,
        vit_tokens=torch.zeros(0, 0),
        vit_position_ids=_NO_IDS,
        vit_attention=_NO_IMAGES,
        x_t=torch.zeros(0, 0),
        timesteps=torch.zeros(0),
        latent_images=_NO_IDS,
        latent_position_ids=_NO_IDS,
        contexts=places // filled.shape[1],
        places=places,
        offsets=offsets,
        filled=filled,
        advance=advance,
        causal=causal,
    )


def _grid_ids(shapes: Sequence[Shape], side: int, config: ModelConfig) -> Tensor:
    ids = [grid_position_ids(*shape, side, interpolate=config.interpolate_pos) for shape in shapes]
    return torch.cat([_NO_IDS, *ids])
