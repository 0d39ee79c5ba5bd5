"""Replay: fresh samples at a fixed share of a stream, older ones at its other positions."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor

from unigendet.data.degradations import Degradations
from unigendet.data.streams import SampleStream, epoch_order
from unigendet.types import Sample


class ReplayStream(SampleStream):
    """A stream in which the last `fresh` of `samples` take `share` of the positions.

    They are spread evenly: n positions in a row hold n * share of them, give or take one, whatever
    the sizes of both parts. Each part goes through epochs of its own, so that a small one comes
    again sooner, augmented anew.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        fresh: int,
        share: float,
        seed: int,
        augment: bool = True,
        degradations: Degradations | None = None,
    ) -> None:
        super().__init__(samples, seed=seed, augment=augment, degradations=degradations)
        if not 0 < fresh < len(samples):
            raise ValueError(f"some of {len(samples)} samples can be fresh, not {fresh}")
        if not 0 < share <= 1:
            raise ValueError(f"the share of fresh samples must lie above 0, at most 1, not {share}")
        self._fresh, self._share = fresh, share

    def place(self, position: int) -> tuple[int, int]:
        before = floor(position * self._share)
        if floor((position + 1) * self._share) > before:
            count, first, nth = self._fresh, len(self.samples) - self._fresh, before
        else:
            count, first, nth = len(self.samples) - self._fresh, 0, position - before
        epoch, place = divmod(nth, count)
        return first + int(epoch_order(count, self._seed, epoch)[place]), epoch
