"""The SigLIP-style image encoder on packed patches of any number of images (specification 1.2)."""

from __future__ import annotations

from torch import Tensor, nn

from unigendet.config import VisionConfig
from unigendet.models.attention import Attend
from unigendet.models.layers import GeluMLP, run_block


def patchify_pixels(pixels: Tensor, patch: int) -> Tensor:
    """(C, h p, w p) -> (h w, p p C), p = `patch`: raster order, values (row, column, channel)."""
    channels, height, width = pixels.shape
    cells = pixels.reshape(channels, height // patch, patch, width // patch, patch)
    return cells.permute(1, 3, 2, 4, 0).reshape(-1, patch * patch * channels)


class VisionAttention(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.head_dim = width // config.num_attention_heads
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, attend: Attend, layer: int) -> Tensor:
        q, k, v = (
            projection(x).unflatten(1, (-1, self.head_dim))  # (N, heads, D)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed: Tensor = self.out_proj(attend(q, k, v, layer).flatten(1))
        return mixed


class VisionLayer(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.self_attn = VisionAttention(config)
        self.layer_norm1 = nn.LayerNorm(width, eps)
        self.mlp = GeluMLP(width, config.intermediate_size, width)
        self.layer_norm2 = nn.LayerNorm(width, eps)

    def forward(self, x: Tensor, attend: Attend, layer: int) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x), attend, layer)
        x = x + self.mlp(self.layer_norm2(x))
        return x


class VisionEmbeddings(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        values = config.patch_size**2 * config.num_channels
        self.patch_embedding = nn.Linear(values, config.hidden_size)
        self.position_embedding = nn.Embedding(config.patches_per_side**2, config.hidden_size)

    def forward(self, patches: Tensor, position_ids: Tensor) -> Tensor:
        positions: Tensor = self.position_embedding(position_ids)
        embedded: Tensor = self.patch_embedding(patches)
        return embedded + positions


class VisionEncoder(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(VisionLayer(config) for _ in range(config.num_hidden_layers))


class VisionTransformer(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.embeddings = VisionEmbeddings(config)
        self.encoder = VisionEncoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.recompute = False

    def forward(self, patches: Tensor, position_ids: Tensor, attend: Attend) -> Tensor:
        x = self.embeddings(patches, position_ids)
        for index, layer in enumerate(self.encoder.layers):
            x = run_block(layer, self.recompute, x, attend, index)
        normed: Tensor = self.post_layernorm(x)
        return normed


class VisionModel(nn.Module):
    """Patches (Nv, patch * patch * 3), their table indexes (Nv,) -> features (Nv, vit hidden)."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.vision_model = VisionTransformer(config)

    def forward(self, patches: Tensor, position_ids: Tensor, attend: Attend) -> Tensor:
        features: Tensor = self.vision_model(patches, position_ids, attend)
        return features
