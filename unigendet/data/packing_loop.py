"""Which samples share a batch: draws, limits, a buffer for what did not fit (specification 2)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class PackingLimits:
    """Sizes in tokens, estimated before packing."""

    expected_num_tokens: int
    """A batch is emitted once it is this long."""
    max_num_tokens: int
    """It is never longer than this, unless the samples that every batch starts with already are."""
    max_num_tokens_per_sample: int
    """Larger samples are skipped."""
    prefer_buffer_before: int
    """A batch shorter than this takes a waiting sample before it draws a new one."""
    max_buffer_size: int
    """How many samples may wait."""


@dataclass(slots=True)
class SampleGroup(Generic[Item]):
    """A stream of samples that are drawn with a common weight."""

    samples: Iterator[Item]
    weight: float
    """0: nothing is drawn from it, and what waits of it is dropped."""
    mandatory: bool = False
    """Every batch starts with one of its samples."""


@dataclass(slots=True)
class PackingLoop(Generic[Item]):
    """Iterates over batches, lists of samples.

    The published loop loses the sample whose arrival makes it emit a batch, and does not start one
    with a sample of exactly the largest size. Here the first opens the next batch, in the place of
    a mandatory sample where its group has one (beside one it might fit into no batch ever), and the
    second is as good as any, unless `as_published`. Streams may end: the batches then go on with
    the others, and what waits is emitted last. Weights may change between batches.
    """

    groups: Sequence[SampleGroup[Item]]
    limits: PackingLimits
    size: Callable[[Item], int]
    draw: Callable[[], float]
    """A uniform number in [0, 1) that chooses the group of the next sample."""
    as_published: bool = False
    _live: list[SampleGroup[Item]] = field(init=False)
    _buffer: deque[tuple[SampleGroup[Item], Item]] = field(init=False, default_factory=deque)
    _overflow: tuple[SampleGroup[Item], Item] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if not self.groups or any(group.weight <= 0 for group in self.groups):
            raise ValueError("Packing needs at least one group, each with a weight above 0.")
        if self.limits.max_num_tokens_per_sample > self.limits.max_num_tokens:
            raise ValueError("A sample may not be larger than a batch: check the packing limits.")
        self._live = list(self.groups)

    def __iter__(self) -> Iterator[list[Item]]:
        while self._has_samples():
            batch = self._batch()
            if batch:
                yield batch

    def _has_samples(self) -> bool:
        return bool(self._drawn() or self._buffer or self._overflow)

    def _drawn(self) -> list[SampleGroup[Item]]:
        return [group for group in self._live if group.weight > 0]

    def _batch(self) -> list[Item]:
        self._drop_what_waits_in_vain()
        batch: list[Item] = []
        length = 0
        for group in [group for group in self._live if group.mandatory]:
            sample = self._first_of(group)
            if sample is not None:
                batch.append(sample)
                length += self.size(sample)
        while self._has_samples():
            group, sample, waited = self._candidate(length)
            if sample is None or self.size(sample) > self.limits.max_num_tokens_per_sample:
                continue
            if length + self.size(sample) > self.limits.max_num_tokens:
                if not waited and len(self._buffer) < self.limits.max_buffer_size:
                    self._buffer.append((group, sample))
                    continue
                if not self.as_published:
                    self._overflow = group, sample
                break
            batch.append(sample)
            length += self.size(sample)
            if length >= self.limits.expected_num_tokens:
                break
        return batch

    def _drop_what_waits_in_vain(self) -> None:
        self._buffer = deque(one for one in self._buffer if one[0].weight > 0)
        if self._overflow and not self._overflow[0].weight > 0:
            self._overflow = None

    def _first_of(self, group: SampleGroup[Item]) -> Item | None:
        """A mandatory group's sample for the start of a batch, None where its stream has ended."""
        if self._overflow and self._overflow[0] is group:
            (_, sample), self._overflow = self._overflow, None
            return sample
        return self._next(group, self.limits.max_num_tokens_per_sample - self.as_published)

    def _candidate(self, length: int) -> tuple[SampleGroup[Item], Item | None, bool]:
        """A group, its next sample, None where its stream has ended, and whether that waited."""
        if self._overflow:
            waiting, self._overflow = self._overflow, None
            return *waiting, True
        if self._buffer and (length < self.limits.prefer_buffer_before or not self._drawn()):
            return *self._buffer.popleft(), True
        group = self._drawn_group()
        return group, self._next(group), False

    def _drawn_group(self) -> SampleGroup[Item]:
        """The first live group whose cumulative share of the weights exceeds a uniform draw."""
        groups = self._drawn()
        remaining = self.draw() * sum(group.weight for group in groups)
        for group in groups:
            remaining -= group.weight
            if remaining < 0:
                return group
        return groups[-1]

    def _next(self, group: SampleGroup[Item], at_most: int | None = None) -> Item | None:
        for sample in group.samples:
            if at_most is None or self.size(sample) <= at_most:
                return sample
        self._live.remove(group)
        return None
