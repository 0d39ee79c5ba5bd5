"""Training batches as a function of (seed, step): shuffled, augmented, balanced, packed.

A step takes `per_step` samples of an endless stream, epoch after epoch, each in its own order.
Position p = step * per_step + i of the stream is a fixed sample with a fixed augmentation and fixed
draws of noise. Ranks share the step's positions out, so that neither resuming nor the number of
loading processes or ranks changes what is learnt, and every sample is seen exactly once per epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from unigendet.config import ModelConfig
from unigendet.data.packing import pack
from unigendet.data.prompts import detection_plan, generation_plan, teacher_plan
from unigendet.data.shards import ShardDataset
from unigendet.data.tokenizer import Tokenizer
from unigendet.types import AlignmentBatch, PackedBatch, Sample

Batch = TypeVar("Batch")

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


class Selection(Sequence[Sample]):
    """The real, or the fake, samples of some sets, read when asked for.

    `explanations` gives reference answers by key to samples that were stored without.
    """

    def __init__(
        self,
        datasets: Sequence[ShardDataset],
        *,
        fake: bool,
        explanations: Mapping[str, str] | None = None,
    ) -> None:
        self._places = [
            (dataset, position)
            for dataset in datasets
            for position, entry in enumerate(dataset.entries)
            if entry.fake == fake
        ]
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


class SampleStream:
    """An endless, shuffled, augmented stream; a rank gets its part of each step's `per_step`."""

    def __init__(
        self,
        samples: Sequence[Sample],
        per_step: int,
        *,
        seed: int,
        rank: int = 0,
        world: int = 1,
        augment: bool = True,
    ) -> None:
        if per_step < 1:
            raise ValueError(f"per_step must be at least 1, got {per_step}")
        if not 0 <= rank < world:
            raise ValueError(f"rank must lie in 0..{world - 1} (world = {world}), got {rank}")
        if per_step % world:
            raise ValueError(
                f"a step's {per_step} samples cannot be shared by {world} workers: choose a number "
                f"that {world} divides, or another number of workers"
            )
        if not samples:
            raise ValueError("there are no samples to draw batches from")
        self._samples = samples
        self._per_step = per_step
        self._seed = seed
        self._rank = rank
        self._world = world
        self._augment = augment

    def positions(self, step: int) -> range:
        """The positions of the stream that this rank reads at `step`."""
        share = self._per_step // self._world
        first = step * self._per_step + self._rank * share
        return range(first, first + share)

    def index(self, position: int) -> int:
        """Which sample stands at a position of the stream."""
        epoch, place = divmod(position, len(self._samples))
        return int(epoch_order(len(self._samples), self._seed, epoch)[place])

    def at(self, step: int) -> list[Sample]:
        """The samples of one step."""
        return [self._sample(position) for position in self.positions(step)]

    def _sample(self, position: int) -> Sample:
        sample: Sample = self._samples[self.index(position)]
        if not self._augment:
            return sample
        rng = np.random.default_rng([_AUGMENTATION, self._seed, position])
        return replace(sample, image=dihedral(sample.image, int(rng.integers(8))))


class MixedBatches:
    """Batches of generation and detection samples in one pack: what GDUF trains on.

    Generation samples are real. Detection samples are half real and half fake. Numbers per step are
    of all ranks together; each gets an equal part.

    Args:
        real: sets whose real samples are used; fakes in them are passed over.
        fakes: sets whose fake samples are used.
        explanations: reference answers by key, for real samples stored without.
        text_dropout: share of captions left out, in [0, 1].
        use_vae: whether the detector sees the generator's latents (SMSA).
    """

    def __init__(
        self,
        real: Sequence[ShardDataset],
        fakes: Sequence[ShardDataset] = (),
        *,
        generation_per_step: int,
        detection_per_step: int,
        tokenizer: Tokenizer,
        config: ModelConfig,
        seed: int,
        rank: int = 0,
        world: int = 1,
        text_dropout: float = 0.1,
        use_vae: bool = True,
        explanations: Mapping[str, str] | None = None,
    ) -> None:
        if min(generation_per_step, detection_per_step) < 0 or detection_per_step % 2:
            raise ValueError(
                f"generation_per_step ({generation_per_step}) and detection_per_step "
                f"({detection_per_step}) must be at least 0, and detection_per_step even: "
                f"half of it is real, half fake"
            )
        if generation_per_step + detection_per_step == 0:
            raise ValueError("a batch needs generation_per_step or detection_per_step above 0")
        self._tokenizer = tokenizer
        self._config = config
        self._seed = seed
        self._text_dropout = text_dropout
        self._use_vae = use_vae
        self._generation: SampleStream | None = None
        self._detection: tuple[SampleStream, ...] = ()
        real_samples = Selection(real, fake=False, explanations=explanations)
        if generation_per_step:
            self._generation = SampleStream(
                real_samples, generation_per_step, seed=3 * seed, rank=rank, world=world
            )
        if detection_per_step:
            half = detection_per_step // 2
            fake_samples = Selection(fakes, fake=True)
            self._detection = (
                SampleStream(real_samples, half, seed=3 * seed + 1, rank=rank, world=world),
                SampleStream(fake_samples, half, seed=3 * seed + 2, rank=rank, world=world),
            )

    def samples(self, step: int) -> tuple[list[Sample], list[Sample]]:
        """Generation and detection samples of one step, augmented."""
        generation = self._generation.at(step) if self._generation else []
        return generation, [sample for stream in self._detection for sample in stream.at(step)]

    def batch(self, step: int) -> PackedBatch:
        """The pack of one step, with every draw that the step needs."""
        generation, detection = self.samples(step)
        return self._pack(generation, detection, self._generators(step))

    def alignment_batch(self, step: int) -> AlignmentBatch:
        """The same pack beside the teacher's view of what it generates: what DIGA trains on."""
        generation, detection = self.samples(step)
        if not generation:
            raise ValueError("DIGA aligns generation samples: generation_per_step must be above 0")
        generators = self._generators(step)
        student = self._pack(generation, detection, generators)
        plans = [teacher_plan(sample, self._tokenizer, self._config) for sample in generation]
        own = generators[: len(plans)]
        teacher = pack(plans, self._config, self._tokenizer.markers, own)
        return AlignmentBatch(generation=student, teacher=teacher)

    def _generators(self, step: int) -> list[torch.Generator]:
        """One for each sample of a step, in the order of `samples`."""
        streams = [self._generation, *self._detection]
        return [
            draw_generator(self._seed, number, position)
            for number, stream in enumerate(streams)
            if stream is not None
            for position in stream.positions(step)
        ]

    def _pack(
        self,
        generation: list[Sample],
        detection: list[Sample],
        generators: Sequence[torch.Generator],
    ) -> PackedBatch:
        tokenizer, config = self._tokenizer, self._config
        plans = [
            generation_plan(sample, tokenizer, config, self._text_dropout) for sample in generation
        ]
        plans += [detection_plan(sample, tokenizer, config, self._use_vae) for sample in detection]
        return pack(plans, config, tokenizer.markers, generators)


class _Steps(Dataset[Any], Generic[Batch]):
    def __init__(self, build: Callable[[int], Batch], start: int, stop: int) -> None:
        self.build, self.start, self.stop = build, start, stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, place: int) -> Batch:
        return self.build(self.start + place)


class TrainingBatches(Generic[Batch]):
    """`build` made ready ahead of time by `num_workers` processes; call it with rising steps.

    The batches are `build`'s whatever the number of workers. `steps` is the whole run. With
    0 workers each batch is made when it is asked for. Close it, or use it in a `with` block.
    """

    def __init__(self, build: Callable[[int], Batch], steps: int, *, num_workers: int = 0) -> None:
        if num_workers < 0:
            raise ValueError(f"num_workers must be at least 0, got {num_workers}")
        self._build = build
        self._steps = steps
        self._num_workers = num_workers
        self._ahead: Iterator[Batch] | None = None
        self._next = -1

    def __call__(self, step: int) -> Batch:
        if not 0 <= step < self._steps:
            raise ValueError(f"step {step} lies outside the run of {self._steps} steps")
        if self._num_workers == 0:
            return self._build(step)
        if self._ahead is None or step != self._next:
            self._ahead = self._start(step)
        self._next = step + 1
        return next(self._ahead)

    def _start(self, step: int) -> Iterator[Batch]:
        loader: DataLoader[Any] = DataLoader(
            _Steps(self._build, step, self._steps),
            batch_size=None,
            collate_fn=_as_is,
            num_workers=self._num_workers,
        )
        return iter(loader)

    def close(self) -> None:
        """End the loading processes."""
        self._ahead = None

    def __enter__(self) -> TrainingBatches[Batch]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _as_is(batch: Batch) -> Batch:
    return batch
