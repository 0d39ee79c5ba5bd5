"""The formula for saved activations against the bytes that autograd saves."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from benchmarks.workload import tiny
from tests.models.tiny import NoiseLatents
from tests.planning.measured import SavedBytes, recomputed
from tests.planning.phases import real_pack, wide
from unigendet.config import ModelConfig
from unigendet.models.unified import UniGenDetModel
from unigendet.objectives import GdufObjective
from unigendet.planning.activations import Learning, Precision, activations, numbers
from unigendet.planning.packs import shape_of
from unigendet.planning.parameters import count_parameters
from unigendet.training.optim import select_trainable

TOLERANCE = 0.15


def saved(model: UniGenDetModel, config: ModelConfig, precision: Precision, samples: int) -> int:
    batch = real_pack(config, samples, samples)
    autocast = torch.autocast("cpu", dtype=torch.bfloat16)
    with SavedBytes(model) as found, autocast if precision == "bf16" else nullcontext():
        GdufObjective(NoiseLatents())(model, batch)
    return found.total


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("config", [tiny(), wide()], ids=["tiny", "gpu-256"])
def test_saved_bytes(config: ModelConfig, recompute: bool, precision: Precision) -> None:
    torch.manual_seed(0)
    model = UniGenDetModel(config)
    if recompute:
        recomputed(model)
    pack = shape_of(real_pack(config, 4, 4))
    plan = activations(config, pack, numbers(precision, "cpu"), Learning(), recompute=recompute)
    # Alive, but saved by no operation: masks as they come (with recomputation, masks at all) and
    # the logits, of which the loss saves log-probabilities.
    unsaved = pack.pairs * (5 if recompute else 1)
    unsaved += pack.answers * config.llm.vocab_size * numbers(precision, "cpu").linear
    expected = plan.kept - unsaved
    if precision == "bf16":  # autocast's copies of the weights
        counts = count_parameters(config)
        expected += 2 * ((counts.root if recompute else counts.total) - counts.embedding)
    assert expected == pytest.approx(saved(model, config, precision, 4), rel=TOLERANCE)


def test_frozen_parts_keep_less() -> None:
    config, trainable = tiny(), (".*moe_gen.*",)
    model = UniGenDetModel(config)
    select_trainable(model, trainable)
    pack = shape_of(real_pack(config, 4, 4))
    learning = count_parameters(config, trainable).learning
    plan = activations(config, pack, numbers("fp32"), learning, recompute=False)
    unsaved = pack.pairs + pack.answers * config.llm.vocab_size * 4
    assert plan.kept - unsaved == pytest.approx(saved(model, config, "fp32", 4), rel=TOLERANCE)
    everything = activations(config, pack, numbers("fp32"), Learning(), recompute=False)
    assert plan.kept < 0.8 * everything.kept
