"""The evaluation's heavy part as a Ray Data job: actors that hold the models and do pieces of work.

A piece names its task, what it is about, and a range of images. All pieces run through one pool of
actors, so that each pays for its imports once. Results are a function of the piece alone, so the
number of actors changes nothing.
"""

from __future__ import annotations

import dataclasses
import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Task = Literal["generate", "judge", "reconstruct", "measure"]
COST = {"generate": 12.0, "judge": 3.0, "reconstruct": 1.5, "measure": 1.0}
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
    """Name of a stored set, or of an arm for `generate`."""
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
    arms: dict[str, GeneratorArm]
    prompts: tuple[str, ...]
    size: tuple[int, int]
    """(height, width) in pixels of generated images."""
    steps: int
    guidance: float
    timestep_shift: float
    batch_size: int
    use_vae: bool
    """Whether the detector reads latents, as in its training."""
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
            images=empty,
            features=np.zeros((0, 0), np.float32),
            began=began,
        )
        if piece.task == "judge":
            found = self._model(GeneratorArm(self.job.detector)).detect(
                self._stored(piece),
                batch_size=self.job.batch_size,
                use_vae=self.job.use_vae,
            )
            return dataclasses.replace(
                result,
                scores=np.array([one.score for one in found]),
                answers=np.array([one.explanation for one in found], dtype=np.str_),
            )
        if piece.task == "measure":
            images = np.stack(self._stored(piece))
            return dataclasses.replace(result, features=self._features(images))
        images = self._reconstruct(piece) if piece.task == "reconstruct" else self._generate(piece)
        return dataclasses.replace(result, images=images, features=self._features(images))

    def _stored(self, piece: Piece) -> list[NDArray[np.uint8]]:
        from unigendet.data.shards import ShardDataset

        if piece.about not in self._sets:
            stored = self.job.sets[piece.about]
            # The driver has compared the checksums already.
            whole = ShardDataset(Path(stored.folder), stored.name, verify=False)
            self._sets[piece.about] = whole.only(fake=stored.fake)
        data = self._sets[piece.about]
        return [data[index].image for index in range(piece.start, piece.stop)]

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
