"""Small layers shared by the networks."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

_FREQUENCIES = 128
_FEW_ROWS = range(16, 257)
"""Where a CPU's product of rows and weights gains by having the weights first."""


def run_block(block: nn.Module, recompute: bool, *args: Any) -> Any:
    """`block(*args)`; with `recompute` its inner activations are computed again for the backward.

    Nothing in a block draws random numbers, so the second time gives the same.
    """
    if not recompute or not torch.is_grad_enabled():
        return block(*args)
    return checkpoint(block, *args, use_reentrant=False, preserve_rng_state=False)


class RMSNorm(nn.Module):
    """`weight * x / sqrt(mean(x^2) + eps)` over the last dimension, computed in float32."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        normed = F.rms_norm(x.float(), self.weight.shape, eps=self.eps)
        return self.weight * normed.to(x.dtype)


class WideLinear(nn.Linear):
    """A linear layer without bias for rows (N, dim), quick also where a CPU decodes few of them.

    `weight @ x.T` has the longer side first: up to half as fast again as `x @ weight.T`.
    """

    def __init__(self, dim: int, out: int) -> None:
        super().__init__(dim, out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] in _FEW_ROWS and x.device.type == "cpu" and not torch.is_grad_enabled():
            return (self.weight @ x.t()).t()
        return super().forward(x)


class GatedMLP(nn.Module):
    """`down(silu(gate(x)) * up(x))`, no biases."""

    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = WideLinear(dim, inner)
        self.up_proj = WideLinear(dim, inner)
        self.down_proj = WideLinear(inner, dim)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_proj(x), self.up_proj(x)
        if torch.is_grad_enabled():
            hidden = F.silu(gate) * up
        else:  # in place: these are the largest activations, and fresh memory costs more than maths
            hidden = F.silu(gate, inplace=True).mul_(up)
        out: Tensor = self.down_proj(hidden)
        return out


class GeluMLP(nn.Module):
    """`fc2(gelu_tanh(fc1(x)))`."""

    def __init__(self, dim_in: int, inner: int, dim_out: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim_in, inner)
        self.fc2 = nn.Linear(inner, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.fc2(F.gelu(self.fc1(x), approximate="tanh"))
        return hidden


def timestep_features(t: Tensor) -> Tensor:
    """`[cos(t f_i), sin(t f_i)]`, `f_i = 10000^(-i / 128)`: (n,) in [0, 1] -> (n, 256) float32."""
    index = torch.arange(_FREQUENCIES, dtype=torch.float32, device=t.device)
    angle = t.float()[:, None] * torch.exp(-math.log(10000.0) * index / _FREQUENCIES)
    return torch.cat([angle.cos(), angle.sin()], dim=1)


class TimestepEmbedder(nn.Module):
    """Flow timesteps (n,) in [0, 1] -> (n, dim)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * _FREQUENCIES, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t: Tensor) -> Tensor:
        dtype = next(self.mlp.parameters()).dtype
        embedding: Tensor = self.mlp(timestep_features(t).to(dtype))
        return embedding
