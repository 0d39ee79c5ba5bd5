"""Images from noise: Euler steps of the flow with guidance by text and image (specification 8)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from unigendet.data.packing import TextItem
from unigendet.flow import shift_timestep
from unigendet.models.cache import KVCache
from unigendet.models.queries import latent_query
from unigendet.models.unified import UniGenDetModel
from unigendet.prefill import Item, read_contexts
from unigendet.types import Encoder, Markers

Renorm = Literal["image", "global", "channel", "text_channel"]
"""Over what the guided velocity's length is held against the conditional one's: each image, all
images of the query together (as published: an image then depends on its neighbours), each token, or
each token before image guidance."""


@dataclass(frozen=True, slots=True)
class Guidance:
    """Classifier-free guidance. A text scale of 1 or less turns it off, image guidance included."""

    text_scale: float = 4.0
    image_scale: float = 1.0
    interval: tuple[float, float] = (0.0, 1.0)
    """Guidance holds at timesteps `low < t <= high`, after the shift."""
    renorm: Renorm = "image"
    renorm_min: float = 0.0
    """The guided velocity is shortened at most to this share of its length."""

    def __post_init__(self) -> None:
        low, high = self.interval
        if not 0 <= low <= high <= 1:
            raise ValueError(f"the guidance interval must lie in [0, 1], got {self.interval}")
        if not 0 <= self.renorm_min <= 1:
            raise ValueError(f"renorm_min must be in [0, 1], got {self.renorm_min}")

    def holds(self, t: float) -> bool:
        """Whether the velocity at timestep `t` is guided."""
        low, high = self.interval
        return self.text_scale > 1 and low < t <= high


@dataclass(frozen=True, slots=True)
class SamplerConfig:
    """The solver. `steps` Euler steps; the published N timesteps are N - 1 steps."""

    steps: int = 49
    timestep_shift: float = 3.0
    guidance: Guidance = field(default_factory=Guidance)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"sampling needs at least 1 step, got {self.steps}")
        if not self.timestep_shift > 0:
            raise ValueError(f"timestep_shift must be positive, got {self.timestep_shift}")

    def timesteps(self) -> Tensor:
        """(steps + 1,) float32 from 1 (noise) to 0 (data), shifted towards noise."""
        return shift_timestep(torch.linspace(1, 0, self.steps + 1), self.timestep_shift)


@dataclass(frozen=True, slots=True)
class GuidanceContexts:
    """The caches that velocities are predicted from, each of the same number of images."""

    cond: KVCache
    text: KVCache
    """Everything but the last text: where guidance by text leads away from."""
    image: KVCache | None
    """Everything but images; None where there are none, and so it equals `cond`."""


@dataclass(frozen=True, slots=True)
class FlowStep:
    """One Euler step of all images, (Nl, p * p * z) each, images one after another."""

    t: float
    x_t: Tensor
    velocity: Tensor
    """Guided."""
    cond: Tensor
    text: Tensor | None
    """The branch's own velocity; None where guidance is off."""
    image: Tensor | None
    x_next: Tensor


def guidance_contexts(
    model: UniGenDetModel,
    vae: Encoder,
    markers: Markers,
    contexts: Sequence[Sequence[Item]],
    posterior_noise: Sequence[Tensor] | None = None,
) -> GuidanceContexts:
    """Read the conditions of each image: texts, and for editing images (VAE, then ViT each).

    `posterior_noise` as in `read_contexts`.
    """
    texts = [[item for item in items if isinstance(item, TextItem)] for items in contexts]
    without_last = [
        items[:-1] if items and isinstance(items[-1], TextItem) else items for items in contexts
    ]
    has_images = any(len(text) < len(items) for text, items in zip(texts, contexts, strict=True))
    return GuidanceContexts(
        cond=read_contexts(model, vae, markers, contexts, posterior_noise),
        text=read_contexts(model, vae, markers, without_last, posterior_noise),
        image=read_contexts(model, vae, markers, texts) if has_images else None,
    )


def flow_steps(
    model: UniGenDetModel,
    markers: Markers,
    contexts: GuidanceContexts,
    noise: Tensor,
    shapes: Sequence[tuple[int, int]],
    config: SamplerConfig,
) -> Iterator[FlowStep]:
    """Go from noise to data, `config.steps` steps.

    Args:
        contexts: B images' conditions.
        noise: (Nl, p * p * z), x_t at t = 1, the images' latent tokens one after another.
        shapes: (rows, columns) of each image in latent patches.
    """
    guidance = config.guidance
    caches = [contexts.cond, contexts.text]
    if contexts.image is not None and guidance.image_scale > 1:
        caches.append(contexts.image)
    joined = KVCache.join(caches) if guidance.text_scale > 1 else None
    device = noise.device
    plain_query = latent_query(noise.cpu(), shapes, model.config, markers).to(device)
    joined_query = latent_query(
        noise.cpu().repeat(len(caches), 1), [*shapes] * len(caches), model.config, markers
    ).to(device)
    sizes = [rows * columns for rows, columns in shapes]
    images = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)).to(device)

    x_t, timesteps = noise, config.timesteps().tolist()
    for t, t_next in itertools.pairwise(timesteps):
        if joined is not None and guidance.holds(t):
            query = joined_query.at(x_t.repeat(len(caches), 1), t)
            hidden = model.forward_cached(query, joined, store=False).gen
            with torch.no_grad():
                cond, text, *rest = model.velocity(hidden).float().chunk(len(caches))
            # Without images the image branch has read the same as the conditional one.
            image = rest[0] if rest else cond
            velocity = guided_velocity(cond, text, image, images, guidance)
        else:
            hidden = model.forward_cached(plain_query.at(x_t, t), contexts.cond, store=False).gen
            with torch.no_grad():
                cond = model.velocity(hidden).float()
            velocity, text, image = cond, None, None
        x_next = x_t - velocity * (t - t_next)
        yield FlowStep(t, x_t, velocity, cond, text, image, x_next)
        x_t = x_next


def guided_velocity(
    cond: Tensor, text: Tensor, image: Tensor, images: Tensor, guidance: Guidance
) -> Tensor:
    """Combine the branches' velocities (Nl, C); `images` (Nl,) is the image of each token."""
    velocity = text + guidance.text_scale * (cond - text)
    if guidance.renorm == "text_channel":
        velocity = _shortened(velocity, cond, images, "channel", guidance.renorm_min)
    if guidance.image_scale > 1:
        velocity = image + guidance.image_scale * (velocity - image)
    if guidance.renorm != "text_channel":
        velocity = _shortened(velocity, cond, images, guidance.renorm, guidance.renorm_min)
    return velocity


def _shortened(
    velocity: Tensor, cond: Tensor, images: Tensor, over: Renorm, least: float
) -> Tensor:
    """`velocity` brought down to the length of `cond`, but to no less than `least` of its own."""
    scale = _norm(cond, images, over) / (_norm(velocity, images, over) + 1e-8)
    return velocity * scale.clamp(least, 1.0)


def _norm(velocity: Tensor, images: Tensor, over: Renorm) -> Tensor:
    """Euclidean norm per token (Nl, 1), or per image, or of everything, broadcast to tokens."""
    squared = velocity.square().sum(dim=1)  # (Nl,)
    if over == "global":
        return squared.sum().sqrt()
    if over == "image":
        count = int(images.max()) + 1
        squared = squared.new_zeros(count).index_add_(0, images, squared)[images]
    return squared.sqrt()[:, None]
