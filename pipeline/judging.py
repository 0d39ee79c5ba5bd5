"""The evaluation's heavy part: actors that hold the models and do pieces of work.

A piece names its task, what it is about, and a range of images. All pieces run through one pool of
actors (`piecework.py`), so that each pays for its imports once. Results are a function of the piece
alone, so the number of actors changes nothing.
"""

from __future__ import annotations

import dataclasses
import io
import time
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from unigendet.benchmarking.judging import Outcome
    from unigendet.data.benchmarks.base import BenchmarkItem
    from unigendet.types import Sample

Task = Literal["generate", "judge", "benchmark", "reconstruct", "measure"]
COST = {"generate": 12.0, "judge": 3.0, "benchmark": 1.5, "reconstruct": 1.5, "measure": 1.0}
"""Rough cost of one image, for the order of the work (long pieces first) and the time left."""


@dataclass(frozen=True, slots=True)
class StoredSet:
    """The fakes, or the real images, of one set of a folder of shards."""

    folder: str
    name: str
    fake: bool


@dataclass(frozen=True, slots=True)
class GeneratorArm:
    """A model that generates. `untrained` puts fresh weights in the place of the model's.

    Fresh output weights are zero, so an untrained generator leaves the noise where it is: its
    images are what the autoencoder makes of pure noise.
    """

    folder: str
    untrained: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """A range of images to do one thing with."""

    task: Task
    about: str
    """Name of a stored set, of an arm for `generate`, or of a benchmark."""
    start: int
    stop: int

    @property
    def cost(self) -> float:
        return COST[self.task] * (self.stop - self.start)


@dataclass(frozen=True, slots=True)
class Job:
    """All that an actor needs; picklable."""

    detector: str
    """Model folder of the model that judges and reconstructs."""
    sets: dict[str, StoredSet]
    benchmarks: dict[str, tuple[BenchmarkItem, ...]]
    """What is judged of each, without answers."""
    perturbations: tuple[str, ...]
    """What every judged image goes through before it is judged once more."""
    arms: dict[str, GeneratorArm]
    prompts: tuple[str, ...]
    size: tuple[int, int]
    """(height, width) in pixels of generated images."""
    steps: int
    guidance: float
    timestep_shift: float
    batch_size: int
    seed: int
    device: str
    threads: int


@dataclass(frozen=True, slots=True)
class Finished:
    """What came of a piece; arrays have one row per image and are empty where they do not apply."""

    task: str
    about: str
    start: int
    scores: NDArray[np.float64]
    answers: NDArray[np.str_]
    perturbed: NDArray[np.float64]
    """(images, perturbations): scores."""
    problems: NDArray[np.str_]
    """Why an image could not be read; empty where it could."""
    images: NDArray[np.uint8]
    features: NDArray[np.float32]
    began: float
    """`time.time()` at which the actor took the piece up."""

    def pack(self) -> bytes:
        """One `.npz` as bytes: a plain column for Ray Data, with no pickle in it."""
        buffer = io.BytesIO()
        values: dict[str, Any] = {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)}
        np.savez(buffer, **values)
        return buffer.getvalue()

    @classmethod
    def unpack(cls, packed: bytes) -> Finished:
        with np.load(io.BytesIO(packed), allow_pickle=False) as found:
            values: dict[str, Any] = {field.name: found[field.name] for field in fields(cls)}
        plain = {name: values[name].item() for name in ("task", "about", "start", "began")}
        return cls(**{**values, **plain})


def pieces_of(task: Task, about: str, count: int, size: int) -> list[Piece]:
    """Cut `count` images into ranges of at most `size`."""
    return [Piece(task, about, at, min(at + size, count)) for at in range(0, count, size)]


class Worker:
    """The Ray Data actor: loads what a piece needs when it first needs it, and keeps it."""

    def __init__(self, job: Job) -> None:
        import torch

        torch.set_num_threads(job.threads)
        self.job = job
        self._models: dict[GeneratorArm, Any] = {}
        self._sets: dict[str, Any] = {}

    def __call__(self, row: dict[str, Any]) -> dict[str, bytes]:
        piece = Piece(row["task"], row["about"], int(row["start"]), int(row["stop"]))
        return {"packed": self.run(piece).pack()}

    def run(self, piece: Piece) -> Finished:
        """Do one piece."""
        began = time.time()
        empty = np.zeros((0, 0, 0, 3), np.uint8)
        result = Finished(
            task=piece.task,
            about=piece.about,
            start=piece.start,
            scores=np.zeros(0),
            answers=np.zeros(0, dtype="<U1"),
            perturbed=np.zeros((0, 0)),
            problems=np.zeros(0, dtype="<U1"),
            images=empty,
            features=np.zeros((0, 0), np.float32),
            began=began,
        )
        if piece.task in ("judge", "benchmark"):
            found = self._judge(piece)
            return dataclasses.replace(
                result,
                scores=np.array([one.score for one in found]),
                answers=np.array([one.answer for one in found], dtype=np.str_),
                perturbed=np.array([one.perturbed for one in found]),
                problems=np.array([one.problem for one in found], dtype=np.str_),
            )
        if piece.task == "measure":
            images = np.stack(self._stored(piece))
            return dataclasses.replace(result, features=self._features(images))
        images = self._reconstruct(piece) if piece.task == "reconstruct" else self._generate(piece)
        return dataclasses.replace(result, images=images, features=self._features(images))

    def _judge(self, piece: Piece) -> list[Outcome]:
        from unigendet.benchmarking.judging import judge_items, judge_pictures
        from unigendet.benchmarking.perturbations import parse_all

        job = self.job
        detect = partial(
            self._model(GeneratorArm(job.detector)).detect,
            batch_size=job.batch_size,
        )
        perturbations = parse_all(job.perturbations)
        if piece.task == "benchmark":
            items = job.benchmarks[piece.about][piece.start : piece.stop]
            return list(
                judge_items(
                    detect,
                    items,
                    batch_size=job.batch_size,
                    explain=False,
                    perturbations=perturbations,
                )
            )
        samples = self._samples(piece)
        return judge_pictures(
            detect,
            [sample.image for sample in samples],
            [sample.key for sample in samples],
            explain=True,
            perturbations=perturbations,
        )

    def _stored(self, piece: Piece) -> list[NDArray[np.uint8]]:
        return [sample.image for sample in self._samples(piece)]

    def _samples(self, piece: Piece) -> list[Sample]:
        from unigendet.data.shards import ShardDataset

        if piece.about not in self._sets:
            stored = self.job.sets[piece.about]
            # The driver has compared the checksums already.
            whole = ShardDataset(Path(stored.folder), stored.name, verify=False)
            self._sets[piece.about] = whole.only(fake=stored.fake)
        data = self._sets[piece.about]
        return [data[index] for index in range(piece.start, piece.stop)]

    def _model(self, arm: GeneratorArm) -> Any:
        import torch

        from unigendet.inference import UniGenDet
        from unigendet.models.unified import UniGenDetModel

        if arm not in self._models:
            loaded = UniGenDet.from_pretrained(arm.folder, device=self.job.device)
            if arm.untrained:
                with torch.random.fork_rng():
                    torch.manual_seed(self.job.seed)
                    fresh = UniGenDetModel(loaded.config).to(self.job.device).eval()
                loaded = UniGenDet(fresh, loaded.vae, loaded.tokenizer)
            self._models[arm] = loaded
        return self._models[arm]

    def _features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        from unigendet.metrics.features import features

        return features(images, device=self.job.device)

    def _reconstruct(self, piece: Piece) -> NDArray[np.uint8]:
        """Encoded to the posterior's mean and decoded again."""
        import torch

        from unigendet.data.transforms import to_image, to_pixels

        model = self._model(GeneratorArm(self.job.detector))
        rule = model.config.vae_resize
        pixels = torch.stack([to_pixels(image, rule) for image in self._stored(piece)])
        with torch.inference_mode():
            latents = model.vae.encode(pixels.to(self.job.device))
            return to_image(model.vae.decode(latents))

    def _generate(self, piece: Piece) -> NDArray[np.uint8]:
        """Every arm starts from the same noise for the same prompt: comparisons are paired."""
        job = self.job
        model = self._model(job.arms[piece.about])
        # A velocity that is zero everywhere reaches the same images in one step.
        still = not any(bool(weight.any()) for weight in model.model.llm2vae.parameters())
        state = np.random.SeedSequence((job.seed, piece.start)).generate_state(1, np.uint32)
        images = model.generate(
            list(job.prompts[piece.start : piece.stop]),
            size=job.size,
            steps=1 if still else job.steps,
            guidance=job.guidance,
            timestep_shift=job.timestep_shift,
            seed=int(state[0]),
            batch_size=job.batch_size,
        )
        return np.stack(images)
