"""What the detector learns from and is validated on: shards, forged shards, and their answers.

Real images are those of the shards. Fakes are the shards' own, where the source brought some, and
the forged ones, all alike: what is drawn more often is what there is more of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.sections.coevolve import CoevolveSection
    from pipeline.sections.detector import DetectorSection
    from pipeline.stage import StageContext
    from unigendet.config import ModelConfig
    from unigendet.data.composition import Budget
    from unigendet.data.degradations import Degradations
    from unigendet.data.loader import MixedBatches
    from unigendet.data.tokenizer import Tokenizer
    from unigendet.inference import UniGenDet
    from unigendet.training.session import TrainingSession
    from unigendet.validation import Validation


@dataclass(frozen=True, slots=True)
class DetectionData:
    """Folders of images, and how batches are made of them; picklable."""

    shards: Path
    forged: Path
    seed: int
    smsa: bool
    """Whether the detector that learns from it reads latents."""
    text_dropout: float
    validation_images: int
    """Real images, and as many fakes, of each validation."""
    degradations: Degradations
    """What happens to the images that are trained on; validation sees them as they are."""
    fresh_share: float = 0.0
    """Share of the training fakes that is of `more_fakes`, where there are any."""

    @classmethod
    def of(
        cls,
        ctx: StageContext,
        section: DetectorSection | CoevolveSection,
        *,
        validation_images: int,
        fresh_share: float = 0.0,
    ) -> DetectionData:
        """What the stages before this one left, to be learned as `section` says."""
        return cls(
            shards=ctx.inputs["shard"],
            forged=ctx.inputs["forge"],
            seed=ctx.seed,
            smsa=section.smsa,
            text_dropout=section.text_dropout,
            validation_images=validation_images,
            degradations=ctx.params.data.degradations.config(),
            fresh_share=fresh_share,
        )

    def batches(
        self,
        session: TrainingSession,
        tokenizer: Tokenizer,
        config: ModelConfig,
        *,
        generation_per_step: int,
        detection_per_step: int,
        phase_seed: int,
        budget: Budget | None = None,
        more_fakes: Sequence[Path] = (),
    ) -> MixedBatches:
        """Training batches of this rank; `more_fakes` are folders with a set `train` of fakes.

        These take `fresh_share` of the fakes' places, the forged ones the rest. `phase_seed` sets
        phases apart, so that each starts with other images and draws.
        """
        from unigendet.data.answers import read_answers
        from unigendet.data.loader import MixedBatches
        from unigendet.data.shards import ShardDataset

        given = ShardDataset(self.shards, "train", verify=False)
        return MixedBatches(
            [given],
            [given, ShardDataset(self.forged, "train", verify=False)],
            fresh=[ShardDataset(folder, "train", verify=False) for folder in more_fakes],
            fresh_share=self.fresh_share,
            generation_per_step=generation_per_step,
            detection_per_step=detection_per_step,
            tokenizer=tokenizer,
            config=config,
            seed=self.seed * 1000 + phase_seed,
            rank=session.rank,
            world=session.world,
            budget=budget,
            text_dropout=self.text_dropout,
            explanations=read_answers(self.forged, "train"),
            degradations=self.degradations,
        )

    def patches(self, config: ModelConfig, images: int) -> Tensor:
        """The image encoder's patches of `images` real training images, (N, p * p * 3)."""
        import torch

        from unigendet.data.shards import ShardDataset
        from unigendet.data.transforms import to_pixels
        from unigendet.models.vision import patchify_pixels
        from unigendet.validation import spread

        real = ShardDataset(self.shards, "train", verify=False).only(fake=False)
        pixels = [to_pixels(sample.image, config.vit_resize) for sample in spread(real, images)]
        return torch.cat([patchify_pixels(one, config.vit.patch_size) for one in pixels])

    def validate(self, detector: UniGenDet) -> Validation:
        """The detector on validation images, fakes evenly from the generators of that set."""
        from unigendet.data.answers import read_answers
        from unigendet.data.shards import ShardDataset
        from unigendet.data.streams import Selection
        from unigendet.validation import spread, validate

        answers = read_answers(self.forged, "val")
        given = ShardDataset(self.shards, "val", verify=False)
        made = ShardDataset(self.forged, "val", verify=False)
        real = Selection([given], fake=False, explanations=answers)
        fakes = Selection([given, made], fake=True, explanations=answers)
        return validate(
            detector.model,
            detector.vae,
            detector.tokenizer,
            spread(real, self.validation_images),
            spread(fakes, self.validation_images),
            seed=self.seed,
        )
