"""`make smoke`: the whole DAG with profiles/smoke.yaml in a scratch copy, then a no-op repro.

All stages run on one local cluster: starting Ray for each would take longer than their work.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from pipeline.artifacts import METRICS, OUTPUTS, REPORT_PAGE, STAGES, TRACKED_RUN, StageTimings
from pipeline.local_cluster import LocalCluster, running_cluster
from pipeline.scratch import copy_workspace, stage_environment

NO_OP_SECONDS = 5.0


def smoke(workspace: Path, scratch: Path) -> None:
    """Runs the DAG in `scratch`; a `ValueError` says which expectation did not hold."""
    began = time.perf_counter()
    copy_workspace(workspace, scratch, params=workspace / "profiles" / "smoke.yaml")
    with running_cluster(scratch) as cluster:
        _repro(scratch, cluster)
        print(f"smoke: first dvc repro took {time.perf_counter() - began:.0f} s", flush=True)
        check_outs(scratch)
        began = time.perf_counter()
        output = _repro(scratch, cluster)
        seconds = time.perf_counter() - began
    print(f"smoke: second dvc repro took {seconds:.1f} s", flush=True)
    if "Running stage" in output:
        raise ValueError(f"the second dvc repro ran a stage again:\n{output}")
    if seconds > NO_OP_SECONDS:
        raise ValueError(f"the second dvc repro took {seconds:.1f} s, over {NO_OP_SECONDS:g} s")


def check_outs(workspace: Path) -> None:
    """Every stage left a whole out with its records, and no state of an interrupted attempt."""
    for spec in STAGES:
        out = workspace / OUTPUTS / spec.out
        for name in ("timings.json", TRACKED_RUN):
            if not (out / name).is_file():
                raise ValueError(f"stage {spec.name} left no {out / name}")
        timings = StageTimings.load(out)
        print(
            f"smoke: {spec.name:<20} {timings.total_s:6.1f} s, "
            f"of it start-up {timings.startup_s:5.1f}",
            flush=True,
        )
    for path in (Path("eval") / METRICS, Path("report") / REPORT_PAGE):
        if not (workspace / OUTPUTS / path).is_file():
            raise ValueError(f"{workspace / OUTPUTS / path} is missing")
    left = [p for p in (workspace / "runs").glob("*/*") if p.is_dir()]
    if left:
        raise ValueError(f"finished stages left state behind: {left}")


def _repro(workspace: Path, cluster: LocalCluster) -> str:
    """Runs `dvc repro` on the cluster, shows its output as it comes, and returns it."""
    process = subprocess.Popen(
        ["dvc", "repro"],
        cwd=workspace,
        env=stage_environment() | {"RAY_ADDRESS": cluster.address},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        print(line, end="", flush=True)
    if process.wait():
        raise ValueError(f"dvc repro in {workspace} failed with exit code {process.returncode}")
    return "".join(lines)


def main(arguments: Sequence[str]) -> int:
    """`python -m pipeline.smoke [--keep] [--folder DIR]`."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.smoke", description=__doc__)
    parser.add_argument("--folder", type=Path, help="run there (default: a temporary folder)")
    parser.add_argument("--keep", action="store_true", help="do not delete the folder afterwards")
    options = parser.parse_args(arguments)
    scratch = options.folder or Path(tempfile.mkdtemp(prefix="unigendet-smoke-"))
    try:
        smoke(Path.cwd(), scratch)
    except ValueError as error:
        print(f"smoke: error: {error}\nsmoke: everything is left in {scratch}", file=sys.stderr)
        return 1
    if options.keep or options.folder:
        print(f"smoke: passed; everything is in {scratch}")
    else:
        shutil.rmtree(scratch)
        print("smoke: passed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
