"""The terms of the training loss (specification 6 and 7) and their weighted sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from unigendet import parallel
from unigendet.config import LossWeights


@dataclass(frozen=True, slots=True)
class LossTerms:
    """Scalars; a term that the batch has no data for is 0. `total` is their weighted sum."""

    flow_loss: Tensor
    text_loss: Tensor
    det_loss: Tensor
    align_loss: Tensor
    total: Tensor
    align_weight: float | None = None
    """Weight of `align_loss` in this total, where it follows a schedule."""

    def scalars(self) -> Mapping[str, float]:
        """Every term by its name, for logs, and the weight that follows a schedule."""
        names = ("flow_loss", "text_loss", "det_loss", "align_loss", "total")
        found = {name: float(getattr(self, name).detach()) for name in names}
        if self.align_weight is not None:
            found["align_weight"] = self.align_weight
        return found


def weighted_sum(
    weights: LossWeights,
    *,
    flow: Tensor | None = None,
    text: Tensor | None = None,
    det: Tensor | None = None,
    align: Tensor | None = None,
) -> LossTerms:
    """The total of the given terms; a missing one counts as 0."""
    given = [term for term in (flow, text, det, align) if term is not None]
    if not given:
        raise ValueError("A loss needs at least one term.")
    zero = given[0].new_zeros(())
    flow, text, det, align = (zero if t is None else t for t in (flow, text, det, align))
    total = weights.flow * flow + weights.text * text + weights.det * det + weights.align * align
    return LossTerms(flow, text, det, align, total)


def mean_over_workers(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """This worker's part of the mean of all workers' values (N,), times their number.

    Gradients are averaged over workers afterwards; together that is the mean over all values, also
    where workers hold different numbers of them (specification 6). `weights` (N,) make it
    `sum(w v) / sum(w)`.
    """
    values = values.float()
    if weights is None:
        total, count = values.sum(), torch.tensor(float(values.numel()), device=values.device)
    else:
        total, count = (weights * values).sum(), weights.sum()
    count = parallel.sum_over_ranks(count)
    # Without any value the sum is 0 whatever it is divided by.
    return total * parallel.world() / torch.where(count > 0, count, 1.0)


def flow_loss(velocity: Tensor, target: Tensor) -> Tensor:
    """Squared error (N, C), mean over channels, then over the tokens of all workers."""
    return mean_over_workers((velocity.float() - target.float()).square().mean(-1))


def text_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Next-token cross entropy of logits (N, vocabulary), mean over all workers' places.

    `weights` (N,): re-weighting per place, `sum(w ce) / sum(w)` over all workers.
    """
    values = F.cross_entropy(logits.float(), labels, reduction="none")
    return mean_over_workers(values, weights)


def det_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of the verdicts (N, 2), mean over all workers' answers; 0 without any."""
    return mean_over_workers(F.cross_entropy(logits.float(), labels, reduction="none"))


def resized_grids(
    tokens: Tensor, shapes: Sequence[tuple[int, int]], targets: Sequence[tuple[int, int]]
) -> Tensor:
    """Token grids brought to other sizes, bilinearly (align_corners false, no antialias).

    Args:
        tokens: (sum of rows * columns, C), images one after another in raster order.
        shapes: (rows, columns) of each image now.
        targets: (rows, columns) of each image afterwards.

    Returns:
        (sum of target rows * columns, C).
    """
    if len(set(shapes)) == 1 and len(set(targets)) == 1:
        # Images of one size, the usual case: one call.
        grid = tokens.reshape(len(shapes), *shapes[0], -1).permute(0, 3, 1, 2)
        return _resize(grid, targets[0])
    parts = torch.split(tokens, [rows * columns for rows, columns in shapes])
    return torch.cat(
        [
            _resize(part.reshape(1, *shape, -1).permute(0, 3, 1, 2), target)
            for part, shape, target in zip(parts, shapes, targets, strict=True)
        ]
    )


def _resize(grid: Tensor, target: tuple[int, int]) -> Tensor:
    if tuple(grid.shape[2:]) != target:
        grid = F.interpolate(grid, size=target, mode="bilinear", align_corners=False)
    return grid.permute(0, 2, 3, 1).flatten(0, 2)


def align_loss(projected: Tensor, teacher: Tensor) -> Tensor:
    """`1 - mean cosine` between rows (N, C) of the projected tap and of the teacher (section 7)."""
    cosine = F.cosine_similarity(projected.float(), teacher.float(), dim=-1, eps=1e-8)
    return mean_over_workers(1 - cosine)
