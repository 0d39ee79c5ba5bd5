"""What `make repro` prints at the end: where everything is and how long it took."""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.artifacts import OUTPUTS, REPORT_PAGE, STAGES, StageTimings, stage_spec


def summary(workspace: Path) -> str:
    """Lines for people; a `ValueError` says which out is missing."""
    lines = [f"{'stage':<20} {'seconds':>8} {'start-up':>9}"]
    total = 0.0
    for spec in STAGES:
        timings = StageTimings.load(workspace / OUTPUTS / spec.out)
        total += timings.total_s
        lines.append(f"{spec.name:<20} {timings.total_s:>8.0f} {timings.startup_s:>9.0f}")
    report = workspace / OUTPUTS / stage_spec("report").out / REPORT_PAGE
    model = workspace / OUTPUTS / stage_spec("coevolve").out
    lines += [
        f"{'all':<20} {total:>8.0f}",
        "",
        f"report   {report}",
        f"model    {model}  (unigendet detect IMAGE..., unigendet generate PROMPT -o out.png)",
        "tracking make ui, then http://127.0.0.1:5000",
    ]
    return "\n".join(lines)


def main() -> int:
    """`python -m pipeline.summary`."""
    try:
        print(summary(Path.cwd()))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
