"""What makes a step cheaper leaves what is learnt as it is: compiled blocks, recomputation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.training.rank_process import gduf, gduf_batch, run
from tests.training.toy import toy_batch, toy_model, toy_objective
from unigendet.config import AutoencoderConfig, AutoencoderWeights, OptimConfig
from unigendet.models.vae import LatentAutoencoder
from unigendet.training.autoencoder import (
    AutoencoderBatch,
    AutoencoderObjective,
    AutoencoderTrainee,
    PatchCritic,
)
from unigendet.training.loop import LogRow, train

CONFIG = OptimConfig(steps=2, lr=1e-3, log_every=1)


@pytest.mark.slow
def test_compiled_blocks_have_the_same_losses() -> None:
    plain, _ = run(gduf(), gduf_batch, CONFIG)
    compiled, _ = run(gduf(), gduf_batch, replace(CONFIG, compile=True))
    for step, terms in plain.items():
        assert compiled[step] == pytest.approx(terms, rel=1e-4)


def test_recomputation_trains_the_same_model() -> None:
    plain, first = run(gduf(), gduf_batch, CONFIG)
    recomputed, second = run(gduf(), gduf_batch, replace(CONFIG, recompute=True))
    assert recomputed == plain
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def autoencoder(
    config: OptimConfig, *, critic: bool = False
) -> tuple[list[LogRow], AutoencoderTrainee]:
    """Two steps of a small autoencoder."""
    torch.manual_seed(0)
    vae = LatentAutoencoder(AutoencoderConfig(8, (1, 2), 1, 3, norm_groups=4))
    model, rows = AutoencoderTrainee(vae, PatchCritic(8) if critic else None), list[LogRow]()
    objective = AutoencoderObjective(AutoencoderWeights(adversary=0.5, adversary_from=0.0))

    def batch(step: int) -> AutoencoderBatch:
        draws = torch.Generator().manual_seed(step)
        pixels = torch.rand(2, 3, 16, 16, generator=draws) * 2 - 1
        return AutoencoderBatch(pixels, torch.randn(2, 3, 8, 8, generator=draws), 0.0)

    train(model, objective, batch, config, on_log=rows.append)
    return rows, model


def test_recomputation_trains_the_same_autoencoder() -> None:
    plain, _ = autoencoder(CONFIG)
    recomputed, model = autoencoder(replace(CONFIG, recompute=True))
    assert model.vae.kl.encoder.gradient_checkpointing
    for row, expected in zip(recomputed, plain, strict=True):
        assert row.terms == expected.terms
        assert row.grad_norm == pytest.approx(expected.grad_norm, rel=1e-6)


@pytest.mark.slow
def test_a_compiled_autoencoder_has_the_same_losses() -> None:
    plain, _ = autoencoder(CONFIG, critic=True)
    compiled, model = autoencoder(replace(CONFIG, compile=True), critic=True)
    assert model.blocks() == [model.vae.kl.encoder, model.vae.kl.decoder]
    assert all(part._compiled_call_impl is not None for part in model.blocks())
    for row, expected in zip(compiled, plain, strict=True):
        assert row.terms == pytest.approx(expected.terms, rel=1e-4)
        assert row.grad_norm == pytest.approx(expected.grad_norm, rel=1e-4)


def test_a_model_that_cannot_recompute_says_so() -> None:
    with pytest.raises(ValueError, match="Sequential cannot recompute: set `recompute: false`"):
        train(toy_model(), toy_objective, toy_batch, replace(CONFIG, recompute=True))
