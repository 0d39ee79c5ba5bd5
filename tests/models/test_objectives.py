"""Which parameters learn from what, and what must never learn or be learned from."""

from __future__ import annotations

import copy
import re
from dataclasses import replace

import pytest
import torch

from tests.models.tiny import (
    NoiseLatents,
    detection_plan,
    generation_plan,
    mixed_plans,
    tiny_alignment,
    tiny_config,
    tiny_model,
    tiny_pack,
)
from unigendet.config import LossWeights
from unigendet.data.packing import ImageItem, SamplePlan, TextItem
from unigendet.losses import LossTerms
from unigendet.models.unified import UniGenDetModel
from unigendet.objectives import DigaObjective, FlowObjective, GdufObjective
from unigendet.teachers.detector import DetectorTeacher

CONFIG = tiny_config(alignment_head=True)
UNUSED = r"latent_to_vit_connector.*"


def _reached(model: UniGenDetModel) -> set[str]:
    """Parameters with a gradient that is not zero."""
    return {
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and bool(parameter.grad.any())
    }


def _matching(model: UniGenDetModel, pattern: str) -> set[str]:
    return {name for name, _ in model.named_parameters() if re.fullmatch(pattern, name)}


def _detector(model: UniGenDetModel, *, live: bool = True) -> DetectorTeacher:
    return DetectorTeacher(model, NoiseLatents(), 1, live=live)


@pytest.mark.parametrize(
    ("weights", "heads"),
    [
        (LossWeights(flow=1, text=0, det=0), {"llm2vae.weight"}),
        (LossWeights(flow=0, text=1, det=0), {"language_model.lm_head.weight"}),
        (LossWeights(flow=0, text=0, det=1), {"fake_cls_head.3.weight"}),
    ],
)
def test_each_term_reaches_its_head_and_no_other(weights: LossWeights, heads: set[str]) -> None:
    model = tiny_model()
    GdufObjective(NoiseLatents(), weights)(model, tiny_pack(mixed_plans())).total.backward()
    all_heads = {"llm2vae.weight", "language_model.lm_head.weight", "fake_cls_head.3.weight"}
    assert _reached(model) & all_heads == heads


def test_the_joint_loss_trains_everything_but_the_unused_part() -> None:
    model = tiny_model()
    losses = GdufObjective(NoiseLatents())(model, tiny_pack(mixed_plans()))
    losses.total.backward()
    # A bias on all keys of a softmax cancels; the ViT has no norm behind it that would keep it.
    cancels = r"vit_model\..*k_proj\.bias"
    everything = {name for name, _ in model.named_parameters()}
    expected = everything - _matching(model, UNUSED)
    assert expected - _reached(model) <= _matching(model, cancels)
    assert not _reached(model) & _matching(model, UNUSED)


def test_frozen_groups_get_no_gradient() -> None:
    model = tiny_model()
    frozen = _matching(model, r"vit_model\..*") | {
        name for name in _matching(model, r"language_model\..*") if "moe_gen" not in name
    }
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    GdufObjective(NoiseLatents())(model, tiny_pack(mixed_plans())).total.backward()
    assert not _reached(model) & frozen
    assert _matching(model, r".*moe_gen.*") <= _reached(model)


def test_total_is_the_weighted_sum_and_text_can_be_reweighted() -> None:
    model, batch = tiny_model(), tiny_pack(mixed_plans())
    weights = LossWeights(flow=2, text=3, det=5)
    losses = GdufObjective(NoiseLatents(), weights)(model, batch)
    expected = 2 * losses.flow_loss + 3 * losses.text_loss + 5 * losses.det_loss
    torch.testing.assert_close(losses.total, expected)
    other = GdufObjective(NoiseLatents(), weights, reweight_text=True)(model, batch)
    assert float(other.text_loss.detach()) != float(losses.text_loss.detach())
    torch.testing.assert_close(other.flow_loss, losses.flow_loss)


def test_flow_objective_is_the_flow_term() -> None:
    model, batch = tiny_model(), tiny_pack(mixed_plans())
    flow: LossTerms = FlowObjective(NoiseLatents())(model, batch)
    joint = GdufObjective(NoiseLatents())(model, batch)
    torch.testing.assert_close(flow.total, joint.flow_loss)


def test_flow_loss_never_sees_a_detection_image() -> None:
    """Fakes are detection images: other latents there change the verdict, never the flow loss."""
    generator = torch.Generator().manual_seed(0)
    plans = [generation_plan(generator), detection_plan(generator, fake=True)]
    model, batch = tiny_model(), tiny_pack(plans)
    noise = batch.posterior_noise.clone()
    noise[1] += 1
    objective = GdufObjective(NoiseLatents())
    first = objective(model, batch)
    second = objective(model, replace(batch, posterior_noise=noise))
    assert torch.equal(first.flow_loss, second.flow_loss)
    assert not torch.equal(first.det_loss, second.det_loss)


def test_batches_without_a_kind_of_sample() -> None:
    """The published forward needs detection samples in every batch; ours takes what there is."""
    generator = torch.Generator().manual_seed(0)
    objective = GdufObjective(NoiseLatents())
    only_generation = objective(tiny_model(), tiny_pack([generation_plan(generator)]))
    assert float(only_generation.det_loss) == float(only_generation.text_loss) == 0
    only_detection = objective(tiny_model(), tiny_pack([detection_plan(generator)]))
    assert float(only_detection.flow_loss) == 0
    text = SamplePlan([TextItem([1, 2]), TextItem([3, 4], loss=True)], fake=False)
    losses = objective(tiny_model(), tiny_pack([text]))
    losses.total.backward()
    assert float(losses.det_loss.detach()) > 0


@pytest.mark.parametrize("live", [False, True])
def test_alignment_trains_the_student_up_to_the_tap(live: bool) -> None:
    model, teacher = tiny_model(CONFIG), tiny_model(CONFIG, seed=1)
    weights = LossWeights(flow=0, text=0, det=0, align=1)
    taught_by = _detector(model if live else teacher, live=live)
    objective = DigaObjective(NoiseLatents(), taught_by, weights, tap_layer=1)
    before = copy.deepcopy(teacher.state_dict())
    losses = objective(model, tiny_alignment())
    torch.testing.assert_close(losses.total, losses.align_loss)
    losses.total.backward()
    reached = _reached(model)
    assert _matching(model, r"diga_mlp.*|vae2llm.*|time_embedder.*") <= reached
    assert _matching(model, r"language_model\.model\.layers\.[01]\.mlp_moe_gen.*") <= reached
    # Nothing behind the tap, and nothing that only the teacher's pass goes through.
    behind = r"language_model\.model\.layers\.2\..*|language_model\.model\.norm.*|llm2vae.*"
    assert not reached & _matching(model, behind + r"|vit_model.*|connector.*")
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters()) or live
    assert all(torch.equal(before[k], v) for k, v in teacher.state_dict().items())


def test_alignment_is_part_of_the_total() -> None:
    model = tiny_model(CONFIG)
    objective = DigaObjective(NoiseLatents(), _detector(model), LossWeights(align=0.5), tap_layer=0)
    losses = objective(model, tiny_alignment())
    torch.testing.assert_close(losses.total, losses.flow_loss + 0.5 * losses.align_loss)
    assert 0 < float(losses.align_loss.detach()) < 2


def test_live_teacher_of_equal_weights_teaches_the_same() -> None:
    model = tiny_model(CONFIG)
    batch, weights = tiny_alignment(), LossWeights(align=1)
    own, copied = _detector(model), _detector(copy.deepcopy(model), live=False)
    live = DigaObjective(NoiseLatents(), own, weights, tap_layer=1)(model, batch)
    frozen = DigaObjective(NoiseLatents(), copied, weights, tap_layer=1)(model, batch)
    torch.testing.assert_close(live.align_loss, frozen.align_loss)


def test_alignment_batch_with_detection_samples() -> None:
    """Only generated images are aligned; detection samples add their own terms."""
    generator = torch.Generator().manual_seed(9)
    batch = tiny_alignment()
    pictures = [batch.generation.pixels[0, :, :, :12], batch.generation.pixels[1]]
    plans = [
        SamplePlan([TextItem([1, 2]), ImageItem("vae", pictures[0], loss=True)]),
        detection_plan(generator),
        SamplePlan([TextItem([1, 2]), ImageItem("vae", pictures[1], loss=True)]),
    ]
    mixed = replace(batch, generation=tiny_pack(plans, CONFIG))
    model = tiny_model(CONFIG)
    objective = DigaObjective(NoiseLatents(), _detector(model), LossWeights(align=1), tap_layer=1)
    losses = objective(model, mixed)
    assert all(value > 0 for value in losses.scalars().values())


def test_unpaired_alignment_batch_is_an_error() -> None:
    batch = replace(tiny_alignment(2), teacher=tiny_alignment(1).teacher)
    model = tiny_model(CONFIG)
    objective = DigaObjective(NoiseLatents(), _detector(model), LossWeights(), tap_layer=1)
    with pytest.raises(ValueError, match="generates 2 images but the teacher sees 1"):
        objective(model, batch)


def test_a_few_steps_learn() -> None:
    """From the usual start, every term of one fixed pack goes down."""
    torch.manual_seed(0)
    model, batch = UniGenDetModel(CONFIG), tiny_pack(mixed_plans(), CONFIG)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    objective = GdufObjective(NoiseLatents())
    first = objective(model, batch).scalars()
    for _ in range(30):
        optimizer.zero_grad()
        losses = objective(model, batch)
        losses.total.backward()
        optimizer.step()
    last = losses.scalars()
    assert last["flow_loss"] < 0.7 * first["flow_loss"]
    assert last["text_loss"] < 0.7 * first["text_loss"]
    assert last["det_loss"] < 0.5 * first["det_loss"]
