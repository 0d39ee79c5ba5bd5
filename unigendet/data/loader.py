"""Training batches as a function of (seed, step): streams of samples, composed, planned, packed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from unigendet.config import ModelConfig
from unigendet.data.composition import (
    FAKE,
    GENERATION,
    REAL,
    STREAMS,
    Budget,
    Composition,
    Counts,
    Place,
    Share,
    TokenBudget,
    by_stream,
    samples_per_step,
)
from unigendet.data.degradations import Degradations
from unigendet.data.packing import pack
from unigendet.data.prompts import detection_plan, generation_plan, teacher_plan
from unigendet.data.replay import ReplayStream
from unigendet.data.shards import ShardDataset
from unigendet.data.streams import SampleStream, Selection, draw_generator
from unigendet.data.token_counts import detection_tokens, generation_tokens
from unigendet.data.tokenizer import Tokenizer
from unigendet.types import AlignmentBatch, PackedBatch, Sample

Batch = TypeVar("Batch")


class MixedBatches:
    """Batches of generation and detection samples in one pack: what GDUF trains on.

    Generation samples are real. Numbers per step are of all ranks together.

    Args:
        real: sets whose real samples are used; fakes in them are passed over.
        fakes: sets whose fake samples are used; one set may be in both lists.
        fresh: further sets of fakes, which take `fresh_share` of the fakes' positions.
        detection_per_step: half of them real, half fake.
        budget: fills packs by tokens; the numbers per step then only say which streams there are.
        explanations: reference answers by key, for samples stored without.
        degradations: what images to judge go through, real and fake alike.
        text_dropout: share of captions left out, in [0, 1].
    """

    def __init__(
        self,
        real: Sequence[ShardDataset],
        fakes: Sequence[ShardDataset] = (),
        *,
        fresh: Sequence[ShardDataset] = (),
        fresh_share: float = 0.0,
        generation_per_step: int,
        detection_per_step: int,
        tokenizer: Tokenizer,
        config: ModelConfig,
        seed: int,
        rank: int = 0,
        world: int = 1,
        budget: Budget | None = None,
        text_dropout: float = 0.1,
        explanations: Mapping[str, str] | None = None,
        degradations: Degradations | None = None,
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
        per_step = samples_per_step(generation_per_step, detection_per_step)
        chosen = {False: Selection(real, fake=False, explanations=explanations)}
        if FAKE in per_step:
            chosen[True] = Selection([*fakes, *fresh], fake=True, explanations=explanations)
        self._streams = {
            name: SampleStream(
                chosen[name == FAKE],
                seed=3 * seed + STREAMS.index(name),
                # Real and fake go through the same; images to generate through none.
                degradations=None if name == GENERATION else degradations,
            )
            for name in per_step
        }
        if FAKE in per_step and fresh:
            self._streams[FAKE] = ReplayStream(
                chosen[True],
                fresh=len(Selection(fresh, fake=True)),
                share=fresh_share,
                seed=3 * seed + STREAMS.index(FAKE),
                degradations=degradations,
            )
        share = Share(rank, world)
        self._composition: Composition
        if budget is None:
            self._composition = Counts(per_step, share)
        else:
            most = budget.limits.max_num_tokens_per_sample
            sizes = {name: self._sizes(name, chosen[name == FAKE], most) for name in per_step}
            self._composition = TokenBudget(budget, sizes, share, seed=seed)

    def samples(self, step: int) -> tuple[list[Sample], list[Sample]]:
        """Generation and detection samples of one step, augmented."""
        return self._read(self._composition.places(step))

    def batch(self, step: int) -> PackedBatch:
        """The pack of one step, with every draw that the step needs."""
        places = self._composition.places(step)
        return self._pack(*self._read(places), self._generators(places))

    def alignment_batch(self, step: int) -> AlignmentBatch:
        """The same pack beside the teacher's view of what it generates: what DIGA trains on."""
        places = self._composition.places(step)
        generation, detection = self._read(places)
        if not generation:
            raise ValueError("DIGA aligns generation samples: generation_per_step must be above 0")
        generators = self._generators(places)
        student = self._pack(generation, detection, generators)
        plans = [teacher_plan(sample, self._tokenizer, self._config) for sample in generation]
        own = generators[: len(plans)]
        teacher = pack(plans, self._config, self._tokenizer.markers, own)
        return AlignmentBatch(generation=student, teacher=teacher, step=step)

    def _read(self, places: Sequence[Place]) -> tuple[list[Sample], list[Sample]]:
        read = {
            name: [stream.at(position) for position in by_stream(places, name)]
            for name, stream in self._streams.items()
        }
        return read.get(GENERATION, []), [*read.get(REAL, []), *read.get(FAKE, [])]

    def _generators(self, places: Sequence[Place]) -> list[torch.Generator]:
        """One for each sample, in the order of the places."""
        return [draw_generator(self._seed, STREAMS.index(name), p) for name, p in places]

    def _sizes(self, name: str, samples: Selection, most: int) -> Callable[[int], int]:
        """By position of a stream, the tokens of its sample; each sample is counted once."""
        known: dict[int, int] = {}

        def size(position: int) -> int:
            index = self._streams[name].index(position)
            if index not in known:
                outline = samples.outline(index)
                known[index] = (
                    generation_tokens(outline, self._tokenizer, self._config)
                    if name == GENERATION
                    else detection_tokens(outline, self._tokenizer, self._config)
                )
                if known[index] > most:
                    raise ValueError(
                        f"a sample takes {known[index]} tokens, more than the {most} of the budget "
                        f"({outline.width} x {outline.height} pixels, caption "
                        f"{outline.caption[:60]!r}): raise max_num_tokens_per_sample"
                    )
            return known[index]

        return size

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
        plans += [detection_plan(sample, tokenizer, config) for sample in detection]
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
