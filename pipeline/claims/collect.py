"""From the outs of a finished run to the figures and scores that a result keeps.

`python -m pipeline.claims.collect FILE`, in a workspace, writes them there as JSON: a command, so
that the code of that workspace makes them, which may not be the caller's any more.
"""

from __future__ import annotations

import hashlib
import math
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.artifacts import (
    METRICS,
    OUTPUTS,
    STAGES,
    SUMMARY,
    StageTimings,
    read_json,
    tree_hash,
    write_json,
)
from pipeline.coevolve import BEFORE_DIGA
from unigendet.evaluation import CROSS_DATASET, IN_DOMAIN, SUITES, judge, suites_of
from unigendet.forgeries.roles import TRAITS
from unigendet.records import RECORDS, read_records

if TYPE_CHECKING:
    from unigendet.types import EvalRecord

HOME, EVERYDAY = "home", "everyday"
_FLOW_DRAWS = 4
"""Of timesteps and noise for each test tile."""
_DETECTION = ("auroc", "balanced_accuracy", "balanced_nll")
_GENERATION = ("model", "before_diga", "pretrained", "reconstructed", "real")


def collect(workspace: Path) -> dict[str, Any]:
    """The fields of `ArmResult` that come from a workspace's outs.

    Judges the model as it entered the last DIGA phase too, and takes flow losses: a minute's work
    on two cores.
    """
    outputs = workspace / OUTPUTS
    metrics = read_json(outputs / "eval" / METRICS)
    records = read_records(outputs / "eval" / RECORDS)
    summary = read_json(outputs / "model" / SUMMARY)
    trained_on = {r.generator for r in records if r.suite == IN_DOMAIN and r.fake}
    shards, forged = outputs / "shards", outputs / "forged"
    pool = hashlib.sha256((tree_hash(shards) + tree_hash(forged)).encode()).hexdigest()[:16]
    return {
        "pool": pool,
        "seconds": {
            spec.name: StageTimings.load(outputs / spec.out).total_s
            for spec in STAGES
            if (outputs / spec.out).is_dir() and spec.name != "report"
        },
        "weights": summary["weights"],
        "trained_on": sorted(trained_on),
        "own_decoder": sorted(name for name, traits in TRAITS.items() if traits.own_decoder),
        "below_floor": sorted(
            one["family"] for one in metrics["families"] if not one["distances"]["above_floor"]
        ),
        "figures": {
            "detection": detection_values(metrics["detection"]),
            "generation": generation_values(metrics["images"]) | flow_losses(outputs),
            "forgetting": forgetting(outputs, records, frozenset(trained_on)),
            "validation": {
                f"{phase}_{name}": value
                for phase, figures in summary["phases"].items()
                for name, value in figures.items()
            },
        },
        "scores": scores_of(records),
    }


def detection_values(table: Mapping[str, Any]) -> dict[str, float | None]:
    """`<suite>_<family or all>_<figure>` -> value."""
    return {
        f"{suite}_{family}_{name}": row["figures"][name]["value"]
        for suite, families in table.items()
        for family, row in families.items()
        for name in _DETECTION
    }


def generation_values(images: Mapping[str, Any]) -> dict[str, float | None]:
    """`kd_<set>`, `fd_<set>`, `coverage_<set>` against the same real tiles, and `diga_change`."""
    values = {
        f"{name}_{which}": images["sets"][which][name]["value"]
        for which in _GENERATION
        if which in images["sets"]
        for name in ("kd", "fd", "coverage")
    }
    if "diga_change" in images["relations"]:
        values["diga_change"] = images["relations"]["diga_change"]["value"]
    return values


def flow_losses(outputs: Path) -> dict[str, float | None]:
    """On the real test tiles, at the same timesteps and noise for every arm and seed."""
    from unigendet.data.shards import ShardDataset
    from unigendet.models.pretrained import load_pretrained
    from unigendet.validation import flow_loss

    real = list(ShardDataset(outputs / "shards", "test").only(fake=False))
    model, found = outputs / "model", dict[str, float | None]()
    for name, folder in (("model", model), ("before_diga", model / BEFORE_DIGA)):
        own = load_pretrained(folder)
        losses = [
            flow_loss(own.model, own.vae, own.tokenizer, real, seed=draw)
            for draw in range(_FLOW_DRAWS)
        ]
        found[f"flow_loss_{name}"] = _defined(sum(losses) / len(losses))
    return found


def scores_of(records: Iterable[EvalRecord]) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Every judged image of this project's own sets once, by set, generator and source."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    seen: set[tuple[str, str]] = set()
    for record in records:
        if record.suite not in SUITES:
            continue
        which = EVERYDAY if record.suite == CROSS_DATASET else HOME
        if (which, record.key) in seen:
            continue  # a real test image is in two suites
        seen.add((which, record.key))
        sources = found.setdefault(which, {}).setdefault(record.generator, {})
        sources.setdefault(record.source_id, []).append(round(record.score, 7))
    return found


def forgetting(
    outputs: Path, records: Iterable[EvalRecord], trained_on: frozenset[str]
) -> dict[str, float | None]:
    """In-domain AUROC on test tiles of the model as it entered the last DIGA phase, and after."""
    from unigendet.data.shards import ShardDataset
    from unigendet.inference import UniGenDet

    entered = UniGenDet.from_pretrained(outputs / "model" / BEFORE_DIGA)
    stored = [*ShardDataset(outputs / "shards", "test"), *ShardDataset(outputs / "forged", "test")]
    samples = [
        sample
        for sample in stored
        if IN_DOMAIN in suites_of(sample.generator, trained_on, home=True)
    ]
    before = judge(entered, samples, trained_on, home=True, explain=False)
    return {
        "in_domain_auroc_before_diga": _defined(_auroc(before)),
        "in_domain_auroc_after_diga": _defined(_auroc(records)),
    }


def _auroc(records: Iterable[EvalRecord]) -> float:
    from unigendet.metrics.detection import area_under, roc_curve

    rows = [record for record in records if record.suite == IN_DOMAIN]
    return area_under(roc_curve([r.fake for r in rows], [r.score for r in rows]))


def _defined(value: float) -> float | None:
    return value if math.isfinite(value) else None


def machine() -> dict[str, Any]:
    """What the figures were made on."""
    return {
        "cores": os.cpu_count(),
        "cpu": _cpu_name(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": version("torch"),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    write_json(Path(sys.argv[1]), collect(Path.cwd()))
