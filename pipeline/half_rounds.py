"""What is kept of a model after each half-round: what it draws, and how it does on validation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.artifacts import read_json, write_json
from pipeline.detection_data import DetectionData
from pipeline.phases import START, phase_label
from pipeline.sections.coevolve import CoevolveSection
from pipeline.sheets import read_sheet, write_sheet

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unigendet.training.session import TrainingSession
    from unigendet.types import Sample

_DRAWN = "drawn.png"
_VALIDATION = "validation.json"
_FEATURES = "features.npy"
_REAL_FEATURES = "real_features.npy"


@dataclass(frozen=True, slots=True)
class HalfRounds:
    """A session's half-rounds, the models of which draw the same captions from the same noise."""

    session: TrainingSession
    data: DetectionData
    section: CoevolveSection

    def asked(self) -> list[Sample]:
        """The real validation images whose captions every model draws, evenly spread."""
        return self._real(self.section.matrix_images or self.section.samples.count)

    def reference(self) -> list[Sample]:
        """The real validation images that what is drawn is held against."""
        return self._real(self.data.validation_images)

    def keep(self, name: str, model: Path, folder: Path) -> None:
        """Write what the model of the half-round `name` draws, and its validation, to `folder`.

        Half-round `start` comes first: the others are measured against the features it keeps.
        """
        from unigendet.inference import UniGenDet

        self.session.mark_started()
        if not self.session.leader:
            return
        loaded = UniGenDet.from_pretrained(model, self.session.device)
        asked, drawing = self.asked(), self.section.samples
        height, width, _ = asked[0].image.shape
        images = loaded.generate(
            [sample.caption for sample in asked],
            size=(height, width),
            steps=drawing.steps,
            guidance=drawing.guidance,
            seed=self.data.seed,
        )
        write_sheet(folder / _DRAWN, np.stack(images))
        figures = self.data.validate(loaded).scalars()
        if self.section.matrix_images:
            figures |= self._distance(name, np.stack(images), folder)
        write_json(folder / _VALIDATION, figures)
        told = [
            f"{words} {figures[key]:.{digits}f}"
            for key, words, digits in (
                ("auroc", "AUROC", 3),
                ("det_loss", "verdict loss", 3),
                ("flow_loss", "flow loss", 4),
                ("kd", "KD", 4),
            )
            if key in figures
        ]
        self.session.say(f"{phase_label(name)}: validation {', '.join(told)}")

    def drawn(self, name: str) -> NDArray[np.uint8]:
        """(N, H, W, 3), what the model of a kept half-round drew for `asked`."""
        asked = self.asked()
        height, width, _ = asked[0].image.shape
        return read_sheet(self.session.kept(name) / _DRAWN, len(asked), (height, width))

    def validation(self, name: str) -> dict[str, float]:
        """The validation figures of a kept half-round."""
        figures: dict[str, float] = read_json(self.session.kept(name) / _VALIDATION)
        return figures

    def features(self, name: str | None = None) -> NDArray[np.float32]:
        """(N, 1280), features of what a kept half-round drew; of the reference without a name."""
        kept = self.session.kept
        path = kept(name) / _FEATURES if name else kept(START) / _REAL_FEATURES
        rows: NDArray[np.float32] = np.load(path, allow_pickle=False)
        return rows

    def _distance(self, name: str, images: NDArray[np.uint8], folder: Path) -> dict[str, float]:
        """The kernel distance to the reference, and the features that it is taken between."""
        from unigendet.metrics.generation import FeatureSet, features, kernel_distance

        reference = self.reference()
        if name == START:
            real = features(np.stack([s.image for s in reference]), device=self._device)
            np.save(folder / _REAL_FEATURES, real)
        else:
            real = self.features()
        rows = features(images, device=self._device)
        np.save(folder / _FEATURES, rows)
        value = kernel_distance(
            FeatureSet(rows, tuple(sample.source_id for sample in self.asked())),
            FeatureSet(real, tuple(sample.source_id for sample in reference)),
        )
        return {"kd": value} if math.isfinite(value) else {}

    @property
    def _device(self) -> str:
        return str(self.session.device)

    def _real(self, count: int) -> list[Sample]:
        from unigendet.data.shards import ShardDataset
        from unigendet.validation import spread

        real = ShardDataset(self.data.shards, "val", verify=False).only(fake=False)
        return spread(real, count)
