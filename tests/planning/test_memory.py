"""Plans against steps that were really made: exact where tensors stay, close at the peak."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.workload import bagel_slice, tiny
from tests.planning.measured import PeakBytes, nbytes, recomputed
from tests.planning.phases import SIZE, TEXTS, planned_pack, real_alignment, real_pack
from unigendet.config import LossWeights, ModelConfig, OptimConfig
from unigendet.models.unified import UniGenDetModel
from unigendet.models.vae import LatentAutoencoder
from unigendet.objectives import DigaObjective, GdufObjective
from unigendet.planning.advice import advice, largest_pack
from unigendet.planning.checkpoints import plan_checkpoints
from unigendet.planning.memory import FRAGMENTS, RESERVE, Machine, TrainingPhase, plan_memory
from unigendet.planning.packs import Texts, teacher_pack, training_pack
from unigendet.planning.parameters import count_autoencoder
from unigendet.teachers.detector import DetectorTeacher
from unigendet.training import loop
from unigendet.training.optim import build_optimizer

GB, GIB = 10**9, 2**30
ALIGNED = (".*moe_gen.*", "diga_mlp.*", "vae2llm.*", "llm2vae.*", "time_embedder.*")
DETECTOR = ("(?!.*moe_gen)(?!vae2llm|llm2vae|time_embedder).*",)


def phase(trainable: tuple[str, ...], generation: int = 4, detection: int = 4) -> TrainingPhase:
    pack = planned_pack(tiny(), generation, detection)
    return TrainingPhase("gduf", tiny(), trainable, "fp32", pack)


def one(memory: int = 2**40, *, recompute: bool = False) -> Machine:
    return Machine(1, memory, "none", recompute)


def tensors_total(parts: dict[str, int]) -> int:
    return sum(size for name, size in parts.items() if name not in {"fragments", "reserve"})


@pytest.mark.parametrize(
    ("trainable", "recompute"),
    [((".*",), False), ((".*",), True), (DETECTOR, False)],
    ids=["gduf", "gduf-recomputed", "detector"],
)
def test_a_step_takes_what_the_plan_says(
    trainable: tuple[str, ...],
    recompute: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = tiny()
    made: list[torch.optim.Optimizer] = []

    def build(*arguments: Any) -> torch.optim.Optimizer:
        made.append(build_optimizer(*arguments))
        return made[-1]

    monkeypatch.setattr(loop, "build_optimizer", build)
    model, vae = UniGenDetModel(config), LatentAutoencoder(config.vae).requires_grad_(False)
    if recompute:
        recomputed(model)
    with PeakBytes([*model.parameters(), *model.buffers(), *vae.parameters()]) as peak:
        result = loop.train(
            model,
            GdufObjective(vae),
            lambda step: real_pack(config, 4, 4),
            OptimConfig(steps=2, lr=1e-4, trainable=trainable),
        )
    plan = plan_memory(phase(trainable), one(recompute=recompute))
    always = plan.always
    assert always["parameters"] == nbytes(model.parameters())
    assert always["gradients"] == nbytes(p.grad for p in model.parameters() if p.grad is not None)
    states = [value for state in made[0].state.values() for value in state.values()]
    assert always["optimizer"] == nbytes(states)
    assert always["average"] == nbytes(result.ema.shadow)
    assert always["tables"] == nbytes(model.buffers())
    assert tensors_total(plan.parts) == pytest.approx(peak.peak, rel=0.1)
    assert plan.total == pytest.approx((1 + FRAGMENTS) * tensors_total(plan.parts) + RESERVE)


def test_a_diga_step_and_its_checkpoint(tmp_path: Path) -> None:
    """The student's memory, a frozen teacher beside it, and the files that are written."""
    config = replace(tiny(), alignment_head=True)
    student, teacher = UniGenDetModel(config), UniGenDetModel(tiny())
    vae = LatentAutoencoder(config.vae).requires_grad_(False)
    batch = real_alignment(config, 4)
    objective = DigaObjective(vae, DetectorTeacher(teacher, vae, 2), LossWeights(align=0.5), 2)
    own = [t for m in (student, teacher, vae) for t in (*m.parameters(), *m.buffers())]
    with PeakBytes(own) as peak:
        result = loop.train(
            student,
            objective,
            lambda step: batch,
            OptimConfig(steps=2, lr=1e-4, trainable=ALIGNED),
            checkpoint_dir=tmp_path,
        )
    planned = TrainingPhase(
        "diga",
        config,
        ALIGNED,
        "fp32",
        planned_pack(config, 4, 0),
        "frozen",
        teacher_pack(config, SIZE, 4, TEXTS),
    )
    plan = plan_memory(planned, one())
    assert plan.always["teacher"] == nbytes([*teacher.parameters(), *teacher.buffers()])
    assert plan.always["average"] == nbytes(result.ema.shadow)
    gradients = [p.grad for p in student.parameters() if p.grad is not None]
    assert plan.always["gradients"] == nbytes(gradients)
    assert tensors_total(plan.parts) == pytest.approx(peak.peak, rel=0.1)

    disk = plan_checkpoints(plan.counts, count_autoencoder(config.vae), copies=2)
    files = sum(path.stat().st_size for path in (tmp_path / "step-00000002").iterdir())
    assert disk.checkpoint == pytest.approx(files, rel=0.01)


def bagel(generation: int = 4, detection: int = 4, **changes: Any) -> TrainingPhase:
    config: ModelConfig = bagel_slice(28)
    pack = training_pack(config, 512, generation=generation, detection=detection, texts=Texts())
    return TrainingPhase("gduf", config, (".*",), "bf16", pack, **changes)


def test_the_published_model_fits_on_eight_gpus_and_not_on_one() -> None:
    eight = plan_memory(bagel(), Machine(8, 80 * GIB, "fsdp", recompute=True))
    assert eight.fits and 0 < eight.headroom < 40 * GIB
    # Weights, gradients, two moments and the average, four bytes each.
    kept = sum(eight.always[part] for part in ("parameters", "gradients", "optimizer", "average"))
    assert kept == pytest.approx(20 * 14.59e9 / 8, rel=2e-3)
    assert advice(eight) == []

    alone = plan_memory(bagel(), one(80 * GIB, recompute=True))
    assert not alone.fits and largest_pack(alone) == 0
    assert advice(alone)[0].startswith("8 GPUs with fsdp: ")
    copies = plan_memory(bagel(), Machine(8, 80 * GIB, "ddp", recompute=True))
    assert advice(copies)[0].startswith("sharding fsdp: ")
    kept_all = plan_memory(bagel(), Machine(8, 80 * GIB, "fsdp", recompute=False))
    assert not kept_all.fits and advice(kept_all)[0].startswith("recomputation: ")


def test_the_largest_pack_just_fits() -> None:
    machine = Machine(8, 80 * GIB, "fsdp", recompute=True)
    plan = plan_memory(bagel(), machine)
    pack = plan.phase.pack
    most = largest_pack(plan) // pack.tokens
    assert most >= 1
    assert plan_memory(bagel(4 * most, 4 * most), machine).fits
    assert not plan_memory(bagel(4 * most + 4, 4 * most + 4), machine).fits
    too_many = plan_memory(bagel(100, 100), machine)
    assert any("packs of at most" in line for line in advice(too_many))


def test_nothing_helps_a_gpu_that_the_largest_block_does_not_fit_into() -> None:
    plan = plan_memory(bagel(), Machine(8, 8 * GIB, "fsdp", recompute=True))
    (line,) = advice(plan)
    assert line.startswith("GPUs of ") and "do not help" in line


def test_a_live_teacher_takes_no_memory_of_its_own() -> None:
    aligned = replace(
        bagel(14, 0),
        config=replace(bagel_slice(28), alignment_head=True),
        trainable=ALIGNED,
        teacher="frozen",
        teacher_pack=teacher_pack(bagel_slice(28), 512, 14, Texts()),
    )
    machine = Machine(8, 80 * GIB, "fsdp", recompute=True)
    frozen, live = (
        plan_memory(replace(aligned, teacher=teacher), machine) for teacher in ("frozen", "live")
    )
    assert frozen.always["teacher"] == pytest.approx(4 * 14.62e9 / 8, rel=0.02)
    assert "teacher" not in live.always and live.total < frozen.total
    assert frozen.fits
    assert frozen.counts.trainable == pytest.approx(6.6e9, rel=0.05)


@pytest.mark.parametrize(
    ("gpus", "sharding", "message"),
    [
        (0, "none", "at least one GPU"),
        (2, "none", "need sharding ddp or fsdp"),
        (1, "fsdp", "needs more than one GPU"),
    ],
)
def test_machines_that_cannot_be(gpus: int, sharding: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Machine(gpus, 80 * GIB, sharding, recompute=False)
