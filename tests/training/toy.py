"""A small regression problem with every property of a real one: several terms, batches by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class ToyLosses:
    fit_loss: Tensor
    size_loss: Tensor

    @property
    def total(self) -> Tensor:
        return self.fit_loss + 0.1 * self.size_loss

    def scalars(self) -> Mapping[str, float]:
        return {
            "fit_loss": float(self.fit_loss.detach()),
            "size_loss": float(self.size_loss.detach()),
        }


def toy_model() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 2))


def toy_batch(step: int) -> Tensor:
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(step))


def toy_objective(model: nn.Module, batch: Tensor) -> ToyLosses:
    output = model(batch)
    return ToyLosses(
        fit_loss=(output - batch[:, :2].sin()).square().mean(), size_loss=output.square().mean()
    )
