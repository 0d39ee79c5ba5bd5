"""How near each family's fakes come to real images, and which are too far to count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts import write_json
from pipeline.forge_tasks import FakesBy, FamilyFakes
from pipeline.stage import StageContext
from unigendet.data.shards import ShardDataset
from unigendet.forgeries.quality import (
    FLAT,
    LEAST_VARIETY,
    FamilyQuality,
    flat_colours,
    measure_distances,
)
from unigendet.forgeries.roles import TRAITS, Role
from unigendet.metrics.generation import FeatureSet

QUALITY_FILE = "quality.json"


def quality_sets(roles: Mapping[str, Role]) -> dict[str, str]:
    """Family -> the set whose fakes say how good it is: never one that it learnt from."""
    return {name: "test" if role == "test" else "val" for name, role in roles.items()}


def judge_families(
    ctx: StageContext,
    real: Mapping[str, ShardDataset],
    fakes: FakesBy,
    results: Sequence[FamilyFakes],
) -> None:
    """Measure every family, say what came out, and write quality.json."""
    roles = ctx.params.forge.roles.by_family()
    fitted = {made.family: made for made in results}
    qualities = []
    for set_name in sorted(set(quality_sets(roles).values())):
        families = [name for name, home in quality_sets(roles).items() if home == set_name]
        qualities += _judge_set(ctx, real[set_name], families, fakes, fitted)
    for found in qualities:
        _tell(ctx, found)
    write_json(
        ctx.out / QUALITY_FILE, {"seed": ctx.seed, "families": [asdict(q) for q in qualities]}
    )


def _judge_set(
    ctx: StageContext,
    real: ShardDataset,
    families: Sequence[str],
    fakes: FakesBy,
    fitted: Mapping[str, FamilyFakes],
) -> list[FamilyQuality]:
    forge = ctx.params.forge
    roles = forge.roles.by_family()
    sources = [entry.source_id for entry in real.entries]
    shown = _spread(len(real), forge.quality_images)
    pixels = real.part(shown).images()
    judged = {family: fakes[family, real.name] for family in families}
    measured = {}
    for family, made in judged.items():
        places = _spread(len(made.images), forge.quality_images)
        groups = [sources[made.origins[place]] for place in places]
        measured[family] = _features(ctx, made.images[places], groups)
    groups = [sources[place] for place in shown]
    distances = measure_distances(
        _features(ctx, pixels, groups),
        _features(ctx, flat_colours(pixels), groups),
        measured,
        floor=forge.quality_floor,
        seed=ctx.seed,
    )
    return [
        FamilyQuality(
            family=family,
            role=roles[family],
            aligned=TRAITS[family].aligned,
            own_decoder=TRAITS[family].own_decoder,
            evaluated_set=real.name,
            n_total=len(made.images),
            distances=distances[family],
            flat=distances[FLAT].kd,
            floor=forge.quality_floor,
            least_variety=LEAST_VARIETY,
            fit_loss=fitted[family].fit_loss,
            fit_seconds=fitted[family].fit_seconds,
            make_seconds=fitted[family].make_seconds,
        )
        for family, made in judged.items()
    ]


def _features(ctx: StageContext, images: NDArray[np.uint8], groups: Sequence[str]) -> FeatureSet:
    from unigendet.metrics.features import features

    return FeatureSet(features(images, device=ctx.device), tuple(groups))


def _spread(count: int, most: int) -> list[int]:
    """Up to `most` positions spread evenly: neighbours in a set show neighbouring places."""
    places: list[int] = np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()
    return places


def _tell(ctx: StageContext, found: FamilyQuality) -> None:
    kd = found.distances.kd
    poor = "; BELOW the floor of quality: it counts for itself alone, not among the families"
    told = "" if found.distances.above_floor else poor
    ctx.log(
        f"{found.family} ({found.role}): KD {kd.value:.3f} [{kd.low:.3f}, {kd.high:.3f}], "
        f"{found.distances.relative:.2f} of flat colours' (floor {found.floor:g}), variety "
        f"{found.distances.variety:.2f} of real images' (floor {LEAST_VARIETY:g}){told}"
    )
    ctx.run.log_metrics(
        {
            f"quality/{found.family}/kd": kd.value,
            f"quality/{found.family}/relative": found.distances.relative,
            f"quality/{found.family}/variety": found.distances.variety,
            f"quality/{found.family}/fit_seconds": found.fit_seconds,
        },
        step=0,
    )
