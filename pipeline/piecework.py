"""All pieces of the evaluation on Ray Data, and their results put together again.

Finished pieces are kept in the stage's state, so an evaluation that was interrupted goes on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.judging import Finished, Job, Piece, Worker
from pipeline.stage import StageContext
from unigendet.benchmarking.judging import Outcome
from unigendet.data.benchmarks.base import BenchmarkItem


class Results:
    """Results of all pieces, put together again."""

    def __init__(self) -> None:
        self._parts: dict[tuple[str, str], list[Finished]] = {}

    def add(self, finished: Finished) -> None:
        self._parts.setdefault((finished.task, finished.about), []).append(finished)

    def _in_order(self, task: str, about: str) -> list[Finished]:
        return sorted(self._parts[task, about], key=lambda part: part.start)

    def features(self, task: str, about: str) -> NDArray[np.float32]:
        return np.concatenate([part.features for part in self._in_order(task, about)])

    def images(self, task: str, about: str) -> NDArray[np.uint8]:
        return np.concatenate([part.images for part in self._in_order(task, about)])

    def outcomes(self, task: str, about: str) -> list[Outcome]:
        """Of `judge` or `benchmark`, one for each image."""
        return [
            Outcome(float(score), str(answer), tuple(perturbed.tolist()), str(problem))
            for part in self._in_order(task, about)
            for score, answer, perturbed, problem in zip(
                part.scores, part.answers, part.perturbed, part.problems, strict=True
            )
        ]


class _Kept:
    """Finished pieces on disk, each whole or not there."""

    def __init__(self, folder: Path, job: Job) -> None:
        self._folder, self._job = folder, job
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, piece: Piece) -> Path:
        """A benchmark's images are named in it too: the list may be another one today."""
        items: Sequence[BenchmarkItem] = ()
        if piece.task == "benchmark":
            items = self._job.benchmarks[piece.about][piece.start : piece.stop]
        about = repr((piece, items))
        return self._folder / f"{hashlib.sha256(about.encode()).hexdigest()[:24]}.npz"

    def load(self, piece: Piece) -> Finished | None:
        path = self.path(piece)
        return Finished.unpack(path.read_bytes()) if path.is_file() else None

    def save(self, piece: Piece, finished: Finished) -> None:
        path = self.path(piece)
        partial = path.with_suffix(".partial")
        partial.write_bytes(finished.pack())
        os.replace(partial, path)


def run_all(ctx: StageContext, job: Job, pieces: Sequence[Piece]) -> Results:
    """All pieces on Ray, with a line of progress every tenth of the way."""
    results, kept = Results(), _Kept(ctx.state / "pieces", job)
    missing: dict[tuple[str, str, int], Piece] = {}
    for piece in pieces:
        if finished := kept.load(piece):
            results.add(finished)
        else:
            missing[piece.task, piece.about, piece.start] = piece
    if len(missing) < len(pieces):
        ctx.log(f"{len(pieces) - len(missing)} of {len(pieces)} pieces were finished before")
    if not missing:
        return results
    total = sum(piece.cost for piece in missing.values())
    done, said = 0.0, 0.0
    with ctx.ray("ray.data"), ctx.timed("models"):
        gpu = job.device == "cuda"
        actors = actor_count(gpu)
        began = time.perf_counter()
        for finished in run_pieces(job, list(missing.values()), actors=actors, gpus=float(gpu)):
            ctx.mark_started(finished.began)
            piece = missing[finished.task, finished.about, finished.start]
            kept.save(piece, finished)
            results.add(finished)
            done += piece.cost
            if done / total >= said:
                spent = time.perf_counter() - began
                left = spent * (total - done) / done
                ctx.log(f"{done / total:4.0%} of the images, {left:.0f} s left")
                said += 0.1
    return results


def actor_count(gpu: bool) -> int:
    """One actor per core that the connected Ray has, or per GPU."""
    import ray

    resources: dict[str, float] = ray.cluster_resources()
    return max(1, int(resources.get("GPU" if gpu else "CPU", 0)))


def run_pieces(
    job: Job, pieces: Sequence[Piece], *, actors: int, gpus: float
) -> Iterator[Finished]:
    """Do all pieces on a pool of Ray Data actors; results come in any order."""
    import ray

    ray.data.DataContext.get_current().enable_progress_bars = False
    ordered = sorted(pieces, key=lambda piece: -piece.cost)
    rows = ray.data.from_items(
        [dataclasses.asdict(piece) for piece in ordered], override_num_blocks=len(ordered)
    )
    finished = rows.map(
        Worker,
        fn_constructor_args=[job],
        compute=ray.data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=1),
        num_cpus=job.threads,
        num_gpus=gpus,
    )
    for row in finished.iter_rows():
        yield Finished.unpack(row["packed"])
