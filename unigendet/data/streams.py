"""Endless streams of samples: shuffled epoch after epoch, augmented, each with draws of its own.

Position p of a stream is a fixed sample with a fixed augmentation and fixed draws of noise, so that
what is learnt depends neither on resuming nor on the number of loading processes or ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unigendet.data.degradations import Degradations
from unigendet.data.shards import ShardDataset
from unigendet.types import Sample

_ORDER, _AUGMENTATION, _NOISE = range(3)
"""What a random stream is for; keeps streams of one seed apart."""


@lru_cache(maxsize=32)
def epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """(count,) int64, the order in which epoch `epoch` visits `count` samples."""
    order = np.random.default_rng([_ORDER, seed, epoch]).permutation(count)
    order.setflags(write=False)
    return order


def draw_generator(seed: int, stream: int, position: int) -> torch.Generator:
    """The source of every random number that packing draws for one position of a stream."""
    state = np.random.SeedSequence([_NOISE, seed, stream, position]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def dihedral(image: NDArray[np.uint8], symmetry: int) -> NDArray[np.uint8]:
    """(H, W, 3) turned by `symmetry` % 4 quarters, and mirrored from 4 on; `symmetry` in 0..7."""
    turned = np.rot90(image, symmetry % 4)
    return np.ascontiguousarray(turned[:, ::-1] if symmetry >= 4 else turned)


@dataclass(frozen=True, slots=True)
class Outline:
    """A sample without its picture; sizes in pixels."""

    width: int
    height: int
    caption: str
    explanation: str
    fake: bool


class Selection(Sequence[Sample]):
    """The real, or the fake, samples of some sets one after another, read when asked for.

    `explanations` gives reference answers by key to samples that were stored without.
    """

    def __init__(
        self,
        datasets: Sequence[ShardDataset],
        *,
        fake: bool,
        explanations: Mapping[str, str] | None = None,
    ) -> None:
        parts = [dataset.only(fake=fake) for dataset in datasets]
        self._places = [(part, position) for part in parts for position in range(len(part))]
        self._explanations = dict(explanations or {})
        if not self._places:
            names = ", ".join(str(data.folder / data.name) for data in datasets) or "no set"
            raise ValueError(f"no {'fake' if fake else 'real'} samples in {names}")

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, position: Any) -> Any:
        dataset, place = self._places[position]
        sample = dataset.sample(place)
        explanation = self._explanations.get(sample.key)
        return replace(sample, explanation=explanation) if explanation else sample

    def outline(self, position: int) -> Outline:
        """What decides how many tokens a sample takes, without its picture."""
        dataset, place = self._places[position]
        entry, fields = dataset.entries[place], dataset.fields(place)
        explanation = self._explanations.get(entry.key) or fields["explanation"]
        return Outline(entry.width, entry.height, fields["caption"], explanation, entry.fake)


class SampleStream:
    """An endless, shuffled, augmented stream of `samples`: a function of seed and position."""

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        seed: int,
        augment: bool = True,
        degradations: Degradations | None = None,
    ) -> None:
        if not samples:
            raise ValueError("there are no samples to draw batches from")
        self.samples = samples
        self._seed = seed
        self._augment = augment
        self._degradations = degradations

    def place(self, position: int) -> tuple[int, int]:
        """Which sample stands at a position of the stream, and how often it came before."""
        epoch, place = divmod(position, len(self.samples))
        return int(epoch_order(len(self.samples), self._seed, epoch)[place]), epoch

    def index(self, position: int) -> int:
        """Which sample stands at a position of the stream."""
        return self.place(position)[0]

    def at(self, position: int) -> Sample:
        """The sample at a position, augmented."""
        index, epoch = self.place(position)
        sample: Sample = self.samples[index]
        if self._degradations is not None:
            sample = self._degradations.apply(sample, seed=self._seed, epoch=epoch)
        if not self._augment:
            return sample
        rng = np.random.default_rng([_AUGMENTATION, self._seed, position])
        return replace(sample, image=dihedral(sample.image, int(rng.integers(8))))
