"""The codec-and-size audit as a gate: a set whose files give its fakes away stops the pipeline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from pipeline.artifacts import AUDIT, write_json
from pipeline.stage import StageContext
from unigendet.data.audit import LIMIT, AuditItem, audit


def audit_sets(
    ctx: StageContext, sets: Mapping[str, Sequence[AuditItem]], *, allowed: bool, remedy: str
) -> None:
    """Audit every set that holds both classes, and write audit.json into the out.

    Raises ValueError, naming the sets and the `remedy`, where an interval ends above 0.6, unless
    that is `allowed`.
    """
    results = {}
    for name, items in sets.items():
        if len({item.fake for item in items}) < 2 or len({item.source_id for item in items}) < 2:
            continue
        result = audit(items, seed=ctx.seed)
        auroc = result.auroc
        shortcut = math.isfinite(auroc.high) and auroc.high > LIMIT
        verdict = "passed" if result.passed else "NOT PASSED: a detector may learn the codec"
        ctx.log(
            f"codec-and-size audit, {name}: AUROC {auroc.value:.3f} "
            f"[{auroc.low:.3f}, {auroc.high:.3f}], {verdict}"
        )
        ctx.run.log_metrics({f"audit/{name}": auroc.value}, step=0)
        results[name] = asdict(result) | {"shortcut": shortcut}
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
            f"shard.allow_codec_shortcut: true, which the report then shows"
        )
