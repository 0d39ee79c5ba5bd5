"""Many small images in one PNG, tile by tile, so that a later stage can take them out again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

COLUMNS = 16


def write_sheet(path: Path, images: NDArray[np.uint8]) -> None:
    """Write (N, H, W, 3) uint8 images row by row, 16 to a row, without gaps."""
    n, height, width, _ = images.shape
    columns = min(n, COLUMNS)
    rows = -(-n // columns)
    full = np.full((rows * columns, height, width, 3), 255, dtype=np.uint8)
    full[:n] = images
    grid = full.reshape(rows, columns, height, width, 3).swapaxes(1, 2)
    Image.fromarray(grid.reshape(rows * height, columns * width, 3)).save(path)


def read_sheet(path: Path, count: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The first `count` images of (height, width) `size`; a `ValueError` where they do not fit."""
    with Image.open(path) as picture:
        grid = np.asarray(picture.convert("RGB"))
    height, width = size
    rows, columns = grid.shape[0] // height, grid.shape[1] // width
    if grid.shape[0] % height or grid.shape[1] % width or rows * columns < count:
        raise ValueError(f"{path} does not hold {count} images of {width} x {height} pixels")
    tiles = grid.reshape(rows, height, columns, width, 3).swapaxes(1, 2)
    return tiles.reshape(-1, height, width, 3)[:count]
