"""How much arithmetic the model's mathematics needs; a multiplication and an addition are 2 FLOPs.

A token costs 2 FLOPs forward for every weight of the linear layers that it goes through (its active
parameters), and a query-key pair that no mask hides 4 x width in every layer (score and weighted
sum). Backward costs twice the forward, so a training step takes

    6 x active parameters x tokens  +  12 x layers x width x visible pairs.

Nothing else counts: no padding, hidden pairs, recomputation, norms, softmax or optimizer. Tokens
that are only read into a cache need keys and values of the last layer, and no more of it counts.
The autoencoder has convolutions instead of tokens, so it is measured apart (`autoencoder_flops`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from unigendet.models.attention import sample_mask
from unigendet.models.unified import UniGenDetModel
from unigendet.types import Encoder, PackedBatch, Split


@dataclass(frozen=True, slots=True)
class Part:
    """Linear layers, and how many tokens go through them."""

    active: int
    """Weights, biases not counted."""
    tokens: int


@dataclass(frozen=True, slots=True)
class Work:
    """The arithmetic of one forward."""

    parts: dict[str, Part]
    attention: int
    """FLOPs of all visible query-key pairs."""

    @property
    def forward(self) -> int:
        return 2 * sum(part.active * part.tokens for part in self.parts.values()) + self.attention

    @property
    def training(self) -> int:
        """Forward and backward."""
        return 3 * self.forward


def pack_work(model: UniGenDetModel, batch: PackedBatch) -> Work:
    """The work of `model(batch)`."""
    return model_work(
        model,
        batch.splits,
        batch.vit_shapes,
        latents=len(batch.latent_indexes),
        images=len(batch.latent_shapes),
        velocities=len(batch.flow_rows),
        logits=len(batch.ce_rows),
        verdicts=len(batch.det_rows),
    )


def model_work(
    model: UniGenDetModel,
    samples: Sequence[Sequence[Split]],
    vit_shapes: Sequence[tuple[int, int]],
    *,
    latents: int,
    images: int,
    velocities: int = 0,
    logits: int = 0,
    verdicts: int = 0,
    only_read: int = 0,
) -> Work:
    """The work of reading samples of these blocks, in one forward or block by block.

    Args:
        vit_shapes: (rows, columns) in patches of every image that the image encoder reads.
        latents: how many of the samples' tokens are latent ones, of `images` images.
        velocities: at how many latent tokens a velocity is predicted.
        logits: at how many tokens the next word is.
        verdicts: at how many tokens the verdict is.
        only_read: so many leading blocks of each sample, all latents among them, go into a cache
            and their hidden states nowhere: of the last layer they need keys and values alone.
    """
    config, language = model.config, model.language_model
    generation = sum(
        _weights(module)
        for layer in language.model.layers
        for name, module in layer.named_modules()
        if name.endswith("_moe_gen")
    )
    understanding = _weights(language.model.layers) - generation
    kv_width = config.llm.num_key_value_heads * config.llm.head_dim
    layers = config.llm.num_hidden_layers
    # Of each expert in one layer, all that is no key and no value.
    beyond = generation // layers - 2 * config.llm.hidden_size * kv_width
    reading = [tuple(splits[:only_read]) for splits in samples]
    read = sum(split.length for splits in reading for split in splits)
    read_latents = latents if only_read else 0
    words = sum(split.length for splits in samples for split in splits) - latents
    patches = [rows * columns for rows, columns in vit_shapes]
    pairs = layers * _visible(samples) - _visible(reading)
    vit_pairs = sum(count**2 for count in patches)
    return Work(
        parts={
            "understanding expert": Part(understanding, words - (read - read_latents)),
            "generation expert": Part(generation, latents - read_latents),
            "understanding expert, read only": Part(understanding - beyond, read - read_latents),
            "generation expert, read only": Part(generation - beyond, read_latents),
            "image encoder": Part(
                _weights(model.vit_model) + _weights(model.connector), sum(patches)
            ),
            "latents in": Part(_weights(model.vae2llm), latents),
            "timesteps in": Part(_weights(model.time_embedder), images),
            "velocities out": Part(_weights(model.llm2vae), velocities),
            "words out": Part(_weights(language.lm_head), logits),
            "verdicts out": Part(_weights(model.fake_cls_head), verdicts),
        },
        attention=4 * pairs * config.llm.hidden_size
        + 4 * vit_pairs * config.vit.hidden_size * config.vit.num_hidden_layers,
    )


def autoencoder_flops(vae: Encoder, pixels: Tensor) -> int:
    """What encoding these images takes, forward only: the autoencoder is frozen."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        vae.encode(pixels)
    return int(counter.get_total_flops())


def _visible(samples: Sequence[Sequence[Split]]) -> int:
    """Query-key pairs of one layer that no mask hides."""
    return sum(
        count * int(sample_mask(splits).sum())
        for splits, count in Counter(tuple(splits) for splits in samples).items()
        if splits
    )


def _weights(module: nn.Module) -> int:
    return sum(part.weight.numel() for part in module.modules() if isinstance(part, nn.Linear))
