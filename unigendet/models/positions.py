"""Where a token is: indexes into the position tables of images, the tables, and RoPE angles."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def grid_position_ids(rows: int, columns: int, side: int, *, interpolate: bool) -> Tensor:
    """Indexes of a grid's cells into a table of `side * side` entries (specification 4).

    Returns (rows * columns,) int64 in raster order. Without `interpolate` cell (r, c) is entry
    `r * side + c`, so the grid must fit in the table; with it the grid is stretched over the table.
    Raises ValueError for a grid that does not fit.
    """
    if interpolate:
        boundaries = torch.arange(1 / side, 1.0, 1 / side)
        row = torch.bucketize(torch.arange(0, 1 - 1e-6, 1 / rows), boundaries, right=True)
        column = torch.bucketize(torch.arange(0, 1 - 1e-6, 1 / columns), boundaries, right=True)
    else:
        if rows > side or columns > side:
            raise ValueError(
                f"An image of {rows} x {columns} patches does not fit the position table of "
                f"{side} x {side}: use smaller images, a larger table, or interpolate_pos."
            )
        row, column = torch.arange(rows), torch.arange(columns)
    return (row[:, None] * side + column[None, :]).flatten()


def sincos_table(dim: int, side: int) -> Tensor:
    """The fixed 2-D table (side * side, dim): [sin(c w), cos(c w), sin(r w), cos(r w)]."""
    if dim % 4:
        raise ValueError(f"A 2-D sin/cos table needs a width divisible by 4, not {dim}.")
    frequency = 10000.0 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim / 4))
    angle = torch.arange(side, dtype=torch.float64)[:, None] * frequency
    one_axis = torch.cat([angle.sin(), angle.cos()], dim=1)  # (side, dim / 2)
    row = one_axis[:, None].expand(side, side, dim // 2)
    column = one_axis[None, :].expand(side, side, dim // 2)
    return torch.cat([column, row], dim=2).reshape(side * side, dim).float()


class PositionTable(nn.Module):
    """A fixed 2-D sin/cos table, kept in the state dict but no parameter: nothing can train it."""

    pos_embed: Tensor

    def __init__(self, dim: int, side: int) -> None:
        super().__init__()
        self.register_buffer("pos_embed", sincos_table(dim, side))

    def forward(self, ids: Tensor) -> Tensor:
        return self.pos_embed.index_select(0, ids)


def rope(position_ids: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """cos and sin of the rotary angles, each (N, head_dim) float32, the two halves repeated."""
    exponent = torch.arange(0, head_dim, 2, device=position_ids.device) / head_dim
    angle = position_ids.float()[:, None] * theta**-exponent  # (N, head_dim / 2)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([cos, cos], dim=1), torch.cat([sin, sin], dim=1)


def rotary(
    position_ids: Tensor, head_dim: int, theta: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """What `rotate` takes: cos, and sin with its first half negated, each (N, 1, head_dim)."""
    cos, sin = rope(position_ids, head_dim, theta)
    sin[:, : head_dim // 2].neg_()
    return cos[:, None].to(dtype), sin[:, None].to(dtype)


def rotate(x: Tensor, cos: Tensor, signed_sin: Tensor) -> Tensor:
    """Rotate x (N, heads, D) by the angles of `rotary`: `x cos + [-x2, x1] sin`."""
    return (x * cos).addcmul_(x.roll(x.shape[2] // 2, dims=2), signed_sin)
