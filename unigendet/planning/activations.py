"""What autograd keeps of a forward, by counting the tensors that each layer saves.

Widths: H hidden, Q = heads x D = H, K = key/value heads x D, I intermediate, W and J the image
encoder's hidden and intermediate. In float32 every number takes 4 bytes. In bfloat16 (autocast
over float32 weights) the residual stream and the norms stay in float32, and every linear layer
saves a bfloat16 copy of its own input.

A decoder layer keeps, of each token:

    part                                    float32         bfloat16
    both norms' inputs and normed rows      4 H x 4         4 H x 4
    inputs of q, k, v, gate, up, o          2 H x 4 (+ o)   6 H x 2
    q and k before and after their norm     2 (Q + K) x 4   (Q + K) x (4 + 2)
    gate, its silu, up, the product         4 I x 4         4 I x 2
    attention's output                      Q x 4           (o's input above)
    at every place of attention's buckets: q, k, v, output, and one log-sum per head

and of an image encoder layer: inputs and outputs of both norms, of the attention and of the MLP.
A frozen expert keeps no inputs of its linear layers and no normed rows: 2 H, Q + K and 3 I remain,
through which gradients pass on; a frozen image encoder keeps nothing. With recomputation a block
keeps the tokens that enter it, and one block at a time keeps the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unigendet.config import ModelConfig
from unigendet.planning.packs import PackShape

Precision = Literal["fp32", "bf16"]
WIDE = 4
"""Bytes of a float32."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """Bytes of a number where it matters."""

    linear: int
    """Inputs and outputs of linear layers."""
    attention: int
    """Queries, keys and values as the attention's kernel gets them."""


def numbers(precision: Precision, device: Literal["cuda", "cpu"] = "cuda") -> Numbers:
    """What autocast makes of them; on a CPU the attention stays out of it (`models.attention`)."""
    linear = 2 if precision == "bf16" else WIDE
    return Numbers(linear, linear if device == "cuda" else WIDE)


@dataclass(frozen=True, slots=True)
class Activations:
    """Bytes kept from the forward to the backward, and what the backward needs beside them."""

    blocks: int
    """Of all decoder and image encoder layers."""
    masks: int
    """Attention masks, shared by all layers."""
    ends: int
    """Before the first layer and after the last, heads and losses without the vocabulary."""
    logits: int
    """Next-token logits and their log-probabilities."""
    recomputed: int
    """One block's own tensors, where blocks are recomputed; 0 where all are kept."""
    gradients: int
    """Gradients of activations, at the widest moment."""

    @property
    def kept(self) -> int:
        return self.blocks + self.masks + self.ends + self.logits

    @property
    def working(self) -> int:
        return self.recomputed + self.gradients


@dataclass(frozen=True, slots=True)
class Learning:
    """Which parts have weights that learn."""

    und: bool = True
    """The understanding expert."""
    gen: bool = True
    """The generation expert."""
    vit: bool = True
    """The image encoder."""


def activations(
    config: ModelConfig,
    pack: PackShape,
    number: Numbers,
    learning: Learning,
    *,
    recompute: bool,
    taps: bool = False,
) -> Activations:
    """The activations of one forward over a pack; `taps`: the alignment head reads it as well."""
    width, vit_width = config.llm.hidden_size, config.vit.hidden_size
    layers, vit_layers = config.llm.num_hidden_layers, config.vit.num_hidden_layers
    decoder = decoder_block(config, pack, number, learning)
    encoder = vit_block(config, pack, number) if learning.vit else 0
    if recompute:
        patches = pack.vit if learning.vit else 0
        blocks = WIDE * (layers * width * pack.tokens + vit_layers * vit_width * patches)
        recomputed = max(decoder, encoder)
    else:
        blocks, recomputed = layers * decoder + vit_layers * encoder, 0
    vocabulary = pack.answers * config.llm.vocab_size
    widest = max(
        _flow_back(width, config.llm.intermediate_size, pack.tokens, pack, number),
        _flow_back(vit_width, config.vit.intermediate_size, pack.vit, pack, number),
        vocabulary * (WIDE + number.linear),
    )
    return Activations(
        blocks=blocks,
        masks=masks(pack),
        ends=_ends(config, pack, number) + taps * pack.flow * 10 * width * number.linear,
        logits=vocabulary * (WIDE + number.linear),
        recomputed=recomputed,
        gradients=widest,
    )


def masks(pack: PackShape) -> int:
    """Bytes of a pack's attention masks: as they come, and as what is added to the scores."""
    return pack.pairs * (1 + WIDE)


def decoder_block(config: ModelConfig, pack: PackShape, number: Numbers, learning: Learning) -> int:
    """Bytes that one decoder layer keeps."""
    llm = config.llm
    width, key_width = llm.hidden_size, llm.num_key_value_heads * llm.head_dim
    und, gen = (_token(config, number, learns) for learns in (learning.und, learning.gen))
    # A mask that is cast for the kernel is saved by every layer.
    cast_masks = pack.pairs * number.attention if number.attention != WIDE else 0
    place = number.attention * (2 * width + 2 * key_width) + WIDE * llm.num_attention_heads
    return und * pack.und + gen * pack.latents + place * pack.places + cast_masks


def _token(config: ModelConfig, number: Numbers, learns: bool) -> int:
    """Bytes that one decoder layer keeps of a token, beside the attention."""
    llm = config.llm
    width, inner = llm.hidden_size, llm.intermediate_size
    heads = width + llm.num_key_value_heads * llm.head_dim  # q and k
    if not learns:
        return WIDE * (2 * width + heads) + number.linear * 3 * inner
    if number.linear == WIDE:
        return WIDE * (7 * width + 2 * heads + 4 * inner)
    return WIDE * (4 * width + heads) + number.linear * (6 * width + heads + 4 * inner)


def vit_block(config: ModelConfig, pack: PackShape, number: Numbers) -> int:
    """Bytes that one image encoder layer keeps."""
    vit = config.vit
    width, inner = vit.hidden_size, vit.intermediate_size
    if number.linear == WIDE:
        token = WIDE * (5 * width + 2 * inner)
    else:
        token = WIDE * 2 * width + number.linear * (5 * width + 2 * inner)
    place = number.linear * 4 * width + WIDE * vit.num_attention_heads
    return token * pack.vit + place * pack.vit_places


def reading(config: ModelConfig, pack: PackShape, number: Numbers) -> int:
    """Bytes that a forward works with and does not keep: the residual stream and one MLP."""
    llm = config.llm
    stream = WIDE * 3 * llm.hidden_size * pack.tokens
    mlp = number.linear * 3 * llm.intermediate_size * max(pack.und, pack.latents)
    return stream + mlp


def _flow_back(width: int, inner: int, tokens: int, pack: PackShape, number: Numbers) -> int:
    """The residual stream's gradient, coming and going, and the three of a gated MLP."""
    expert = max(pack.und, pack.latents)
    return WIDE * 2 * width * tokens + number.linear * 3 * inner * min(expert, tokens)


def _ends(config: ModelConfig, pack: PackShape, number: Numbers) -> int:
    width, values = config.llm.hidden_size, config.latent_patch_size**2 * config.vae.latent_channels
    norms = WIDE * 2 * width * pack.tokens
    angles = WIDE * 2 * config.llm.head_dim * pack.tokens
    connector = pack.vit * (2 * number.linear * width + 3 * WIDE * config.vit.hidden_size)
    velocities = pack.flow * number.linear * width + pack.latents * 4 * WIDE * values
    patches = config.vit.patch_size**2 * config.vit.num_channels
    return norms + angles + connector + velocities + pack.vit * WIDE * patches
