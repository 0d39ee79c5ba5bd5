"""What one of two ranks does in the tests of several processes, and what one process alone does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from tests.models.tiny import (
    MARKERS,
    NoiseLatents,
    detection_plan,
    generation_plan,
    tiny_config,
    tiny_model,
)
from unigendet import parallel
from unigendet.config import LossWeights, OptimConfig
from unigendet.data.packing import ImageItem, SamplePlan, pack
from unigendet.models.unified import UniGenDetModel
from unigendet.objectives import DigaObjective, GdufObjective
from unigendet.teachers.detector import DetectorTeacher
from unigendet.training.loop import LogRow, train
from unigendet.training.nonfinite import NonFiniteError
from unigendet.training.session import TrainingSession
from unigendet.types import AlignmentBatch, Objective, PackedBatch

CONFIG = OptimConfig(
    steps=20, lr=1e-3, warmup_steps=4, clip_norm=0.5, log_every=1, checkpoint_every=10
)
WEIGHTS = LossWeights(flow=1.0, text=0.5, det=2.0, align=0.5)


def step_plans(step: int) -> list[SamplePlan]:
    """Two generation and two detection samples for each of two ranks, of different lengths."""
    random = torch.Generator().manual_seed(step)
    plans: list[SamplePlan] = []
    for count in (3, 8):
        plans += [generation_plan(random, count), generation_plan(random, 5, height=24, width=12)]
        plans += [detection_plan(random, fake=fake, count=count + 4) for fake in (True, False)]
    return plans


def own_pack(plans: Sequence[SamplePlan], first: int, step: int) -> PackedBatch:
    draws = [torch.Generator().manual_seed(100 * step + first + i) for i in range(len(plans))]
    return pack(plans, tiny_config(), MARKERS, draws)


def gduf_batch(step: int) -> PackedBatch:
    """This rank's half of a step, or all of it."""
    plans, share = step_plans(step), 8 // parallel.world()
    first = parallel.rank() * share
    return own_pack(plans[first : first + share], first, step)


def diga_batch(step: int) -> AlignmentBatch:
    """Generation samples of the same steps with the teacher's view of their images."""
    plans = [plan for plan in step_plans(step) if plan.fake is None]
    share = len(plans) // parallel.world()
    first = parallel.rank() * share
    own = plans[first : first + share]
    teacher = [_teacher_plan(plan) for plan in own]
    return AlignmentBatch(own_pack(own, first, step), own_pack(teacher, 50 + first, step))


def _teacher_plan(plan: SamplePlan) -> SamplePlan:
    text, picture = plan.items
    assert isinstance(picture, ImageItem)
    pixels = picture.pixels
    return SamplePlan([ImageItem("vae", pixels), text, ImageItem("vit", pixels)])


def run(
    objective: Objective,
    batches: Any,
    config: OptimConfig,
    *,
    fsdp: bool = False,
    checkpoints: Path | None = None,
    bf16: bool = False,
) -> tuple[dict[int, dict[str, float]], UniGenDetModel]:
    """Train a tiny model; its loss terms by step, and the model."""
    model = tiny_model(tiny_config(alignment_head=True))
    if fsdp:
        parallel.shard(model, device="cpu", bf16=bf16)
    rows = list[LogRow]()
    train(model, objective, batches, config, checkpoint_dir=checkpoints, on_log=rows.append)
    return {row.step: {**row.terms, "norm": row.grad_norm} for row in rows}, model


def gduf() -> GdufObjective:
    return GdufObjective(NoiseLatents(), WEIGHTS)


def diga(*, fsdp: bool = False) -> DigaObjective:
    teacher = tiny_model(tiny_config(), seed=9)
    if fsdp:
        parallel.shard(teacher, device="cpu", bf16=False)
    taught_by = DetectorTeacher(teacher, NoiseLatents(), "last_input")
    return DigaObjective(NoiseLatents(), taught_by, WEIGHTS, tap_layer=1)


def rank_main(rank: int, folder: Path) -> None:
    """Everything that two ranks do; the tests read what they leave in `folder`."""
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    found: dict[str, Any] = {}
    found["ddp"], model = run(gduf(), gduf_batch, CONFIG)
    torch.save(model.state_dict(), folder / f"ddp{rank}.pt")

    own = folder / f"checkpoints-of-rank{rank}"
    found["fsdp"], model = run(gduf(), gduf_batch, CONFIG, fsdp=True, checkpoints=own)
    found["local_share"] = sum(parallel.local_rows(p)[0].numel() for p in model.parameters())
    whole = {name: parallel.whole(value) for name, value in model.state_dict().items()}
    torch.save(whole, folder / f"fsdp{rank}.pt")

    # One process wrote this; both go on from it, in the same folder.
    alone = folder / "alone"
    found["resumed"], _ = run(gduf(), gduf_batch, CONFIG, fsdp=True, checkpoints=alone)
    short = OptimConfig(steps=3, lr=1e-3, log_every=1)
    found["diga"], _ = run(diga(fsdp=True), diga_batch, short, fsdp=True)
    lean = OptimConfig(steps=3, lr=1e-3, log_every=1, precision="bf16", recompute=True)
    found["bf16"], model = run(gduf(), gduf_batch, lean, fsdp=True, bf16=True)
    found["dtypes"] = sorted({str(parameter.dtype) for parameter in model.parameters()})
    found["error"] = _with_a_broken_batch_on_one_rank()
    found["said"] = _session(folder)
    (folder / f"found{rank}.json").write_text(json.dumps(found))
    distributed.destroy_process_group()


def _with_a_broken_batch_on_one_rank() -> str:
    def batches(step: int) -> PackedBatch:
        batch = gduf_batch(step)
        if parallel.rank() == 1:
            batch.noise.fill_(torch.nan)
        return batch

    try:
        run(gduf(), batches, OptimConfig(steps=2, lr=1e-3), fsdp=True)
    except NonFiniteError as error:
        return str(error)
    return ""


def _session(folder: Path) -> list[str]:
    """A phase from a model folder to another one, twice: the second time it is kept."""
    said = list[str]()
    short = OptimConfig(steps=2, lr=1e-3, log_every=1)

    def produce(making: Path) -> None:
        loaded = session.load(folder / "model", short, head_seed=3)
        session.save(making / "unchanged", loaded.model, loaded.vae, loaded.tokenizer)
        session.train("phase", loaded.model, gduf(), gduf_batch, short)

    for _ in range(2):
        session = TrainingSession(folder / "session", sharding="fsdp", say=said.append)
        session.once("result", produce)
    return said
