"""Which positions of which streams a step reads, and which of them a rank does.

`Counts` takes fixed numbers of samples; `TokenBudget` fills packs up to a number of tokens, for
images of many sizes, from streams mixed by weights. Both are functions of the step: ranks read
parts of one plan, and a resumed run reads what an uninterrupted one would have.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Protocol

import numpy as np

from unigendet.data.packing_loop import PackingLimits, PackingLoop, SampleGroup

GENERATION, REAL, FAKE = STREAMS = ("generation", "real", "fake")
"""Real images to generate, real and fake images to judge; their order in a pack, and in seeds."""

_MIXTURE = 3
"""Sets the draws of the mixture apart from other random streams of a seed."""

Place = tuple[str, int]
"""A stream's name, and a position in it."""


def samples_per_step(generation: int, detection: int) -> dict[str, int]:
    """Samples of each stream that a phase has; of those to judge half are real, half fake."""
    half = detection // 2
    per_step = {GENERATION: generation, REAL: half, FAKE: half}
    return {name: number for name, number in per_step.items() if number}


@dataclass(frozen=True, slots=True)
class Share:
    """Which rank of how many."""

    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise ValueError(
                f"rank must lie in 0..{self.world - 1} (world = {self.world}), got {self.rank}"
            )

    def of(self, number: int, what: str) -> range:
        """This rank's equal part of `number` things."""
        if number % self.world:
            raise ValueError(
                f"a step's {number} {what} cannot be shared by {self.world} workers: choose a "
                f"number that {self.world} divides, or another number of workers"
            )
        size = number // self.world
        return range(self.rank * size, (self.rank + 1) * size)


class Composition(Protocol):
    """What a rank reads at a step."""

    def places(self, step: int) -> list[Place]:
        """This rank's samples, stream by stream."""


class Counts:
    """The same number of samples of each stream in every step, shared equally by the ranks."""

    def __init__(self, per_step: Mapping[str, int], share: Share) -> None:
        """`per_step`: samples of all ranks together, by stream; at least 1 each."""
        self._own = {name: share.of(number, "samples") for name, number in per_step.items()}
        self._per_step = dict(per_step)

    def places(self, step: int) -> list[Place]:
        return [
            (name, step * self._per_step[name] + place)
            for name, own in self._own.items()
            for place in own
        ]


@dataclass(frozen=True, slots=True)
class Budget:
    """How packs are filled; sizes in tokens."""

    packs_per_step: int
    """Of all ranks together."""
    limits: PackingLimits
    mixture: tuple[tuple[int, Mapping[str, float]], ...]
    """From a step on (the first one 0), the streams' weights. Every pack begins with a sample of
    each stream whose weight is above 0 and holds none of the others, so that ranks never differ in
    what they compute."""

    def __post_init__(self) -> None:
        steps = [step for step, _ in self.mixture]
        if not steps or steps[0] != 0 or steps != sorted(set(steps)):
            raise ValueError(f"a mixture begins at step 0 and goes on at later steps, not {steps}")
        for step, weights in self.mixture:
            if min(weights.values(), default=0.0) < 0 or not sum(weights.values()) > 0:
                raise ValueError(
                    f"mixture from step {step}: weights must be at least 0, some above"
                )

    def check(self, streams: Collection[str], *, always: Collection[str] = ()) -> None:
        """Raise ValueError where a mixture draws none of a phase's streams, or not all `always`."""
        for step, weights in self.mixture:
            if not any(weights.get(name, 0.0) > 0 for name in streams):
                raise ValueError(
                    f"mixture from step {step}: draws none of the streams that the phase has "
                    f"({', '.join(streams)}): give one of them a weight above 0"
                )
            for name in always:
                if not weights.get(name, 0.0) > 0:
                    raise ValueError(
                        f"mixture from step {step}: the phase cannot do without {name} samples: "
                        "give them a weight above 0"
                    )

    def weights(self, step: int) -> Mapping[str, float]:
        """The mixture in force at a step."""
        return [weights for start, weights in self.mixture if start <= step][-1]


class TokenBudget:
    """Packs of about `budget.limits.expected_num_tokens` tokens; no sample is lost between them,
    but those that wait of a stream when the mixture leaves it out.

    The plan is made step by step from the first one on, by sizes alone. Asked for a step far ahead,
    as after a restart, it goes through all those before.
    """

    def __init__(
        self,
        budget: Budget,
        sizes: Mapping[str, Callable[[int], int]],
        share: Share,
        *,
        seed: int,
    ) -> None:
        """`sizes`: by stream of the phase, the tokens that the sample at a position takes."""
        budget.check(sizes)
        self._budget, self._sizes, self._seed = budget, dict(sizes), seed
        self._own = share.of(budget.packs_per_step, "packs")
        self._steps: Iterator[list[list[Place]]] = iter(())
        self._next = -1
        self._packs: list[list[Place]] = []

    def places(self, step: int) -> list[Place]:
        if step < self._next - 1 or self._next < 0:
            self._steps, self._next = self._plan(), 0
        while self._next <= step:
            self._packs = next(self._steps)
            self._next += 1
        own = [place for number in self._own for place in self._packs[number]]
        order = list(self._sizes)
        return sorted(own, key=lambda place: order.index(place[0]))

    def _plan(self) -> Iterator[list[list[Place]]]:
        draws = np.random.default_rng([_MIXTURE, self._seed])
        groups = {name: SampleGroup(_endless(name), weight=1.0) for name in self._sizes}
        loop = PackingLoop(
            list(groups.values()),
            self._budget.limits,
            size=lambda place: self._sizes[place[0]](place[1]),
            draw=draws.random,
        )
        packs = iter(loop)
        for step in count():
            weights = self._budget.weights(step)
            for name, group in groups.items():
                group.weight = weights.get(name, 0.0)
                group.mandatory = group.weight > 0
            yield [next(packs) for _ in range(self._budget.packs_per_step)]


def _endless(name: str) -> Iterator[Place]:
    return ((name, position) for position in count())


def by_stream(places: Sequence[Place], name: str) -> list[int]:
    """The positions of one stream among `places`."""
    return [position for stream, position in places if stream == name]
