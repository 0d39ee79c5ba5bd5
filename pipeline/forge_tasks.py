"""What a Ray task of the stage forge does: fit one family, and make its fakes."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unigendet.evidence import Evidence, measure
from unigendet.forgeries.config import ForgeryConfig
from unigendet.forgeries.roles import TRAITS
from unigendet.types import Sample

if TYPE_CHECKING:
    from torch import Tensor

    from unigendet.data.shards import ShardDataset

SAY_EVERY_S = 15.0


@dataclass(frozen=True, slots=True)
class FamilyOrder:
    """All that a task needs; picklable."""

    family: str
    config: ForgeryConfig
    shards: Path
    generator: Path
    fit_on: tuple[int, ...]
    """Positions among the real images of the set `train`, of those to learn from."""
    make_from: dict[str, tuple[int, ...]]
    """Set name -> positions among its real images, of those to make one fake each from."""
    seed: int
    device: str
    threads: int


@dataclass(frozen=True, slots=True)
class FamilyFakes:
    """What became of an order."""

    family: str
    fakes: dict[str, NDArray[np.uint8]]
    """Set name -> (N, H, W, 3), in the order of the positions."""
    weights: bytes
    """Safetensors; empty for a family that has none."""
    fit_loss: float
    fit_seconds: float
    make_seconds: float
    started_at: float
    """Unix time when the family's own work began."""

    def save(self, path: Path) -> None:
        """Write it whole or not at all."""
        arrays: dict[str, Any] = {f"set-{name}": images for name, images in self.fakes.items()}
        facts = [self.fit_loss, self.fit_seconds, self.make_seconds, self.started_at]
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez(
                file,
                family=np.array(self.family),
                weights=np.frombuffer(self.weights, dtype=np.uint8),
                facts=np.array(facts, dtype=np.float64),
                **arrays,
            )
        os.replace(partial, path)

    @classmethod
    def load(cls, path: Path) -> FamilyFakes:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as found:
            return cls(
                str(found["family"]),
                {key[4:]: found[key] for key in found.files if key.startswith("set-")},
                found["weights"].tobytes(),
                *found["facts"].tolist(),
            )


@dataclass(frozen=True, slots=True)
class Fakes:
    """The fakes that one family made for one set, with the real images that they stand beside."""

    family: str
    set_name: str
    origins: tuple[int, ...]
    """Positions among the set's real images."""
    images: NDArray[np.uint8]


FakesBy = dict[tuple[str, str], Fakes]
"""(family, set name) -> its fakes."""


def forge_family(order: FamilyOrder) -> FamilyFakes:
    """Fit the family of `order` on real training images and make its fakes."""
    import torch

    from unigendet.data.shards import ShardDataset
    from unigendet.forgeries.registry import build_family

    torch.set_num_threads(order.threads)
    generator = None
    if TRAITS[order.family].own_decoder:
        from unigendet.inference import UniGenDet

        generator = UniGenDet.from_pretrained(order.generator, order.device)
    family = build_family(order.family, order.config, seed=order.seed, generator=generator)
    started = time.time()
    train = ShardDataset(order.shards, "train", verify=False).only(fake=False)
    images, captions = _read(train, order.fit_on, order.device)
    fit_loss = family.fit(images, captions, seed=order.seed, progress=_Narrator(order.family))
    fitted = time.time()
    fakes = {}
    for place, (name, positions) in enumerate(order.make_from.items()):
        real = ShardDataset(order.shards, name, verify=False).only(fake=False)
        images, captions = _read(real, positions, order.device)
        made = family.make(images, captions, seed=order.seed + 1 + place)
        pixels = ((made.clamp(-1, 1) + 1) * 127.5).round().byte()
        fakes[name] = pixels.permute(0, 2, 3, 1).cpu().numpy()
    count = sum(len(images) for images in fakes.values())
    print(f"[forge] {order.family}: {count} fakes in {time.time() - fitted:.0f} s", flush=True)
    return FamilyFakes(
        family=order.family,
        fakes=fakes,
        weights=family.weights(),
        fit_loss=fit_loss,
        fit_seconds=fitted - started,
        make_seconds=time.time() - fitted,
        started_at=started,
    )


@dataclass(frozen=True, slots=True)
class Measured:
    """An image of the shards."""

    key: str
    fake: bool
    evidence: Evidence
    answered: bool
    """Whether it came with an explanation."""


def measure_stored(data: ShardDataset) -> list[Measured]:
    """Every image of a part of a set, one at a time in memory."""
    return [
        Measured(sample.key, sample.fake, measure(sample.image), bool(sample.explanation))
        for sample in data
    ]


def measure_images(images: NDArray[np.uint8]) -> list[Evidence]:
    """The evidence of each of (N, H, W, 3)."""
    return [measure(image) for image in images]


def _read(
    dataset: Sequence[Sample], positions: Sequence[int], device: str
) -> tuple[Tensor, list[str]]:
    """Images (N, 3, H, W) in [-1, 1] and captions at some positions of a set."""
    import torch

    samples = [dataset[position] for position in positions]
    pixels = torch.from_numpy(np.stack([sample.image for sample in samples]))
    images = pixels.permute(0, 3, 1, 2).float().to(device) / 127.5 - 1
    return images, [sample.caption for sample in samples]


class _Narrator:
    """Prints how far the fitting is and how long it will take, now and then."""

    def __init__(self, family: str) -> None:
        self.family, self.began, self.said = family, time.time(), time.time()

    def __call__(self, step: int, steps: int, loss: float) -> None:
        now = time.time()
        if now - self.said < SAY_EVERY_S and step < steps:
            return
        self.said = now
        left = (now - self.began) / step * (steps - step)
        print(
            f"[forge] {self.family}: step {step} of {steps}, loss {loss:.4f}, {left:.0f} s left",
            flush=True,
        )
