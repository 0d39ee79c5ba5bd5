"""Real satellite tiles, cut small, for fitting the families for a few steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from unigendet.data.sources.blue_marble import load_map, map_path

SIDE = 32


@pytest.fixture(scope="session")
def tiles() -> NDArray[np.uint8]:
    """(48, 32, 32, 3): land of central Africa and Asia."""
    world = load_map(map_path(), 2.0)
    cut = [
        world[top : top + SIDE, left : left + SIDE]
        for top in range(560, 560 + 4 * SIDE, SIDE)
        for left in range(1500, 1500 + 12 * SIDE, SIDE)
    ]
    return np.stack(cut)


@pytest.fixture(scope="session")
def real(tiles: NDArray[np.uint8]) -> Tensor:
    """The same as (48, 3, 32, 32) in [-1, 1]."""
    return torch.from_numpy(tiles).permute(0, 3, 1, 2).float() / 127.5 - 1
