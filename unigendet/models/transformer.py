"""The language model with two experts per layer and one attention (specification 1.1).

Words, markers and ViT tokens go through the understanding expert, latent tokens through the
generation expert (names ending in `_moe_gen`). Tokens are kept in two slices, one per expert, so
routing costs nothing; only the attention puts them back together.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

import torch
from torch import Tensor, nn

from unigendet.config import TransformerConfig
from unigendet.models.attention import Attend
from unigendet.models.cache import CachedAttention
from unigendet.models.layers import GatedMLP, RMSNorm, run_block
from unigendet.models.positions import rotary, rotate
from unigendet.types import HiddenState

Angles = tuple[Tensor, Tensor]
"""What `rotary` gives: the angles of every row."""


class TwoExpertAttention(nn.Module):
    """Self-attention with projections and q/k norms per expert."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width, head_dim = config.hidden_size, config.head_dim
        self.head_dim = head_dim
        inner = config.num_attention_heads * head_dim
        kv_inner = config.num_key_value_heads * head_dim
        self.q_proj = nn.Linear(width, inner)
        self.k_proj = nn.Linear(width, kv_inner)
        self.v_proj = nn.Linear(width, kv_inner)
        self.o_proj = nn.Linear(inner, width, bias=False)
        self.q_norm = RMSNorm(head_dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(head_dim, config.rms_norm_eps)
        self.q_proj_moe_gen = nn.Linear(width, inner)
        self.k_proj_moe_gen = nn.Linear(width, kv_inner)
        self.v_proj_moe_gen = nn.Linear(width, kv_inner)
        self.o_proj_moe_gen = nn.Linear(inner, width, bias=False)
        self.q_norm_moe_gen = RMSNorm(head_dim, config.rms_norm_eps)
        self.k_norm_moe_gen = RMSNorm(head_dim, config.rms_norm_eps)

    def forward(
        self, und: Tensor, gen: Tensor, angles: Angles, attend: Attend, layer: int
    ) -> tuple[Tensor, Tensor]:
        heads = (-1, self.head_dim)
        q = self.q_norm(self.q_proj(und).unflatten(1, heads))  # (Nu, heads, D)
        if gen.shape[0]:
            gen_q = self.q_norm_moe_gen(self.q_proj_moe_gen(gen).unflatten(1, heads))
            q = torch.cat([q, gen_q])
        k, v = self.keys_values(und, gen, angles)
        mixed = attend(rotate(q, *angles), k, v, layer).flatten(1)
        count = und.shape[0]
        und_out = self.o_proj(mixed[:count])
        return und_out, self.o_proj_moe_gen(mixed[count:]) if gen.shape[0] else gen

    def keys_values(self, und: Tensor, gen: Tensor, angles: Angles) -> tuple[Tensor, Tensor]:
        """Keys after norm and rotation, and values: (Nu + Ng, kv heads, D) each."""
        heads = (-1, self.head_dim)
        k = self.k_norm(self.k_proj(und).unflatten(1, heads))
        v = self.v_proj(und).unflatten(1, heads)
        if gen.shape[0]:
            gen_k = self.k_norm_moe_gen(self.k_proj_moe_gen(gen).unflatten(1, heads))
            gen_v = self.v_proj_moe_gen(gen).unflatten(1, heads)
            k, v = torch.cat([k, gen_k]), torch.cat([v, gen_v])
        return rotate(k, *angles), v


class TwoExpertLayer(nn.Module):
    """`x += O(attn(N1(x)))`, `x += MLP(N2(x))`, every weight from the token's own expert."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width, inner, eps = config.hidden_size, config.intermediate_size, config.rms_norm_eps
        self.self_attn = TwoExpertAttention(config)
        self.mlp = GatedMLP(width, inner)
        self.mlp_moe_gen = GatedMLP(width, inner)
        self.input_layernorm = RMSNorm(width, eps)
        self.input_layernorm_moe_gen = RMSNorm(width, eps)
        self.post_attention_layernorm = RMSNorm(width, eps)
        self.post_attention_layernorm_moe_gen = RMSNorm(width, eps)

    def forward(
        self, und: Tensor, gen: Tensor, angles: Angles, attend: Attend, layer: int
    ) -> tuple[Tensor, Tensor]:
        und_mixed, gen_mixed = self.self_attn(*self._normed(und, gen), angles, attend, layer)
        und = und + und_mixed
        und = und + self.mlp(self.post_attention_layernorm(und))
        if gen.shape[0]:
            gen = gen + gen_mixed
            gen = gen + self.mlp_moe_gen(self.post_attention_layernorm_moe_gen(gen))
        return und, gen

    def keys_values(self, und: Tensor, gen: Tensor, angles: Angles) -> tuple[Tensor, Tensor]:
        """What other tokens read of these in this layer (`TwoExpertAttention.keys_values`)."""
        return self.self_attn.keys_values(*self._normed(und, gen), angles)

    def _normed(self, und: Tensor, gen: Tensor) -> tuple[Tensor, Tensor]:
        normed = self.input_layernorm(und)
        return normed, self.input_layernorm_moe_gen(gen) if gen.shape[0] else gen


class TwoExpertTransformer(nn.Module):
    """Embedding, decoder layers and the experts' final norms."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(TwoExpertLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.norm_moe_gen = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.recompute = False

    def forward(
        self,
        hidden: HiddenState,
        position_ids: Tensor,
        attend: Attend,
        *,
        taps: Collection[int] = (),
        num_layers: int | None = None,
    ) -> tuple[HiddenState, dict[int, HiddenState]]:
        """Run the layers.

        Args:
            hidden: the input embeddings, understanding rows before generation rows.
            position_ids: (N,) RoPE position by row.
            attend: the attention over all rows.
            taps: layers after which the residual stream is returned as well.
            num_layers: run only the first so many; all where None.

        Returns:
            The state after the final norms, and the taps by layer.
        """
        depth = len(self.layers)
        wanted = depth if num_layers is None else num_layers
        if not 0 < wanted <= depth or any(not 0 <= tap < wanted for tap in taps):
            raise ValueError(
                f"The model has layers 0 to {depth - 1}; cannot run {wanted} of them and tap "
                f"{sorted(taps)}."
            )
        angles = self._angles(hidden, position_ids)
        und, gen = hidden.und, hidden.gen
        tapped: dict[int, HiddenState] = {}
        for index in range(wanted):
            layer = self.layers[index]
            und, gen = run_block(layer, self.recompute, und, gen, angles, attend, index)
            if index in taps:
                tapped[index] = HiddenState(und, gen)
        normed = HiddenState(self.norm(und), self.norm_moe_gen(gen) if gen.shape[0] else gen)
        return normed, tapped

    def fill(self, hidden: HiddenState, position_ids: Tensor, attend: CachedAttention) -> None:
        """`forward` where its result is of no interest, only what it leaves in the cache.

        Nothing reads the last layer's output then, so that layer ends with keys and values.
        """
        angles = self._angles(hidden, position_ids)
        und, gen = hidden.und, hidden.gen
        depth = len(self.layers)
        for index in range(depth - 1):
            und, gen = self.layers[index](und, gen, angles, attend, index)
        last = cast("TwoExpertLayer", self.layers[depth - 1])
        attend.write(*last.keys_values(und, gen, angles), depth - 1)

    def _angles(self, hidden: HiddenState, position_ids: Tensor) -> Angles:
        config = self.config
        return rotary(position_ids, config.head_dim, config.rope_theta, hidden.und.dtype)


class LanguageModel(nn.Module):
    """The transformer and its vocabulary head, named as in the published checkpoints."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.model = TwoExpertTransformer(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
