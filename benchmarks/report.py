"""How figures are shown: lines for people, JSON for tables."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping

import torch


def machine(device: torch.device) -> dict[str, object]:
    """What a figure must be told with."""
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if cuda else None,
    }


def show(figures: Mapping[str, object], *, as_json: bool) -> None:
    """Print the figures."""
    if as_json:
        print(json.dumps(figures, indent=2))
        return
    width = max(len(name) for name in figures)
    for name, value in figures.items():
        shown = f"{value:.4g}" if isinstance(value, float) else value
        print(f"{name:<{width}}  {shown}")
