"""UniGenDet: one transformer that reads and writes text, latents and images (specification 1).

Training uses `UniGenDetModel.forward` on a `PackedBatch`.

Inference uses a `KVCache` of B contexts at once, of any lengths (specification 8):

    cache = model.new_cache(batch_size=B)
    model.read(text_query(texts), cache)                            # ids with bos and eos
    model.read(latent_query(tokens, shapes, config, markers), cache)            # clean: t = 0
    model.read(vit_query(pixels, config, markers), cache)
    hidden = model.forward_cached(step_query(ids), cache).und       # (B, hidden), one token each
    logits, verdicts = model.text_logits(hidden), model.det_logits(hidden)

and for Euler steps, which leave nothing in the cache,

    query = latent_query(noise, shapes, config, markers)            # once, for any cache
    hidden = model.forward_cached(query.at(x_t, t), cache, store=False).gen
    v = model.velocity(hidden)                                      # (Nl, p * p * z), as x_t

`unigendet.models.queries` documents the builders, `unigendet.models.cache` how contexts are
copied, selected and joined (guidance branches can be one batch).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import torch
from torch import Tensor, nn

from unigendet.config import ModelConfig
from unigendet.flow import noised, patchify_latents, timestep_from_raw, velocity_target
from unigendet.models.attention import Attend, PackAttention
from unigendet.models.cache import CachedAttention, KVCache
from unigendet.models.flex import FlexPackAttention
from unigendet.models.initialisation import initialise
from unigendet.models.layers import GeluMLP, TimestepEmbedder
from unigendet.models.positions import PositionTable
from unigendet.models.queries import Query
from unigendet.models.transformer import LanguageModel
from unigendet.models.vision import VisionModel
from unigendet.types import AttentionPlan, HiddenState, ModelOutput, PackedBatch


class UniGenDetModel(nn.Module):
    """The whole network but the autoencoder. Parameter names are those of published checkpoints."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.attention: Literal["auto", "buckets", "flex"] = "auto"
        """How packs are attended to; `auto`: FlexAttention on CUDA, padded buckets elsewhere."""
        width = config.llm.hidden_size
        values = config.latent_patch_size**2 * config.vae.latent_channels
        self.language_model = LanguageModel(config.llm)
        self.vit_model = VisionModel(config.vit)
        self.connector = GeluMLP(config.vit.hidden_size, width, width)
        self.vit_pos_embed = PositionTable(width, config.vit.patches_per_side)
        self.time_embedder = TimestepEmbedder(width)
        self.vae2llm = nn.Linear(values, width)
        self.llm2vae = nn.Linear(width, values)
        self.latent_pos_embed = PositionTable(width, config.max_latent_size)
        self.fake_cls_head = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width // 4), nn.ReLU(), nn.Linear(width // 4, 2)
        )
        # Part of published checkpoints and never used: kept so that they load strictly.
        self.latent_to_vit_connector = nn.Sequential(
            nn.Linear(values, width), nn.GELU(), nn.Linear(width, width)
        )
        if config.alignment_head:
            self.diga_mlp = nn.Sequential(
                nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, config.head_width)
            )
        initialise(self)

    def forward(
        self,
        batch: PackedBatch,
        latents: Tensor,
        *,
        taps: Collection[int] = (),
        num_layers: int | None = None,
        project_tap: int | None = None,
    ) -> ModelOutput:
        """The training forward.

        Args:
            batch: L packed tokens.
            latents: (n, z, H, W), the scaled latents of `batch.pixels`.
            taps: layers whose output (residual stream, no norm) is returned as well.
            num_layers: run only the first so many layers; the final norms follow at once.
            project_tap: a layer whose output at generated tokens goes through the alignment head.
        """
        if project_tap is not None and not self.config.alignment_head:
            raise ValueError("The model has no alignment head: set alignment_head in its config.")
        t = timestep_from_raw(batch.raw_timesteps, self.config.timestep_shift)  # (n,)
        x_data = patchify_latents(latents, batch.latent_shapes, self.config.latent_patch_size)
        x_t = noised(x_data, batch.noise, t[batch.latent_images])  # (Nl, p * p * z)
        embedded = HiddenState(
            und=self._embed_und(
                batch.text_ids, batch.vit_tokens, batch.vit_position_ids, batch.vit_attention
            ),
            gen=self._embed_latents(x_t, t, batch.latent_images, batch.latent_position_ids),
        )
        order = torch.cat([batch.text_indexes, batch.vit_indexes, batch.latent_indexes])
        hidden, tapped = self.language_model.model(
            embedded,
            batch.position_ids[order],
            self._attend(batch.attention, embedded.und.dtype),
            taps=taps if project_tap is None else {*taps, project_tap},
            num_layers=num_layers,
        )
        projected = None
        if project_tap is not None:
            projected = self.diga_mlp(tapped[project_tap].gen[batch.flow_rows])
        target = velocity_target(x_data, batch.noise)
        return ModelOutput(
            hidden=hidden,
            taps=tapped,
            timesteps=t,
            x_t=x_t,
            velocity=self.velocity(hidden.gen[batch.flow_rows]),
            target=target[batch.flow_rows],
            ce_logits=self.text_logits(hidden.und[batch.ce_rows]),
            det_logits=self.det_logits(hidden.und[batch.det_rows]),
            projected=projected,
        )

    def blocks(self) -> list[nn.Module]:
        """The image encoder's and the transformer's layers, in the order in which they run."""
        return [*self.vit_model.vision_model.encoder.layers, *self.language_model.model.layers]

    def recompute_activations(self) -> None:
        """From now on blocks keep their inputs alone and compute the rest again in the backward."""
        self.vit_model.vision_model.recompute = True
        self.language_model.model.recompute = True

    def new_cache(self, batch_size: int) -> KVCache:
        """A cache of `batch_size` contexts that have read nothing."""
        weight = self.vae2llm.weight
        return KVCache.empty(self.config.llm, batch_size, device=weight.device, dtype=weight.dtype)

    @torch.no_grad()
    def forward_cached(self, query: Query, cache: KVCache, *, store: bool = True) -> HiddenState:
        """The hidden states of one block per context over what was read before (specification 8).

        Args:
            query: what each context reads, on the cache's device.
            cache: grows by the block where `store`, else only serves.

        Returns:
            The final hidden states of the query's tokens, after the experts' norms: text and ViT
            tokens in `und`, latent tokens in `gen`, contexts one after another.
        """
        embedded, positions, attend = self._cached(query, cache)
        hidden: HiddenState
        hidden, _ = self.language_model.model(embedded, positions, attend)
        if store:
            cache.advance(query)
        return hidden

    @torch.no_grad()
    def read(self, query: Query, cache: KVCache) -> None:
        """Let `cache` grow by one block per context, as `forward_cached` does, for less.

        Hidden states of the last layer are not computed: what is decoded later reads only keys and
        values.
        """
        self.language_model.model.fill(*self._cached(query, cache))
        cache.advance(query)

    def _cached(self, query: Query, cache: KVCache) -> tuple[HiddenState, Tensor, CachedAttention]:
        """Embeddings and RoPE positions of the query's tokens, and their attention."""
        if query.filled.shape[0] != cache.batch_size:
            raise ValueError(
                f"The query is for {query.filled.shape[0]} contexts, the cache holds "
                f"{cache.batch_size}."
            )
        und = self._embed_und(
            query.text_ids, query.vit_tokens, query.vit_position_ids, query.vit_attention
        )
        gen = und[:0]
        if query.x_t.shape[0]:
            gen = self._embed_latents(
                query.x_t, query.timesteps, query.latent_images, query.latent_position_ids
            )
        positions = cache.next_position[query.contexts] + query.offsets
        return HiddenState(und, gen), positions, CachedAttention(cache, query, und.dtype)

    def velocity(self, hidden: Tensor) -> Tensor:
        """Final hidden states of latent tokens (N, hidden) -> velocities (N, p * p * z)."""
        velocity: Tensor = self.llm2vae(hidden)
        return velocity

    def text_logits(self, hidden: Tensor) -> Tensor:
        """Final hidden states (N, hidden) -> next-token logits (N, vocabulary)."""
        logits: Tensor = self.language_model.lm_head(hidden)
        return logits

    def det_logits(self, hidden: Tensor) -> Tensor:
        """Final hidden states at the answers' bos (N, hidden) -> (N, 2), 0 = fake, 1 = real."""
        logits: Tensor = self.fake_cls_head(hidden)
        return logits

    def _attend(self, plan: AttentionPlan, dtype: torch.dtype) -> Attend:
        kind = self.attention
        if kind == "auto":
            kind = "flex" if plan.order.is_cuda else "buckets"
        return FlexPackAttention(plan) if kind == "flex" else PackAttention(plan, dtype)

    def _embed_und(
        self, text_ids: Tensor, vit_tokens: Tensor, vit_position_ids: Tensor, plan: AttentionPlan
    ) -> Tensor:
        """Text, then ViT tokens: (Nt + Nv, hidden)."""
        text: Tensor = self.language_model.model.embed_tokens(text_ids)
        if not vit_tokens.shape[0]:
            return text
        vit_tokens = vit_tokens.to(text.dtype)
        features = self.vit_model(vit_tokens, vit_position_ids, self._attend(plan, text.dtype))
        vit = self.connector(features) + self.vit_pos_embed(vit_position_ids)
        # The residual stream has the weights' type, which the fixed position tables need not have.
        return torch.cat([text, vit.to(text.dtype)])

    def _embed_latents(
        self, x_t: Tensor, t: Tensor, images: Tensor, position_ids: Tensor
    ) -> Tensor:
        """Latent tokens (Nl, p * p * z) at the timestep t (n,) of their image -> (Nl, hidden)."""
        time: Tensor = self.time_embedder(t)  # (n, hidden)
        latent: Tensor = self.vae2llm(x_t.to(time.dtype))
        positions: Tensor = self.latent_pos_embed(position_ids)
        return (latent + time.index_select(0, images) + positions).to(self.vae2llm.weight.dtype)
