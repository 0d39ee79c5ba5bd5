"""Reading contexts into a cache before anything is decoded or sampled (specification 8)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from unigendet.data.packing import ImageItem, TextItem
from unigendet.flow import patchify_latents
from unigendet.models.cache import KVCache
from unigendet.models.queries import Query, latent_query, text_query, vit_query
from unigendet.models.unified import UniGenDetModel
from unigendet.types import Encoder, Markers

Item = TextItem | ImageItem

_ENCODED_TOGETHER = 8
"""Images that the autoencoder takes at once: it gains nothing by more, and its activations are the
largest of all."""


@torch.no_grad()
def read_contexts(
    model: UniGenDetModel,
    vae: Encoder,
    markers: Markers,
    contexts: Sequence[Sequence[Item]],
    posterior_noise: Sequence[Tensor] | None = None,
    *,
    room: int = 0,
) -> KVCache:
    """A cache whose context i has read the items of `contexts[i]` in order, nothing where empty.

    The contexts advance together, as many at once as read the same kind of block next, so they may
    differ in kind, number and size of their items. Latents are clean (t = 0) and the posterior's
    mean, so that what is read depends on the image alone; `posterior_noise`, one (z, h, w) per
    `vae` image in order of contexts, asks for those draws instead. `room` entries are left free for
    the words of an answer, which spares a larger copy of the cache later.
    """
    cache = model.new_cache(len(contexts))
    device = cache.valid.device
    latents = iter(_latents(vae, contexts, posterior_noise, device))
    tokens = [
        [next(latents) if _kind(item) == "vae" else None for item in items] for items in contexts
    ]
    done = [0] * len(contexts)
    queries = list[Query]()
    while any(done[i] < len(items) for i, items in enumerate(contexts)):
        heads = [
            items[place] if place < len(items) else None
            for items, place in zip(contexts, done, strict=True)
        ]
        kind = next(_kind(item) for item in heads if item is not None)
        now = [item if item is not None and _kind(item) == kind else None for item in heads]
        images = [tokens[i][done[i]] if item is not None else None for i, item in enumerate(now)]
        queries.append(_query(model, markers, kind, now, images))
        done = [place + (item is not None) for place, item in zip(done, now, strict=True)]
    cache.reserve(sum(query.width for query in queries) + room)
    for query in queries:
        model.read(query.to(device), cache)
    return cache


def _kind(item: Item) -> str:
    return "text" if isinstance(item, TextItem) else item.kind


def _query(
    model: UniGenDetModel,
    markers: Markers,
    kind: str,
    items: Sequence[Item | None],
    latents: Sequence[Tensor | None],
) -> Query:
    """One block per context, all of one kind; None reads nothing."""
    config = model.config
    if kind == "text":
        return text_query(
            [
                [markers.bos, *item.ids, markers.eos] if isinstance(item, TextItem) else None
                for item in items
            ]
        )
    if kind == "vit":
        return vit_query(
            [item.pixels if isinstance(item, ImageItem) else None for item in items],
            config,
            markers,
        )
    patch = config.latent_patch_size
    shapes = [None if z is None else (z.shape[1] // patch, z.shape[2] // patch) for z in latents]
    tokens = [
        patchify_latents(z[None], [shape], patch)
        for z, shape in zip(latents, shapes, strict=True)
        if z is not None and shape is not None
    ]
    return latent_query(torch.cat(tokens).cpu(), shapes, config, markers)


def _latents(
    vae: Encoder,
    contexts: Sequence[Sequence[Item]],
    posterior_noise: Sequence[Tensor] | None,
    device: torch.device,
) -> Iterator[Tensor]:
    """(z, h, w) of every `vae` image in order; images of one size are encoded in groups."""
    pixels = [
        item.pixels
        for items in contexts
        for item in items
        if isinstance(item, ImageItem) and item.kind == "vae"
    ]
    if posterior_noise is not None and len(posterior_noise) != len(pixels):
        raise ValueError(
            f"{len(pixels)} images need as many posterior draws, got {len(posterior_noise)}"
        )
    found: dict[int, Tensor] = {}
    for size in dict.fromkeys(image.shape for image in pixels):
        members = [i for i, image in enumerate(pixels) if image.shape == size]
        for start in range(0, len(members), _ENCODED_TOGETHER):
            group = members[start : start + _ENCODED_TOGETHER]
            noise = None
            if posterior_noise is not None:
                noise = torch.stack([posterior_noise[i] for i in group]).to(device)
            # On a CPU, convolutions and their norms take a quarter less with the channels last.
            images = torch.stack([pixels[i] for i in group])
            images = images.to(device, memory_format=torch.channels_last)
            found.update(zip(group, vae.encode(images, noise), strict=True))
    return (found[i] for i in range(len(pixels)))
