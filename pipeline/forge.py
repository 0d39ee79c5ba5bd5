"""Stage forge: fit the families, make labelled fakes, explain every image, judge the families.

The out holds the shards of the families' fakes (sets `train`, `val`, `test`, `everyday`; a fake's
`source_id`, caption, split and domain are those of the real image that it was made from or drawn in
place of); the answers of those images of stage shard, real or fake, that came without one
(explanations.json); the thresholds behind them (evidence.json), each family's distance to real
images (quality.json), the codec-and-size audit (audit.json), the families' weights and a picture of
each. Fakes that came with the data stay where they are.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.codec_gate import audit_sets
from pipeline.forge_answers import Explained, explain
from pipeline.forge_quality import judge_families, quality_sets
from pipeline.forge_tasks import Fakes, FakesBy, FamilyFakes, FamilyOrder, forge_family
from pipeline.pictures import draw_rows
from pipeline.stage import StageContext
from unigendet.data.answers import write_answers
from unigendet.data.audit import stored_items
from unigendet.data.shards import ShardDataset, ShardWriter, one_size
from unigendet.explanations import EVIDENCE_FILE
from unigendet.forgeries.roles import families_for_set
from unigendet.types import Sample

SETS = ("train", "val", "test", "everyday")
SHOWN = 8


def forge(ctx: StageContext) -> None:
    """Write everything that the module's docstring lists into `ctx.out`."""
    stored = {name: ShardDataset(ctx.inputs["shard"], name) for name in SETS}
    one_size(list(stored.values()))
    real = {name: data.only(fake=False) for name, data in stored.items()}
    orders = plan_orders(ctx, {name: len(data) for name, data in real.items()})
    with ctx.ray():
        with ctx.timed("families"):
            results = [_export(ctx, made) for made in _forge_all(ctx, orders)]
        ctx.mark_started(min(made.started_at for made in results))
        fakes = _by_set(orders, results)
        with ctx.timed("evidence"):
            explained = explain(ctx, stored, fakes)
    with ctx.timed("shards"):
        _write(ctx.out, real, fakes, explained)
    with ctx.timed("audit"):
        _audit(ctx, stored)
    with ctx.timed("quality"):
        judge_families(ctx, real, fakes, results)
    with ctx.timed("pictures"):
        for family, set_name in quality_sets(ctx.params.forge.roles.by_family()).items():
            _picture(ctx, real[set_name], fakes[family, set_name])


def plan_orders(ctx: StageContext, sizes: Mapping[str, int]) -> list[FamilyOrder]:
    """One order per family, the slowest first; which images are used is drawn from the seed."""
    forge = ctx.params.forge
    roles = forge.roles.by_family()
    orders = []
    for place, family in enumerate(roles):
        draw = np.random.default_rng((ctx.seed, place))
        fit_on = _some(draw, sizes["train"], forge.fit_images)
        make_from = {
            name: _some(draw, sizes[name], forge.samples_per_family)
            for name in SETS
            if family in families_for_set(roles, name)
        }
        orders.append(
            FamilyOrder(
                family=family,
                config=forge.config(),
                shards=ctx.inputs["shard"],
                generator=ctx.inputs["pretrain_generator"],
                fit_on=fit_on,
                make_from=make_from,
                seed=ctx.seed * 1000 + place * 100,
                device=ctx.device,
                threads=1,
            )
        )
    slowest = ("flow", "ddpm", "vqar", "gan", "inpaint", "reconstruction")
    return sorted(orders, key=lambda order: slowest.index(order.family))


def _some(draw: np.random.Generator, count: int, most: int) -> tuple[int, ...]:
    return tuple(sorted(draw.permutation(count)[:most].tolist()))


def _forge_all(ctx: StageContext, orders: Sequence[FamilyOrder]) -> Iterator[FamilyFakes]:
    """Every family's fakes, each from a Ray task of its own, in the order in which they finish.

    What an interrupted attempt finished is taken from `ctx.state`.
    """
    import ray
    from ray.exceptions import RayTaskError

    waiting: dict[Any, FamilyOrder] = {}
    task = ray.remote(num_cpus=1, num_gpus=0.5 if ctx.device == "cuda" else 0)(forge_family)
    done = 0
    for order in orders:
        kept = ctx.state / f"{order.family}.npz"
        if kept.exists():
            ctx.log(f"{order.family}: finished by an earlier attempt")
            done += 1
            yield FamilyFakes.load(kept)
        else:
            waiting[task.remote(order)] = order
    began = time.time()
    while waiting:
        ready, _ = ray.wait(list(waiting), num_returns=1)
        order = waiting.pop(ready[0])
        try:
            made: FamilyFakes = ray.get(ready[0])
        except RayTaskError as error:
            # The task's own error says what is wrong; Ray's wraps it in a remote traceback.
            raise error.cause from error
        made.save(ctx.state / f"{order.family}.npz")
        done += 1
        ctx.log(
            f"{done} of {len(orders)} families after {time.time() - began:.0f} s: {made.family}"
        )
        yield made


def _export(ctx: StageContext, made: FamilyFakes) -> FamilyFakes:
    if made.weights:
        folder = ctx.out / "families"
        folder.mkdir(exist_ok=True)
        (folder / f"{made.family}.safetensors").write_bytes(made.weights)
    return made


def _by_set(orders: Sequence[FamilyOrder], results: Sequence[FamilyFakes]) -> FakesBy:
    origins = {order.family: order.make_from for order in orders}
    return {
        (made.family, name): Fakes(made.family, name, origins[made.family][name], images)
        for made in results
        for name, images in made.fakes.items()
    }


def _write(
    out: Path, real: Mapping[str, ShardDataset], fakes: FakesBy, explained: Explained
) -> None:
    for set_name in SETS:
        with ShardWriter(out, set_name, encoding=real[set_name].encoding) as writer:
            for (family, name), made in fakes.items():
                if name != set_name:
                    continue
                answers = explained.forged[family, name]
                for position, image, answer in zip(made.origins, made.images, answers, strict=True):
                    writer.write(_fake(real[name].sample(position), image, family, answer))
    write_answers(out, explained.stored)
    (out / EVIDENCE_FILE).write_text(explained.explainer.to_json() + "\n", encoding="utf-8")


def _fake(origin: Sample, image: NDArray[np.uint8], family: str, answer: str) -> Sample:
    return replace(
        origin,
        key=f"{family}-{origin.key}",
        image=image,
        fake=True,
        generator=family,
        explanation=answer,
    )


def _audit(ctx: StageContext, stored: Mapping[str, ShardDataset]) -> None:
    """Can real and fake be told apart by their files' headers, per set?"""
    audit_sets(
        ctx,
        {
            name: stored_items([stored[name], ShardDataset(ctx.out, name)], seed=ctx.seed)
            for name in SETS
        },
        allowed=ctx.params.shard.allow_codec_shortcut,
        remedy="Write real images and fakes with one encoder and size",
    )


def _picture(ctx: StageContext, real: ShardDataset, made: Fakes) -> None:
    """A family's fakes below the real images that they were made from."""
    shown = np.linspace(0, len(made.origins) - 1, min(SHOWN, len(made.origins))).round().astype(int)
    origins = [real.sample(made.origins[place]) for place in shown]
    path = ctx.out / f"{made.family}.png"
    draw_rows(
        path,
        [
            ("real", [sample.image for sample in origins]),
            (made.family, [made.images[place] for place in shown]),
        ],
        [sample.caption for sample in origins],
    )
    ctx.run.log_figure(f"family_{made.family}", path)
