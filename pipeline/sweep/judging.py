"""The two figures that a trial ends with, on validation data and the same draws for all trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from pipeline.detection_data import DetectionData
from pipeline.sections.sweep import DistanceSection

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from unigendet.inference import UniGenDet
    from unigendet.types import Sample


@dataclass(frozen=True, slots=True)
class Judge:
    """Validates models; picklable.

    The AUROC sets real validation images against fakes of the families of role `val`, which nobody
    was trained on. The kernel distance sets tiles that the model draws for the captions of real
    validation tiles against those tiles.
    """

    data: DetectionData
    families: tuple[str, ...]
    """Whose fakes the AUROC is of."""
    distance: DistanceSection

    def figures(self, judged: UniGenDet) -> dict[str, float]:
        """`auroc`, `distance` and what else was measured on the way."""
        from unigendet.data.answers import read_answers
        from unigendet.data.shards import ShardDataset
        from unigendet.data.streams import Selection
        from unigendet.validation import spread, validate

        data = self.data
        answers = read_answers(data.forged, "val")
        real = Selection(
            [ShardDataset(data.shards, "val", verify=False)], fake=False, explanations=answers
        )
        found = validate(
            judged.model,
            judged.vae,
            judged.tokenizer,
            spread(real, data.validation_images),
            self._fakes(),
            use_vae=data.use_vae,
            seed=data.seed,
        ).scalars()
        if self.distance.measure == "flow_loss":
            return {**found, "distance": found["flow_loss"]}
        return {**found, "distance": self._kernel_distance(judged, real)}

    def _fakes(self) -> list[Sample]:
        """Validation fakes, evenly from the families that judge."""
        from unigendet.data.shards import ShardDataset
        from unigendet.validation import spread

        forged = ShardDataset(self.data.forged, "val", verify=False)
        places = [
            place for place, entry in enumerate(forged.entries) if entry.generator in self.families
        ]
        if not places:
            raise ValueError(
                f"{forged.folder}: set val holds no fakes of {', '.join(self.families)}, the "
                "families of role val: run the stage forge again"
            )
        return [forged.sample(place) for place in spread(places, self.data.validation_images)]

    def _kernel_distance(self, judged: UniGenDet, real: Sequence[Sample]) -> float:
        from unigendet.metrics.generation import FeatureSet, kernel_distance
        from unigendet.validation import spread

        tiles = spread(real, self.distance.images)
        drawn = judged.generate(
            [tile.caption for tile in tiles],
            steps=self.distance.steps,
            guidance=self.distance.guidance,
            seed=self.data.seed,
        )
        device = str(judged.model.llm2vae.weight.device)
        places = tuple(tile.source_id for tile in tiles)
        return kernel_distance(
            FeatureSet(_features([tile.image for tile in tiles], device), places),
            FeatureSet(_features(drawn, device), places),
        )


def _features(images: Sequence[NDArray[np.uint8]], device: str) -> NDArray[np.float32]:
    """(N, 1280); images may have several sizes."""
    import numpy as np

    from unigendet.metrics.features import features

    alike = groupby(images, key=lambda image: image.shape)
    return np.concatenate([features(np.stack(list(part)), device=device) for _, part in alike])
