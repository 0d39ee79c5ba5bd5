"""What a tensor on disk is, and how what was found differs from what was expected."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
}
"""Types of weights, by their names in safetensors files."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a tensor is, without its values."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


def spec_of(tensor: Tensor) -> TensorSpec:
    return TensorSpec(tensor.dtype, tuple(tensor.shape))


def compare_specs(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, TensorSpec]
) -> list[str]:
    """How the tensors found differ from those expected (by shape): a line per kind, or none."""
    common = expected.keys() & found.keys()
    reshaped = [
        f"{name} is {found[name].shape}, expected {expected[name]}"
        for name in sorted(common)
        if found[name].shape != expected[name]
    ]
    kinds = (
        ("missing", expected.keys() - common),
        ("not known", found.keys() - common),
        ("of another shape", reshaped),
    )
    return [f"{kind}: {list_keys(names)}" for kind, names in kinds if names]


def list_keys(names: Collection[str], most: int = 20) -> str:
    """Sorted and joined; past `most` only their number."""
    shown = ", ".join(sorted(names)[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
