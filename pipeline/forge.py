"""Stage forge: fit the families, make labelled fakes, explain every image, judge the families.

The out holds the fakes' shards (sets `train`, `val`, `test`, `everyday`; a fake's `source_id`,
caption, split and domain are those of the real image that it was made from or drawn in place of),
the answers of all images, real ones' in explanations.json, the thresholds behind them
(evidence.json), each family's distance to real images (quality.json), the codec-and-size audit
(audit.json), the families' weights and a picture of each.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.codec_gate import audit_sets
from pipeline.forge_quality import judge_families, quality_sets
from pipeline.forge_tasks import (
    Fakes,
    FakesBy,
    FamilyFakes,
    FamilyOrder,
    forge_family,
    measure_images,
)
from pipeline.pictures import draw_rows
from pipeline.stage import StageContext
from unigendet.data.answers import write_answers
from unigendet.data.audit import stored_items
from unigendet.data.shards import ShardDataset, ShardWriter
from unigendet.evidence import Evidence
from unigendet.explanations import EVIDENCE_FILE, Explainer, fit_explainer
from unigendet.forgeries.roles import families_for_set
from unigendet.types import Sample

SETS = ("train", "val", "test", "everyday")
MEASURED_AT_ONCE = 256
SHOWN = 8


K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Explained:
    """Evidence of all images and the answers composed from it."""

    explainer: Explainer
    real: dict[str, list[str]]
    """Set name -> the answer of each real image, in order."""
    fake: dict[tuple[str, str], list[str]]
    """(family, set name) -> the answer of each fake, in order."""


def forge(ctx: StageContext) -> None:
    """Write everything that the module's docstring lists into `ctx.out`."""
    real = {name: _only_reals(ShardDataset(ctx.inputs["shard"], name)) for name in SETS}
    orders = plan_orders(ctx, {name: len(data) for name, data in real.items()})
    with ctx.ray():
        with ctx.timed("families"):
            results = [_export(ctx, made) for made in _forge_all(ctx, orders)]
        ctx.mark_started(min(made.started_at for made in results))
        fakes = _by_set(orders, results)
        with ctx.timed("evidence"):
            explained = _explain(ctx, real, fakes)
    with ctx.timed("shards"):
        _write(ctx.out, real, fakes, explained)
    with ctx.timed("audit"):
        _audit(ctx, real)
    with ctx.timed("quality"):
        judge_families(ctx, real, fakes, results)
    with ctx.timed("pictures"):
        for family, set_name in quality_sets(ctx.params.forge.roles.by_family()).items():
            _picture(ctx, real[set_name], fakes[family, set_name])


def _only_reals(data: ShardDataset) -> ShardDataset:
    """The set. Raises ValueError where it holds fakes: they would be taken for real images."""
    if count := sum(entry.fake for entry in data.entries):
        raise ValueError(
            f"the set {data.name} of the shards holds {count} fakes: this stage makes fakes of its "
            "own from real images, and the stages after it compare the two. Name a source of real "
            "images in section `data`"
        )
    return data


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


def _explain(ctx: StageContext, real: Mapping[str, ShardDataset], fakes: FakesBy) -> Explained:
    """Measure every image, fit thresholds on the training set, compose every answer."""
    on_real = _measure_all({name: data.images() for name, data in real.items()})
    on_fake = _measure_all({key: made.images for key, made in fakes.items()})
    trained = [one for (_, name), found in on_fake.items() if name == "train" for one in found]
    explainer = fit_explainer(
        on_real["train"], trained, least_separation=ctx.params.forge.least_separation
    )
    spoken = ", ".join(f"{t.measure} {t.separation:.2f}" for t in explainer.thresholds) or "none"
    ctx.log(f"measures that part real from fake in training, by how much: {spoken}")
    ctx.run.log_metrics(
        {f"separation/{t.measure}": t.separation for t in explainer.thresholds}, step=0
    )
    return Explained(
        explainer,
        {
            name: [explainer.explain(e, fake=False) for e in found]
            for name, found in on_real.items()
        },
        {key: [explainer.explain(e, fake=True) for e in found] for key, found in on_fake.items()},
    )


def _measure_all(sets: Mapping[K, NDArray[np.uint8]]) -> dict[K, list[Evidence]]:
    """The evidence of every image, measured in parallel."""
    import ray

    task = ray.remote(num_cpus=1)(measure_images)
    parts = {
        key: [
            task.remote(images[start : start + MEASURED_AT_ONCE])
            for start in range(0, len(images), MEASURED_AT_ONCE)
        ]
        for key, images in sets.items()
    }
    return {key: [one for part in ray.get(found) for one in part] for key, found in parts.items()}


def _write(
    out: Path, real: Mapping[str, ShardDataset], fakes: FakesBy, explained: Explained
) -> None:
    for set_name in SETS:
        with ShardWriter(out, set_name, encoding=real[set_name].encoding) as writer:
            for (family, name), made in fakes.items():
                if name != set_name:
                    continue
                answers = explained.fake[family, name]
                for position, image, answer in zip(made.origins, made.images, answers, strict=True):
                    writer.write(_fake(real[name].sample(position), image, family, answer))
    write_answers(
        out,
        {
            name: {
                entry.key: answer for entry, answer in zip(real[name].entries, answers, strict=True)
            }
            for name, answers in explained.real.items()
        },
    )
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


def _audit(ctx: StageContext, real: Mapping[str, ShardDataset]) -> None:
    """Can real and fake be told apart by their files' headers, per set?"""
    audit_sets(
        ctx,
        {
            name: stored_items([real[name], ShardDataset(ctx.out, name)], seed=ctx.seed)
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
