"""The codec-and-size audit as a gate: a set whose files give its fakes away stops the pipeline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.artifacts import AUDIT, write_json
from pipeline.stage import StageContext
from unigendet.data.audit import AuditItem, audit, can_audit


def audit_sets(
    ctx: StageContext,
    sets: Mapping[str, Sequence[AuditItem]],
    *,
    allowed: bool,
    remedy: str,
    setting: str = "shard.allow_codec_shortcut",
) -> dict[str, dict[str, Any]]:
    """Audit every set that holds both classes, write audit.json into the out, and return it.

    Raises ValueError, naming the sets, the `remedy` and the `setting` that allows it, where an
    interval ends above 0.6, unless that is `allowed`.
    """
    results: dict[str, dict[str, Any]] = {}
    for name, items in sets.items():
        if not can_audit(items):
            continue
        result = audit(items, seed=ctx.seed)
        auroc = result.auroc
        verdict = "passed" if result.passed else "NOT PASSED: a detector may learn the codec"
        ctx.log(
            f"codec-and-size audit, {name}: AUROC {auroc.value:.3f} "
            f"[{auroc.low:.3f}, {auroc.high:.3f}], {verdict}"
        )
        if math.isfinite(auroc.value):
            ctx.run.log_metrics({f"audit/{name}": auroc.value}, step=0)
        results[name] = result.to_json()
    write_json(ctx.out / AUDIT, results)
    told = [
        f"{name} (AUROC {found['auroc']['value']:.2f}, up to {found['auroc']['high']:.2f}; "
        f"formats {', '.join(found['formats'])})"
        for name, found in results.items()
        if found["shortcut"]
    ]
    if told and not allowed:
        raise ValueError(
            f"the headers of the files tell real from fake in {'; '.join(told)}: a detector may "
            f"learn the codec instead of the picture. {remedy}, or set "
            f"{setting}: true, which the report then shows"
        )
    return results
