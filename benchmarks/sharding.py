"""The stage shard on JPEG photographs against a bare Pillow loop on as many processes.

    python -m benchmarks.sharding [--images 5000] [--json]
    python -m benchmarks.sharding --memory 2000 20000

Both decode, cut out the centre square, scale it and encode it as PNG. The stage also
checks, hashes, finds duplicates, and writes shards with an index; its rate is over these phases,
Ray's start-up and its workers' apart. The loop runs before and after the stage, in processes that
have started, on half of the images each time.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import multiprocessing.pool
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from benchmarks.photographs import write_photographs
from benchmarks.process_tree import PeakMemory
from benchmarks.report import show

ROOT = Path(__file__).resolve().parents[1]
PROCESSES = 2
PHASES = ("list", "read", "decide", "write")
"""Of the stage: what is held against the loop."""


def compare(folder: Path, count: int, side: int) -> dict[str, object]:
    """Images a second of the loop and of the stage."""
    images = make_photographs(folder / f"images-{count}", count)
    paths = sorted(images.iterdir())
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        pool.starmap(bare_loop, [(paths[:4], side)] * PROCESSES)
        loop_seconds = time_loop(pool, paths[: count // 2], side)
        phases, counts, _ = run_stage(folder, images, count, side)
        loop_seconds += time_loop(pool, paths[count // 2 :], side)
    seconds = sum(phases[name] for name in PHASES) - phases["workers"]
    stage, loop = counts["planned"] / seconds, count / loop_seconds
    return {
        "images": count,
        "stage images/s": stage,
        "loop images/s": loop,
        "ratio": stage / loop,
        "seconds": {name: phases[name] for name in (*PHASES, "workers")},
        "counts": counts,
    }


def memory(folder: Path, sizes: Sequence[int], side: int) -> dict[str, object]:
    """Peak memory of the stage and all of its processes, by number of images."""
    figures: dict[str, object] = {}
    peaks = []
    for count in sorted(sizes):
        images = make_photographs(folder / f"images-{count}", count)
        peaks.append(run_stage(folder, images, count, side, watch=True)[2])
        figures[f"{count} images, MiB"] = peaks[-1] / 2**20
    return figures | {"largest to smallest": peaks[-1] / peaks[0]}


def make_photographs(folder: Path, count: int) -> Path:
    """A folder of `count` JPEG files, made where there is none."""
    if folder.is_dir():
        return folder
    folder.mkdir(parents=True)
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        parts = [range(start, min(start + 50, count)) for start in range(0, count, 50)]
        pool.starmap(write_photographs, [(folder, part) for part in parts])
    return folder


def bare_loop(paths: Sequence[Path], side: int) -> int:
    """What has to be done at least; bytes that came out."""
    total = 0
    for path in paths:
        with Image.open(path) as picture:
            image = picture.convert("RGB")
        short = min(image.size)
        left, top = (image.width - short) // 2, (image.height - short) // 2
        square = image.crop((left, top, left + short, top + short))
        buffer = io.BytesIO()
        square.resize((side, side), Image.Resampling.LANCZOS).save(buffer, "PNG", compress_level=6)
        total += len(buffer.getvalue())
    return total


def time_loop(pool: multiprocessing.pool.Pool, paths: Sequence[Path], side: int) -> float:
    """Seconds that the pool's processes take for `paths` together."""
    began = time.perf_counter()
    parts = [(paths[start : start + 50], side) for start in range(0, len(paths), 50)]
    pool.starmap(bare_loop, parts, 1)
    return time.perf_counter() - began


def run_stage(
    folder: Path, images: Path, count: int, side: int, *, watch: bool = False
) -> tuple[dict[str, float], dict[str, int], int]:
    """Seconds of each phase, counts of images and, where asked for, peak memory in bytes."""
    workspace = folder / f"workspace-{count}"
    for name in ("stages", "pipeline", "unigendet"):
        shutil.copytree(ROOT / name, workspace / name)
    params = (ROOT / "profiles" / "smoke.yaml").read_text()
    for key, value in {
        "source": "folder",
        "folder": json.dumps(str(images)),
        "image_size": side,
        "num_cpus": PROCESSES,
        "shard_mb": 64,
    }.items():
        params = re.sub(rf"(?m)^  {key}: .*$", f"  {key}: {value}", params, count=1)
    (workspace / "params.yaml").write_text(params)
    with (workspace / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "stages.shard"],
            cwd=workspace,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        peak = 0
        if watch:
            with PeakMemory(process.pid) as watched:
                process.wait()
            peak = watched.peak
    if process.wait():
        sys.exit(f"the stage failed:\n{(workspace / 'log').read_text()[-4000:]}")
    out = workspace / "outputs" / "shards"
    phases = json.loads((out / "timings.json").read_text())["phases"]
    counts = json.loads((out / "counts.json").read_text())
    shutil.rmtree(workspace)
    return phases, counts, peak


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=5000, help="photographs to compare on")
    parser.add_argument("--memory", type=int, nargs="+", help="measure memory at these numbers")
    parser.add_argument("--side", type=int, default=256, help="pixels of the stored images")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--folder", type=Path, help="keep the photographs there for another run")
    parser.add_argument("--make", action="store_true", help="make the photographs, and no more")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if options.make:
            for count in options.memory or [options.images]:
                make_photographs(folder / f"images-{count}", count)
            return
        if options.memory:
            figures = memory(folder, options.memory, options.side)
        else:
            figures = compare(folder, options.images, options.side)
    show(figures, as_json=options.json)


if __name__ == "__main__":
    main()
