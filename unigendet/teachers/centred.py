"""A teacher's features less what all of them share."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from unigendet import parallel
from unigendet.types import AlignmentBatch, Teacher


class CentredTeacher(nn.Module):
    """The features of `teacher` less their mean over the tokens of real images.

    A detector's features of real images all point one way: what they share is most of their length,
    so a projection that is constant is aligned to a cosine near 1 and has learned nothing of the
    image. Less their mean they differ from image to image and from place to place.

    Args:
        teacher: has to be frozen, or its mean would move on.
        batches: of this rank; the mean is over those of all ranks, and every rank calls with as
            many, at least one.

    Raises ValueError where there is no batch.
    """

    def __init__(self, teacher: Teacher, batches: Iterable[AlignmentBatch]) -> None:
        super().__init__()
        self.teacher = teacher
        # Batch by batch: of a large teacher's features there may be gigabytes.
        totals = [_sum_and_count(teacher(batch)) for batch in batches]
        if not totals:
            raise ValueError("a teacher is centred on at least one batch, and there is none")
        total = parallel.sum_over_ranks(torch.stack(totals).sum(0))
        self.mean: Tensor
        self.register_buffer("mean", (total[:-1] / total[-1]).float())

    @property
    def width(self) -> int:
        return self.teacher.width

    def forward(self, batch: AlignmentBatch) -> Tensor:
        """(Nf, width)."""
        return self.teacher(batch).float() - self.mean


def _sum_and_count(features: Tensor) -> Tensor:
    """(N, width) -> (width + 1,): the sum over the tokens, then their number."""
    count = features.new_full((1,), len(features), dtype=torch.double)
    return torch.cat([features.double().sum(0), count])
