"""A loss or gradient that is not finite stops the run: it says where, and the checkpoint stays."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.models.tiny import mixed_plans, tiny_config, tiny_model, tiny_pack
from tests.training.toy import ToyLosses, toy_batch, toy_model, toy_objective
from unigendet.config import OptimConfig
from unigendet.models.unified import UniGenDetModel
from unigendet.models.vae import LatentAutoencoder
from unigendet.objectives import GdufObjective
from unigendet.training.loop import train
from unigendet.training.nonfinite import NonFiniteError, first_nonfinite
from unigendet.types import PackedBatch

CONFIG = OptimConfig(steps=10, lr=0.01, checkpoint_every=5)
NAN, INF = float("nan"), float("inf")


class Blow(nn.Module):
    """Overflows what is large, as an exponential does."""

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return x, {"grown": (1e30 * x).exp()}


class BlownModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(toy_model(), nn.Identity())
        self.blow = Blow()
        self.last = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        _, parts = self.blow(self.inner(x))
        return self.last(parts["grown"])


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def stopped(
    model: nn.Module,
    batches: Callable[[int], object],
    folder: Path | None = None,
    **changes: object,
) -> str:
    config = replace(CONFIG, **changes)
    with pytest.raises(NonFiniteError) as caught:
        train(model, toy_objective, batches, config, checkpoint_dir=folder)
    return str(caught.value)


def test_a_damaged_batch_is_named_and_the_run_goes_on_from_the_checkpoint(tmp_path: Path) -> None:
    def batches(step: int) -> Tensor:
        return toy_batch(step).log() if step == 7 else toy_batch(step)

    model, seven = toy_model(), toy_model()
    message = stopped(model, batches, tmp_path)
    assert message.startswith("train, step 7: fit_loss = nan, size_loss = nan is not finite; ")
    assert "it begins at the batch. " in message
    assert f"the last checkpoint is {tmp_path / 'step-00000005'}. Lower" in message
    train(seven, toy_objective, toy_batch, replace(CONFIG, steps=7))
    assert same(model, seven)  # the failed step left the weights as they were

    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005"]
    resumed, whole = toy_model(), toy_model()
    result = train(resumed, toy_objective, toy_batch, CONFIG, checkpoint_dir=tmp_path)
    train(whole, toy_objective, toy_batch, CONFIG)
    assert result.resumed_from == 5 and same(resumed, whole)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_damaged_weight_is_named_before_any_module(value: float) -> None:
    model = toy_model()

    def batches(step: int) -> Tensor:
        if step == 3:
            model.get_parameter("2.weight").data[0, 0] = value
        return toy_batch(step)

    message = stopped(model, batches)
    assert "train, step 3: " in message and "it begins at the weight 2.weight. " in message
    assert "the last checkpoint is none yet" in message


def test_a_module_that_overflows_is_named_through_any_container() -> None:
    message = stopped(BlownModel(), toy_batch)
    assert "train, step 0: " in message and "it begins at blow, which reads finite" in message


def test_a_compiled_model_is_watched_as_it_was_written() -> None:
    model = BlownModel()
    model.compile(backend="eager")
    batch = toy_batch(0)
    model(batch)  # traced without hooks
    place = first_nonfinite({"": model}, batch, lambda: toy_objective(model, batch))
    assert place == "blow, which reads finite values"


def test_a_loss_of_its_own_making_is_said_to_be_so() -> None:
    def objective(model: nn.Module, batch: Tensor) -> ToyLosses:
        losses = toy_objective(model, batch)
        if torch.equal(batch, toy_batch(2)):
            return ToyLosses(losses.fit_loss, losses.size_loss * NAN)
        return losses

    model, two_steps = toy_model(), toy_model()
    with pytest.raises(NonFiniteError, match=r"step 2: size_loss = nan is not.*every module's out"):
        train(model, objective, toy_batch, CONFIG)
    train(two_steps, toy_objective, toy_batch, replace(CONFIG, steps=2))
    assert same(model, two_steps)


def test_gradients_are_named_in_the_order_of_the_backward_pass() -> None:
    def objective(model: nn.Module, batch: Tensor) -> ToyLosses:
        losses = toy_objective(model, batch)
        output = model(batch)
        infinite_slope = (output - output.detach()).abs().sum().sqrt()
        return ToyLosses(losses.fit_loss + infinite_slope, losses.size_loss)

    model = toy_model()
    with pytest.raises(NonFiniteError, match=r"step 0: the gradient of 2\.\w+ is not finite al.*3"):
        train(model, objective, toy_batch, CONFIG)
    assert same(model, toy_model())

    def only_a_bias(model: nn.Module, batch: Tensor) -> ToyLosses:
        bias = model.get_parameter("0.bias")
        losses = toy_objective(model, batch)
        return ToyLosses(losses.fit_loss + (bias - bias.detach()).abs().sum().sqrt(), losses.total)

    with pytest.raises(NonFiniteError, match=r"the gradient of 0\.bias is not finite"):
        train(toy_model(), only_a_bias, toy_batch, CONFIG)


def _break_weight(model: UniGenDetModel, vae: LatentAutoencoder, batch: PackedBatch) -> None:
    model.get_parameter("language_model.model.layers.1.mlp.up_proj.weight").data[3] = INF


def _break_batch(model: UniGenDetModel, vae: LatentAutoencoder, batch: PackedBatch) -> None:
    batch.noise[int(batch.flow_rows[0]), 0] = NAN


def _break_vae(model: UniGenDetModel, vae: LatentAutoencoder, batch: PackedBatch) -> None:
    next(vae.parameters()).data.fill_(INF)


def _overflow_leaf(model: UniGenDetModel, vae: LatentAutoencoder, batch: PackedBatch) -> None:
    model.get_parameter("language_model.model.layers.1.mlp.up_proj.weight").data.fill_(3e38)


def _overflow_product(model: UniGenDetModel, vae: LatentAutoencoder, batch: PackedBatch) -> None:
    mlp = model.get_submodule("language_model.model.layers.2.mlp_moe_gen")
    for name in ("gate_proj.weight", "up_proj.weight"):
        mlp.get_parameter(name).data *= 1e25


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("harm", "place"),
    [
        (_break_weight, "the weight language_model.model.layers.1.mlp.up_proj.weight"),
        (_break_batch, "the batch (noise)"),
        (_break_vae, "the weight vae."),
        (_overflow_leaf, "language_model.model.layers.1.mlp.up_proj, which"),
        (_overflow_product, "language_model.model.layers.2.mlp_moe_gen, which"),
    ],
)
def test_the_place_in_the_whole_model(
    harm: Callable[..., None], place: str, precision: str
) -> None:
    config = tiny_config()
    torch.manual_seed(0)
    model, vae = tiny_model(config), LatentAutoencoder(config.vae)
    batch = tiny_pack(mixed_plans(), config)
    harm(model, vae, batch)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optim = replace(CONFIG, steps=1, precision=precision)
    with pytest.raises(NonFiniteError, match=re.escape(f"it begins at {place}")):
        train(model, GdufObjective(vae), lambda step: batch, optim, phase="gduf")
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not any(module._forward_hooks for module in [*model.modules(), *vae.modules()])
