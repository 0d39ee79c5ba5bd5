"""All that the page tells, read from the outs of the earlier stages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts import (
    HISTORY,
    METRICS,
    STAGES,
    StageInputs,
    StageTimings,
    read_json,
)
from pipeline.evaluation_files import SAMPLES
from pipeline.params import Params
from pipeline.sheets import read_sheet
from unigendet.data.shards import ShardDataset
from unigendet.records import RECORDS, read_records
from unigendet.types import EvalRecord, Sample


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One line of a training history."""

    phase: str
    step: int
    terms: Mapping[str, float]


_SETS = ("train", "val", "test", "everyday")
_NO_TERM = {"phase", "step", "seconds", "lr", "grad_norm"}


class ReportInputs:
    """Reads what is asked for, once."""

    def __init__(self, folders: StageInputs, params: Params, revision: str) -> None:
        self.folders = folders
        self.params = params
        self.revision = revision

    @cached_property
    def metrics(self) -> dict[str, Any]:
        loaded: dict[str, Any] = read_json(self.folders["evaluate"] / METRICS)
        return loaded

    @cached_property
    def records(self) -> list[EvalRecord]:
        return read_records(self.folders["evaluate"] / RECORDS)

    @cached_property
    def samples(self) -> dict[str, Any]:
        loaded: dict[str, Any] = read_json(self.folders["evaluate"] / SAMPLES)
        return loaded

    def sheet(self, name: str) -> NDArray[np.uint8]:
        """The images of one of the evaluation's sheets, (N, H, W, 3)."""
        about = self.samples[name]
        count = len(about["captions"]) if "captions" in about else 2 * len(about["generated"])
        height, width = about["size"]
        return read_sheet(self.folders["evaluate"] / f"{name}.png", count, (height, width))

    @cached_property
    def real(self) -> Mapping[str, ShardDataset]:
        """Real images by set."""
        return {name: data.only(fake=False) for name, data in self._stored.items()}

    @cached_property
    def given(self) -> Mapping[str, ShardDataset]:
        """Fakes that came with the data by set; there may be none."""
        return {name: data.only(fake=True) for name, data in self._stored.items()}

    @cached_property
    def fake(self) -> Mapping[str, ShardDataset]:
        """Fakes of our own families by set."""
        return {n: ShardDataset(self.folders["forge"], n, verify=False) for n in _SETS}

    @cached_property
    def _stored(self) -> Mapping[str, ShardDataset]:
        # The evaluation has compared the checksums.
        return {n: ShardDataset(self.folders["shard"], n, verify=False) for n in _SETS}

    @cached_property
    def _judged(self) -> dict[str, tuple[ShardDataset, int]]:
        """Where each judged image is: a few of them are shown, and read then."""
        sets = [data[n] for n in ("test", "everyday") for data in (self._stored, self.fake)]
        return {entry.key: (data, at) for data in sets for at, entry in enumerate(data.entries)}

    def judged(self, record: EvalRecord) -> Sample:
        """The image that a record is about."""
        data, position = self._judged[record.key]
        return data.sample(position)

    def history(self, stage: str) -> list[HistoryRow]:
        """A training stage's history, in order; empty where it kept none."""
        path = self.folders[stage] / HISTORY
        if not path.is_file():
            return []
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [
            HistoryRow(
                row["phase"], row["step"], {k: v for k, v in row.items() if k not in _NO_TERM}
            )
            for row in rows
        ]

    def file(self, stage: str, name: str) -> Path | None:
        """A file of a stage's out, where it is there."""
        path = self.folders[stage] / name
        return path if path.is_file() else None

    def timings(self) -> list[StageTimings]:
        """Of every stage before this one."""
        names = [spec.name for spec in STAGES if spec.name in self.folders.spec.inputs]
        return [StageTimings.load(self.folders[name]) for name in names]
