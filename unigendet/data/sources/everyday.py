"""Crops of the everyday photographs that scikit-image, scikit-learn and matplotlib ship.

A domain that nothing here is trained on. The photographs are few, so that every figure on them is
clustered by photograph (`source_id`) and too uncertain to claim a win on. Medical, astronomical,
drawn and grey pictures are left out, and of the stereo pair one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unigendet.data.captions import luminance
from unigendet.data.sources.base import SourceItem
from unigendet.types import Sample


@dataclass(frozen=True, slots=True)
class Photograph:
    """A picture inside an installed package."""

    name: str
    package: str
    path: str
    caption: str


PHOTOGRAPHS = (
    Photograph("astronaut", "skimage", "data/astronaut.png", "an astronaut in an orange suit"),
    Photograph("cat", "skimage", "data/chelsea.png", "a ginger cat"),
    Photograph("coffee", "skimage", "data/coffee.png", "a cup of coffee and a spoon"),
    Photograph("rocket", "skimage", "data/rocket.jpg", "a rocket on its launch pad"),
    Photograph("motorcycle", "skimage", "data/motorcycle_left.png", "a motorcycle in a garage"),
    Photograph("temple", "sklearn", "datasets/images/china.jpg", "a temple with a curved roof"),
    Photograph("flower", "sklearn", "datasets/images/flower.jpg", "an orange flower"),
    Photograph(
        "portrait", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "an officer in uniform"
    ),
)


@dataclass(frozen=True, slots=True)
class EverydayPhotographs:
    """Disjoint square crops of `tile` pixels from photographs scaled to `short_side` pixels."""

    tile: int = 64
    short_side: int = 256
    crops: int = 12
    """At most this many crops of each photograph, spread evenly over it."""
    min_contrast: float = 14.0
    """Least standard deviation of luminance (0 to 255): leaves empty sky out."""

    def __post_init__(self) -> None:
        if self.short_side < self.tile or self.crops < 1:
            raise ValueError(
                f"short_side ({self.short_side}) must hold a tile ({self.tile}) "
                f"and crops ({self.crops}) must be at least 1"
            )

    @property
    def domain(self) -> str:
        return "everyday"

    def items(self) -> list[SourceItem]:
        return [item for photograph in PHOTOGRAPHS for item in self._crops(photograph)]

    def _crops(self, photograph: Photograph) -> list[SourceItem]:
        path = _locate(photograph)
        image = load_photograph(path, self.short_side)
        rows, columns = image.shape[0] // self.tile, image.shape[1] // self.tile
        corners = [
            (column * self.tile, row * self.tile)
            for row in range(rows)
            for column in range(columns)
        ]
        seen = [(x, y) for x, y in corners if self._contrast(image, x, y) >= self.min_contrast]
        count = min(self.crops, len(seen))
        picked = [seen[i * len(seen) // count] for i in range(count)]
        return [
            SourceItem(
                key=f"{photograph.name}-{left:04d}-{top:04d}",
                source_id=f"everyday/{photograph.name}",
                split="test",
                path=path,
                box=(left, top, self.tile),
                caption=f"part of a photograph of {photograph.caption}",
            )
            for left, top in picked
        ]

    def _contrast(self, image: NDArray[np.uint8], left: int, top: int) -> float:
        crop = image[top : top + self.tile, left : left + self.tile]
        return float(luminance(crop).std())

    def read(self, item: SourceItem) -> Sample:
        assert item.box is not None and item.caption is not None
        left, top, side = item.box
        image = load_photograph(item.path, self.short_side)
        return Sample(
            key=item.key,
            image=image[top : top + side, left : left + side].copy(),
            source_id=item.source_id,
            split=item.split,
            domain=self.domain,
            caption=item.caption,
            fake=False,
        )


def _locate(photograph: Photograph) -> Path:
    spec = find_spec(photograph.package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, photograph.path)
        if path.is_file():
            return path
    raise ValueError(
        f"the photograph {photograph.name} is missing: install the package that holds "
        f"{photograph.package}/{photograph.path} (it is among this project's dependencies)"
    )


@lru_cache(maxsize=len(PHOTOGRAPHS))
def load_photograph(path: Path, short_side: int) -> NDArray[np.uint8]:
    """(H, W, 3) RGB, scaled with a Lanczos filter so that the shorter side is `short_side`."""
    with Image.open(path) as picture:
        scale = short_side / min(picture.size)
        size = (round(picture.width * scale), round(picture.height * scale))
        array = np.asarray(picture.convert("RGB").resize(size, Image.Resampling.LANCZOS))
    array.setflags(write=False)
    return array
