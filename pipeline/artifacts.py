"""What the stages hand to each other: which stage reads which folders, and small files in them.

`STAGES` is the DAG as Python sees it; a test holds it equal to dvc.yaml.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

OUTPUTS = Path("outputs")
TIMINGS = "timings.json"
TRACKED_RUN = "mlflow_run.json"
HISTORY = "history.jsonl"
BEST_WEIGHTS = "best.yaml"
METRICS = "metrics.json"
SUMMARY = "summary.json"
"""The few figures of an out that experiments are compared by."""
TRIALS = "trials.json"
REPORT_PAGE = "index.html"
AUDIT = "audit.json"
COUNTS = "counts.json"
QUARANTINE = "quarantine.jsonl"

RECORDS = frozenset({TIMINGS, TRACKED_RUN})
"""Files of an out that tell of the run, not of its result: they never decide a fingerprint."""


@dataclass(frozen=True, slots=True)
class StageSpec:
    """One stage: its out in outputs/, the stages it reads, its sections or keys of params.yaml."""

    name: str
    out: str
    inputs: tuple[str, ...]
    sections: tuple[str, ...]


STAGES: tuple[StageSpec, ...] = (
    StageSpec("shard", "shards", (), ("seed", "data", "shard")),
    StageSpec(
        "pretrain_generator",
        "generator",
        ("shard",),
        ("seed", "model", "pretrain_generator"),
    ),
    StageSpec(
        "forge",
        "forged",
        ("shard", "pretrain_generator"),
        ("seed", "shard.allow_codec_shortcut", "forge"),
    ),
    StageSpec(
        "pretrain_detector",
        "detector",
        ("shard", "pretrain_generator", "forge"),
        ("seed", "data.degradations", "pretrain_detector"),
    ),
    StageSpec(
        "sweep",
        "sweep",
        ("shard", "forge", "pretrain_detector"),
        (
            "seed",
            "data.degradations",
            "forge.roles",
            "sweep",
            # Not the weights: the sweep looks for them, and a number given there is no news to it.
            "coevolve.teacher",
            "coevolve.teacher_path",
            "coevolve.teacher_layer",
            "coevolve.teacher_centred",
            "coevolve.smsa",
            "coevolve.text_dropout",
            "coevolve.gduf",
            "coevolve.diga",
        ),
    ),
    StageSpec(
        "coevolve",
        "model",
        ("shard", "forge", "pretrain_detector", "sweep"),
        ("seed", "data.degradations", "coevolve"),
    ),
    StageSpec(
        "evaluate",
        "eval",
        ("shard", "pretrain_generator", "forge", "coevolve"),
        ("seed", "evaluate"),
    ),
    StageSpec(
        "report",
        "report",
        (
            "shard",
            "pretrain_generator",
            "forge",
            "pretrain_detector",
            "sweep",
            "coevolve",
            "evaluate",
        ),
        (
            "seed",
            "model",
            "data",
            "shard",
            "pretrain_generator",
            "forge",
            "pretrain_detector",
            "sweep",
            "coevolve",
            "evaluate",
            "report",
        ),
    ),
)


def stage_spec(name: str) -> StageSpec:
    """The stage of that name; a `ValueError` lists the names there are."""
    for spec in STAGES:
        if spec.name == name:
            return spec
    raise ValueError(f"no stage is called {name!r}; stages: {', '.join(s.name for s in STAGES)}")


@dataclass(frozen=True, slots=True)
class StageInputs:
    """Folders of the earlier stages' outs. Asking for one that the stage does not declare fails."""

    root: Path
    spec: StageSpec

    def __getitem__(self, stage: str) -> Path:
        assert stage in self.spec.inputs, f"{self.spec.name} does not declare {stage} as an input"
        return self.root / OUTPUTS / stage_spec(stage).out

    def check(self) -> None:
        """Raises `ValueError` naming the first input that is not there."""
        for stage in self.spec.inputs:
            if not self[stage].is_dir():
                raise ValueError(
                    f"{self.spec.name} needs {self[stage]}, the out of stage {stage}: "
                    f"run `dvc repro {self.spec.name}`, or `dvc pull` a finished experiment"
                )

    def hashes(self) -> dict[str, str]:
        """SHA-256 of each input's content, by stage name."""
        return {stage: tree_hash(self[stage]) for stage in self.spec.inputs}


@dataclass(frozen=True, slots=True)
class StageTimings:
    """What a stage's `timings.json` holds, in seconds of its last attempt."""

    stage: str
    startup_s: float
    """From the start of the process to the first piece of the stage's own work."""
    total_s: float
    phases: Mapping[str, float]
    attempts: int
    """1, or more where the stage was interrupted and went on from its saved state."""

    def save(self, folder: Path) -> None:
        """Writes it into an out folder."""
        write_json(folder / TIMINGS, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> StageTimings:
        """Reads it from an out folder."""
        return cls(**read_json(folder / TIMINGS))


def tree_hash(folder: Path) -> str:
    """SHA-256 over names and contents of all files below a folder, records of the run left out."""
    digest = hashlib.sha256()
    for path in _files(folder):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(file_hash(path).encode())
    return digest.hexdigest()


def _files(folder: Path) -> Iterable[Path]:
    return (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name not in RECORDS)


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Writes JSON whole or not at all; NaN and infinity are errors."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def read_json(path: Path) -> Any:
    """Reads JSON; a `ValueError` names the file where it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: run `dvc repro` or `dvc pull`") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no valid JSON ({error}): it was cut or changed") from None
