"""How many numbers a model has, which of them learn, and how many one of several GPUs holds."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn

from unigendet.config import AutoencoderConfig, ModelConfig
from unigendet.models.unified import UniGenDetModel
from unigendet.models.vae import LatentAutoencoder
from unigendet.planning.activations import Learning
from unigendet.training.optim import select_trainable

_NEVER_USED = "latent_to_vit_connector."
"""Part of published checkpoints only: it gets no gradient, so neither gradient nor moments exist.
"""
_DECODER = "language_model.model.layers."
_WITHOUT_VIT = ("vit_model.", "connector.")
"""What gets no gradient from packs without image-encoder tokens."""


@dataclass(frozen=True, slots=True)
class ParameterCounts:
    """Elements. What a GPU holds is that of the first, which has the largest shards."""

    total: int
    trainable: int
    buffers: int
    """The fixed position tables; every GPU holds them whole."""
    held: int
    """Of `total`, on one GPU."""
    held_trainable: int
    held_touched: int
    """Trainable ones on one GPU that get a gradient, and with it optimizer moments."""
    touched_tensors: int
    block: int
    """The largest decoder or image-encoder block: what is gathered and recomputed at once."""
    block_trainable: int
    """Of the block with most of them."""
    root: int
    """What lies in no block: embedding, heads, connectors."""
    root_trainable: int
    embedding: int
    """The word embedding, which is looked up, not multiplied: autocast makes no copy of it."""
    learning: Learning


def count_parameters(
    config: ModelConfig, trainable: Sequence[str] = (), *, shards: int = 1, with_vit: bool = True
) -> ParameterCounts:
    """Count the parameters of a model without making it.

    Args:
        trainable: regular expressions as in `OptimConfig`; none: everything is frozen.
        shards: GPUs that share every tensor along its first dimension; 1 shares none.
        with_vit: whether image-encoder tokens are ever read in this phase.

    Raises ValueError where a pattern matches nothing.
    """
    model = _model_without_storage(config)
    learning = set(select_trainable(model, trainable)) if trainable else set()
    untouched = (_NEVER_USED,) if with_vit else (_NEVER_USED, *_WITHOUT_VIT)
    blocks = [*_blocks(model)]
    inside = {id(p) for block in blocks for p in block.parameters()}
    total = held = held_trainable = held_touched = tensors = root = root_trainable = 0
    for name, parameter in model.named_parameters():
        share = -(-parameter.shape[0] // shards) * (parameter.numel() // parameter.shape[0])
        learns = name in learning
        total += parameter.numel()
        held += share
        held_trainable += share * learns
        if learns and not name.startswith(untouched):
            held_touched += share
            tensors += 1
        if id(parameter) not in inside:
            root += parameter.numel()
            root_trainable += parameter.numel() * learns
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return ParameterCounts(
        total=total,
        trainable=sum(p.numel() for n, p in model.named_parameters() if n in learning),
        buffers=sum(buffer.numel() for buffer in model.buffers()),
        held=held,
        held_trainable=held_trainable,
        held_touched=held_touched,
        touched_tensors=tensors,
        block=max(sum(p.numel() for p in block.parameters()) for block in blocks),
        block_trainable=max(
            sum(p.numel() for p in block.parameters() if names[id(p)] in learning)
            for block in blocks
        ),
        root=root,
        root_trainable=root_trainable,
        embedding=model.language_model.model.embed_tokens.weight.numel(),
        learning=_learning(learning),
    )


@lru_cache(maxsize=4)
def _model_without_storage(config: ModelConfig) -> UniGenDetModel:
    with torch.device("meta"):
        return UniGenDetModel(config)


@lru_cache(maxsize=4)
def count_autoencoder(config: AutoencoderConfig) -> int:
    """Elements of the autoencoder."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in LatentAutoencoder(config).parameters())


def _learning(names: Collection[str]) -> Learning:
    inside = [name for name in names if name.startswith(_DECODER)]
    return Learning(
        und=any("_moe_gen" not in name for name in inside),
        gen=any("_moe_gen" in name for name in inside),
        vit=any(name.startswith("vit_model.") for name in names),
    )


def _blocks(model: UniGenDetModel) -> list[nn.Module]:
    return [*model.language_model.model.layers, *model.vit_model.vision_model.encoder.layers]
