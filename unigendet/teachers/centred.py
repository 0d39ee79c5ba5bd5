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
            many.
    """

    def __init__(self, teacher: Teacher, batches: Iterable[AlignmentBatch]) -> None:
        super().__init__()
        self.teacher = teacher
        features = torch.cat([teacher(batch).double() for batch in batches])
        count = torch.full((1,), float(len(features)), dtype=torch.double, device=features.device)
        total = parallel.sum_over_ranks(torch.cat([features.sum(0), count]))
        self.mean: Tensor
        self.register_buffer("mean", (total[:-1] / total[-1]).float())

    @property
    def width(self) -> int:
        return self.teacher.width

    def forward(self, batch: AlignmentBatch) -> Tensor:
        """(Nf, width)."""
        return self.teacher(batch).float() - self.mean
