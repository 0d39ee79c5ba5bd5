"""Stage forge: evidence of every image, and the answers that are composed from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pipeline.forge_tasks import FakesBy, measure_images, measure_stored
from pipeline.stage import StageContext
from unigendet.data.shards import ShardDataset
from unigendet.explanations import Explainer, fit_explainer

MEASURED_AT_ONCE = 256

Key = TypeVar("Key")
Part = TypeVar("Part")
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Explained:
    """What is said of the images, and by which thresholds."""

    explainer: Explainer
    stored: dict[str, dict[str, str]]
    """Set name -> key -> answer, of the images in the shards that came without one."""
    forged: dict[tuple[str, str], list[str]]
    """(family, set name) -> the answer of each fake, in order."""


def explain(ctx: StageContext, stored: Mapping[str, ShardDataset], fakes: FakesBy) -> Explained:
    """Measure every image, fit thresholds on the training set, compose the answers.

    What the source calls fake counts as such in the fit. Its images that came with an answer keep
    it.
    """
    on_stored = each_in_order(
        measure_stored,
        {name: [data.part(some) for some in _cut(len(data))] for name, data in stored.items()},
    )
    on_forged = each_in_order(
        measure_images,
        {
            key: [made.images[some.start : some.stop] for some in _cut(len(made.images))]
            for key, made in fakes.items()
        },
    )
    labelled = [(one.evidence, one.fake) for one in on_stored["train"]]
    forged = [one for (_, name), found in on_forged.items() if name == "train" for one in found]
    explainer = fit_explainer(
        [evidence for evidence, fake in labelled if not fake],
        [*(evidence for evidence, fake in labelled if fake), *forged],
        least_separation=ctx.params.forge.least_separation,
    )
    spoken = ", ".join(f"{t.measure} {t.separation:.2f}" for t in explainer.thresholds) or "none"
    ctx.log(f"measures that part real from fake in training, by how much: {spoken}")
    ctx.run.log_metrics(
        {f"separation/{t.measure}": t.separation for t in explainer.thresholds}, step=0
    )
    return Explained(
        explainer,
        {
            name: {
                one.key: explainer.explain(one.evidence, one.fake)
                for one in found
                if not one.answered
            }
            for name, found in on_stored.items()
        },
        {key: [explainer.explain(e, fake=True) for e in found] for key, found in on_forged.items()},
    )


def _cut(count: int) -> list[range]:
    starts = range(0, count, MEASURED_AT_ONCE)
    return [range(start, min(start + MEASURED_AT_ONCE, count)) for start in starts]


def each_in_order(
    task: Callable[[Part], list[Found]], parts: Mapping[Key, Sequence[Part]]
) -> dict[Key, list[Found]]:
    """`task` of every part, a Ray task each; what is found of a key's parts, one after another."""
    import ray

    remote = ray.remote(num_cpus=1)(task)
    started = {key: [remote.remote(part) for part in own] for key, own in parts.items()}
    return {
        key: [one for part in ray.get(waiting) for one in part] for key, waiting in started.items()
    }
