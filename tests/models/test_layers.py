"""The ways in which layers are quicker at inference give what the plain ones give."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unigendet.models.attention import grouped_attention
from unigendet.models.layers import GatedMLP, WideLinear
from unigendet.models.positions import rope, rotary, rotate


@pytest.mark.parametrize("rows", [1, 15, 16, 64, 256, 300])
@pytest.mark.parametrize("sizes", [(24, 96), (96, 24)])
def test_a_linear_layer_of_few_rows(rows: int, sizes: tuple[int, int]) -> None:
    torch.manual_seed(rows)
    layer = WideLinear(*sizes)
    assert layer.bias is None and list(layer.state_dict()) == ["weight"]
    x = torch.randn(rows, sizes[0])
    expected = x.double() @ layer.weight.double().T
    with torch.no_grad():
        found = layer(x)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(layer(x), nn.functional.linear(x, layer.weight))  # training is as ever


@pytest.mark.parametrize("rows", [3, 64, 300])
def test_the_gated_layers_leave_their_input_alone(rows: int) -> None:
    torch.manual_seed(rows)
    mlp, x = GatedMLP(24, 56), torch.randn(rows, 24)
    before = x.clone()
    with torch.no_grad():
        found = mlp(x)
    assert torch.equal(x, before)
    torch.testing.assert_close(found, mlp(x).detach(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("heads", [2, 6])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
def test_one_query_over_a_part_of_a_cache(heads: int, masked: bool, autocast: bool) -> None:
    torch.manual_seed(0)
    q = torch.randn(3, heads, 1, 8)
    k, v = (torch.randn(3, 2, 20, 8)[:, :, :13] for _ in range(2))
    mask = None
    if masked:
        mask = torch.zeros(3, 1, 1, 13).masked_fill(torch.rand(3, 1, 1, 13) < 0.5, -torch.inf)
        mask[..., 0] = 0.0
    full_k, full_v = (x.repeat_interleave(heads // 2, dim=1) for x in (k, v))
    expected = F.scaled_dot_product_attention(q, full_k, full_v, attn_mask=mask)
    with torch.autocast("cpu", enabled=autocast):
        found = grouped_attention(q, k, v, mask)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotation_is_that_of_complex_numbers(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    positions = torch.tensor([0, 1, 7, 500])
    x = torch.randn(4, 3, 16, dtype=dtype, requires_grad=True)
    found = rotate(x, *rotary(positions, 16, 10_000.0, dtype))
    assert found.dtype == dtype
    cos, sin = (part[:, None, :8] for part in rope(positions, 16, 10_000.0))
    first, second = x.float().chunk(2, dim=2)
    turned = torch.complex(first, second) * torch.complex(cos, sin).expand(4, 3, 8)
    expected = torch.cat([turned.real, turned.imag], dim=2)
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(found.float(), expected, atol=tolerance, rtol=tolerance)
    found.float().square().sum().backward()  # a rotation keeps lengths: d|Rx|^2 / dx = 2 x
    assert x.grad is not None
    torch.testing.assert_close(x.grad.float(), 2 * x.float(), atol=10 * tolerance, rtol=tolerance)
