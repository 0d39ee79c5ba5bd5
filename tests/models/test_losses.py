"""The terms of the loss against their definitions."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from unigendet.config import LossWeights
from unigendet.losses import (
    align_loss,
    det_loss,
    flow_loss,
    mean_over_workers,
    resized_grids,
    text_loss,
    weighted_sum,
)


def test_terms_by_hand() -> None:
    velocity = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    target = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    assert float(flow_loss(velocity, target)) == pytest.approx((2.5 + 2.0) / 2)
    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]])
    labels = torch.tensor([0, 0])
    values = [math.log(2.0), math.log(4 / 3)]
    assert float(det_loss(logits, labels)) == pytest.approx(sum(values) / 2)
    assert float(text_loss(logits, labels)) == pytest.approx(sum(values) / 2)
    weights = torch.tensor([1.0, 3.0])
    weighted = (values[0] + 3 * values[1]) / 4
    assert float(text_loss(logits, labels, weights)) == pytest.approx(weighted)
    first, second = torch.tensor([[1.0, 0.0]] * 2), torch.tensor([[2.0, 0.0], [0.0, 5.0]])
    assert float(align_loss(first, second)) == pytest.approx(0.5)


def test_every_term_reaches_the_total_with_its_weight() -> None:
    terms = [torch.tensor(value, requires_grad=True) for value in (2.0, 3.0, 5.0, 7.0)]
    flow, text, det, align = terms
    weights = LossWeights(flow=0.5, text=0.25, det=4.0, align=2.0)
    losses = weighted_sum(weights, flow=flow, text=text, det=det, align=align)
    assert float(losses.total.detach()) == 0.5 * 2 + 0.25 * 3 + 4 * 5 + 2 * 7
    losses.total.backward()
    assert [float(term.grad) for term in terms if term.grad is not None] == [0.5, 0.25, 4.0, 2.0]
    assert losses.scalars() == {
        "flow_loss": 2.0,
        "text_loss": 3.0,
        "det_loss": 5.0,
        "align_loss": 7.0,
        "total": 35.75,
    }


def test_missing_terms_are_zero_and_no_term_is_an_error() -> None:
    losses = weighted_sum(LossWeights(), flow=torch.tensor(2.0))
    assert losses.scalars()["det_loss"] == 0 and float(losses.total) == 2
    with pytest.raises(ValueError, match="at least one term"):
        weighted_sum(LossWeights())


def test_no_values_give_a_zero_that_can_be_differentiated() -> None:
    empty = torch.zeros(0, 4, requires_grad=True)
    loss = flow_loss(empty, torch.zeros(0, 4)) + det_loss(empty[:, :2], torch.zeros(0).long())
    loss.backward()
    assert float(loss.detach()) == 0


def test_mean_over_uneven_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers with 1 and 3 values: the mean of the two results is the mean over the four."""
    values = torch.tensor([1.0, 2.0, 3.0, 6.0])
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda count: count.fill_(4.0))
    shares = [mean_over_workers(part) for part in (values[:1], values[1:])]
    assert float(sum(shares) / 2) == pytest.approx(float(values.mean()))


def test_grids_of_several_sizes_are_resized_one_by_one() -> None:
    shapes, targets = [(2, 3), (4, 4), (3, 3)], [(4, 2), (2, 2), (3, 3)]
    tokens = torch.randn(6 + 16 + 9, 5, generator=torch.Generator().manual_seed(0))
    resized = resized_grids(tokens, shapes, targets)
    start, out = 0, 0
    for (h, w), (to_h, to_w) in zip(shapes, targets, strict=True):
        grid = tokens[start : start + h * w].T.reshape(1, 5, h, w)
        expected = F.interpolate(grid, size=(to_h, to_w), mode="bilinear", align_corners=False)
        actual = resized[out : out + to_h * to_w]
        torch.testing.assert_close(actual, expected[0].flatten(1).T)
        start, out = start + h * w, out + to_h * to_w
    assert out == len(resized)
    torch.testing.assert_close(resized[-9:], tokens[-9:], atol=0, rtol=0)


def test_grids_of_one_size_in_one_call() -> None:
    tokens = torch.randn(3 * 6, 4, generator=torch.Generator().manual_seed(0))
    together = resized_grids(tokens, [(2, 3)] * 3, [(4, 4)] * 3)
    single = [resized_grids(part, [(2, 3)], [(4, 4)]) for part in tokens.split(6)]
    torch.testing.assert_close(together, torch.cat(single))
