"""The detector as teacher: which layer, whose weights, and that nothing comes back to it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.models.tiny import NoiseLatents, tiny_alignment, tiny_config, tiny_model
from unigendet.config import LossWeights, OptimConfig
from unigendet.losses import align_loss
from unigendet.models.unified import UniGenDetModel
from unigendet.objectives import DigaObjective, encode_images
from unigendet.teachers.centred import CentredTeacher
from unigendet.teachers.detector import DetectorTeacher, random_detector
from unigendet.teachers.layers import TeacherLayer, depth
from unigendet.training.loop import LogRow, train
from unigendet.types import AlignmentBatch

CONFIG = tiny_config(alignment_head=True)
OPTIM = OptimConfig(steps=12, lr=3e-3, log_every=1)


def trained(student: UniGenDetModel, teacher: DetectorTeacher, **weights: float) -> list[LogRow]:
    objective = DigaObjective(NoiseLatents(), teacher, LossWeights(**weights), tap_layer=1)
    rows = list[LogRow]()
    train(student, objective, lambda step: tiny_alignment(), OPTIM, on_log=rows.append)
    return rows


@pytest.mark.parametrize(("layer", "layers"), [("last", 3), ("last_input", 2), (2, 3), (0, 1)])
def test_features_are_the_vit_tokens_behind_the_final_norm(
    layer: TeacherLayer, layers: int
) -> None:
    model, batch = tiny_model(CONFIG), tiny_alignment()
    found = DetectorTeacher(model, NoiseLatents(), layer)(batch)
    seen, rows = batch.teacher, len(batch.teacher.text_ids)
    with torch.no_grad():
        output = model(seen, encode_images(NoiseLatents(), seen), taps=range(3))
    normed = model.language_model.model.norm(output.taps[layers - 1].und)[rows:]
    # 12 x 12 and 12 x 24 px: patches of 6 px, tokens of 4 px.
    grids, wanted = normed.detach().split([4, 8]), [(3, 3), (3, 6)]
    expected = [
        torch.nn.functional.interpolate(
            grid.T.reshape(1, -1, 2, len(grid) // 2), size, mode="bilinear"
        )
        .flatten(2)[0]
        .T
        for grid, size in zip(grids, wanted, strict=True)
    ]
    assert found.shape == (27, CONFIG.llm.hidden_size)
    assert not found.requires_grad
    torch.testing.assert_close(found, torch.cat(expected))


def test_a_frozen_teacher_gets_no_gradient_and_stays_bit_for_bit_while_the_student_learns() -> None:
    student, model = tiny_model(CONFIG), tiny_model(seed=1)
    before = copy.deepcopy(model.state_dict())
    teacher = DetectorTeacher(model, NoiseLatents(), "last_input")
    first = teacher(tiny_alignment())
    rows = trained(student, teacher, flow=1.0, align=2.0)
    assert rows[-1].terms["align_loss"] < 0.8 * rows[0].terms["align_loss"]
    for terms in (row.terms for row in rows):
        # Of the very step that was trained, not of a configuration.
        expected = terms["flow_loss"] + 2.0 * terms["align_loss"]
        assert terms["total"] == pytest.approx(expected, rel=1e-5)
        assert terms["align_weight"] == 2.0
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(first, teacher(tiny_alignment()))


def test_the_alignment_is_what_the_tapped_layers_learn_from() -> None:
    """Two trainings that differ in the weight of the alignment alone end with other weights."""
    ends = []
    for align in (0.0, 2.0):
        student = tiny_model(CONFIG)
        trained(student, DetectorTeacher(tiny_model(seed=1), NoiseLatents(), 0), align=align)
        ends.append(student.vae2llm.weight)
    assert not torch.equal(*ends)


def test_a_live_teacher_is_the_student_as_it_is_and_goes_on_learning() -> None:
    student, batch = tiny_model(CONFIG), tiny_alignment()
    teacher = DetectorTeacher(student, NoiseLatents(), 1, live=True)
    first = teacher(batch)
    trained(student, teacher, flow=1.0, align=1.0)
    assert not torch.equal(first, teacher(batch))
    assert all(p.requires_grad for p in student.parameters())
    copied = DetectorTeacher(copy.deepcopy(student), NoiseLatents(), 1)
    assert torch.equal(copied(batch), teacher(batch))


class _Given:
    """A teacher that gives these features, one batch after another."""

    width = 5

    def __init__(self, features: Sequence[Tensor]) -> None:
        self._features = iter(features)

    def __call__(self, batch: AlignmentBatch) -> Tensor:
        return next(self._features)


def test_a_centred_teacher_has_taken_off_what_all_features_share() -> None:
    plain = DetectorTeacher(tiny_model(seed=1), NoiseLatents(), "last_input")
    teacher = CentredTeacher(plain, [tiny_alignment(), tiny_alignment()])
    features, batch = plain(tiny_alignment()), tiny_alignment()
    torch.testing.assert_close(teacher(batch), features - features.mean(0))
    assert teacher.width == plain.width and not teacher(batch).requires_grad
    # Batches of different lengths count by their tokens.
    parts = [torch.randn(3, 5), torch.randn(70_000, 5) + 4.0]
    several = CentredTeacher(_Given(parts), [tiny_alignment()] * 2)
    torch.testing.assert_close(several.mean, torch.cat(parts).double().mean(0).float())
    with pytest.raises(ValueError, match="at least one batch, and there is none"):
        CentredTeacher(plain, [])
    # The projection of another image's features cannot be the answer for this one any more.
    flat = features.mean(0).expand_as(features)
    assert align_loss(flat, features) < 0.9 < align_loss(flat, teacher(batch))


def test_a_random_detector_is_drawn_from_its_seed_alone() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, again, other = (random_detector(CONFIG, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.config == replace(CONFIG, alignment_head=False)
    rows = [
        DetectorTeacher(m, NoiseLatents(), "last")(tiny_alignment()) for m in (first, again, other)
    ]
    assert torch.equal(rows[0], rows[1]) and not torch.allclose(rows[0], rows[2])
    assert rows[0].shape == (27, 48) and bool(rows[0].isfinite().all())
    assert len(rows[0].unique(dim=0)) == 27  # tokens are told apart


@pytest.mark.parametrize("layer", [3, -1, "first", 17])
def test_a_layer_that_is_not_there_is_an_error(layer: TeacherLayer) -> None:
    with pytest.raises(ValueError, match=r"none of the teacher's layers 0\.\.2|first"):
        DetectorTeacher(tiny_model(), NoiseLatents(), layer)


def test_layers_are_counted_from_0_and_named_from_the_end() -> None:
    assert [depth(layer, 4) for layer in ("last", 3, "last_input", 2, 0)] == [4, 4, 3, 3, 1]
    with pytest.raises(ValueError, match="last_input"):
        depth("last_input", 1)
