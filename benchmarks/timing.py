"""Seconds, and the rate of the machine's own matrix product that they are held against."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch


class Matmul:
    """`(2048, 768) @ (768, 2048)`: what the machine reaches where nothing stands in its way."""

    shape = (2048, 768, 2048)
    flops = 2 * 2048 * 768 * 2048

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        rows, inner, columns = self.shape
        self.left = torch.randn(rows, inner, dtype=dtype, device=device)
        self.right = torch.randn(inner, columns, dtype=dtype, device=device)
        self.out = torch.empty(rows, columns, dtype=dtype, device=device)

    def __call__(self) -> None:
        torch.mm(self.left, self.right, out=self.out)


def seconds(task: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call, to the end of its last kernel."""
    _synchronize(device)
    began = time.perf_counter()
    task()
    _synchronize(device)
    return time.perf_counter() - began


def taking_turns(
    tasks: Mapping[str, Callable[[], object]], rounds: int, device: torch.device
) -> dict[str, float]:
    """Median seconds of each task, called in turns, so that a slow moment meets all alike.

    Every task is called once before, unmeasured.
    """
    for task in tasks.values():
        task()
    found: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            found[name].append(seconds(task, device))
    return {name: statistics.median(times) for name, times in found.items()}


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
