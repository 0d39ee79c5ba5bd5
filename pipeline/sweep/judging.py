"""The two figures that a trial ends with, on validation data and the same draws for all trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.detection_data import DetectionData
from pipeline.sections.sweep import DistanceSection

if TYPE_CHECKING:
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
        import numpy as np

        from unigendet.metrics.generation import FeatureSet, features, kernel_distance
        from unigendet.validation import spread

        tiles = spread(real, self.distance.images)
        places = tuple(tile.source_id for tile in tiles)
        if len(set(places)) < 2:
            raise ValueError(
                f"{self.data.shards}: the {len(tiles)} real images of set val that a distance is "
                "taken to are of one source, and it needs two: raise sweep.distance.images, put "
                "more sources into val, or set sweep.distance.measure to flow_loss"
            )
        height, width, _ = tiles[0].image.shape
        drawn = judged.generate(
            [tile.caption for tile in tiles],
            size=(height, width),
            steps=self.distance.steps,
            guidance=self.distance.guidance,
            seed=self.data.seed,
        )
        device = str(judged.model.llm2vae.weight.device)
        return kernel_distance(
            FeatureSet(features(np.stack([tile.image for tile in tiles]), device=device), places),
            FeatureSet(features(np.stack(drawn), device=device), places),
        )
