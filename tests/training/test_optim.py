"""Schedule, running average and the optimizer's own rule, against plain formulas."""

from __future__ import annotations

import math

import pytest
import torch

from tests.training.toy import toy_batch, toy_model, toy_objective
from unigendet.config import OptimConfig
from unigendet.training.loop import train
from unigendet.training.optim import Ema, learning_rate


def test_the_schedule_warms_up_then_follows_a_half_cosine() -> None:
    config = OptimConfig(steps=110, lr=0.2, warmup_steps=10, schedule="cosine")
    assert learning_rate(config, 0) == pytest.approx(0.02)
    assert learning_rate(config, 9) == pytest.approx(0.2)
    assert learning_rate(config, 60) == pytest.approx(0.1)
    assert learning_rate(config, 109) == pytest.approx(0.1 * (1 + math.cos(0.99 * math.pi)))
    constant = OptimConfig(steps=110, lr=0.2, warmup_steps=10)
    assert learning_rate(constant, 109) == 0.2


def test_the_average_follows_its_recursion() -> None:
    parameter = torch.nn.Parameter(torch.tensor([1.0]))
    ema = Ema({"w": parameter}, decay=0.3)
    expected = 1.0
    for updates, value in enumerate([2.0, 5.0, -1.0, 3.0, 3.0, 8.0]):
        with torch.no_grad():
            parameter.fill_(value)
        ema.update(updates)
        decay = min(0.3, (1 + updates) / (10 + updates))
        expected = decay * expected + (1 - decay) * value
    assert ema.shadow["w"].item() == pytest.approx(expected)


def test_the_average_is_in_the_model_only_inside_the_block() -> None:
    model = toy_model()
    result = train(model, toy_objective, toy_batch, OptimConfig(steps=5, lr=0.05))
    own = model.get_parameter("0.weight").detach().clone()
    with result.ema.in_model():
        assert torch.equal(model.get_parameter("0.weight"), result.ema.shadow["0.weight"])
    assert torch.equal(model.get_parameter("0.weight"), own)
    assert not torch.equal(own, result.ema.shadow["0.weight"])
    result.ema.copy_to_model()
    assert torch.equal(model.get_parameter("0.weight"), result.ema.shadow["0.weight"])


def test_a_decay_of_one_would_never_move() -> None:
    with pytest.raises(ValueError, match=r"ema_decay is 1\.0"):
        Ema({}, decay=1.0)


def test_two_steps_of_adamw_agree_with_the_published_rule() -> None:
    config = OptimConfig(
        steps=2, lr=0.01, betas=(0.8, 0.9), eps=1e-8, weight_decay=0.1, clip_norm=0.05
    )
    model, reference = toy_model(), toy_model()
    train(model, toy_objective, toy_batch, config)

    first = [torch.zeros_like(p) for p in reference.parameters()]
    second = [torch.zeros_like(p) for p in reference.parameters()]
    for step in range(2):
        loss = toy_objective(reference, toy_batch(step)).total
        grads = torch.autograd.grad(loss, list(reference.parameters()))
        norm = torch.sqrt(sum((g.square().sum() for g in grads), torch.tensor(0.0)))
        scale = min(1.0, 0.05 / (float(norm) + 1e-6))
        with torch.no_grad():
            for p, g, m, v in zip(reference.parameters(), grads, first, second, strict=True):
                g = g * scale
                p.mul_(1 - 0.01 * 0.1)
                m.mul_(0.8).add_(g, alpha=0.2)
                v.mul_(0.9).addcmul_(g, g, value=0.1)
                m_hat, v_hat = m / (1 - 0.8 ** (step + 1)), v / (1 - 0.9 ** (step + 1))
                p.sub_(0.01 * m_hat / (v_hat.sqrt() + 1e-8))
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-7, rtol=1e-5)
