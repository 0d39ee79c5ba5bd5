"""Fresh fakes: what the improved generator draws for training captions, a further training set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.detection_data import DetectionData
from pipeline.sections.coevolve import CoevolveSection

if TYPE_CHECKING:
    from unigendet.training.session import TrainingSession


def draw_fresh_fakes(
    session: TrainingSession,
    data: DetectionData,
    section: CoevolveSection,
    round_number: int,
    model: Path,
    folder: Path,
) -> None:
    """Write a set `train` of fakes by the generator of the model folder `model`.

    They have the sizes, captions and sources of real training images, evenly spread.
    """
    from unigendet.data.shards import ShardDataset, ShardWriter
    from unigendet.evidence import measure
    from unigendet.explanations import EVIDENCE_FILE, Explainer
    from unigendet.inference import UniGenDet
    from unigendet.types import Sample
    from unigendet.validation import spread

    if not session.leader:
        return
    generator = UniGenDet.from_pretrained(model, session.device)
    explainer = Explainer.from_json((data.forged / EVIDENCE_FILE).read_text(encoding="utf-8"))
    real = ShardDataset(data.shards, "train", verify=False).only(fake=False)
    origins = spread(real, section.fresh_fakes)
    session.say(f"round {round_number}: drawing {len(origins)} fresh fakes")
    height, width, _ = origins[0].image.shape
    images = generator.generate(
        [sample.caption for sample in origins],
        size=(height, width),
        steps=section.fresh_fakes_steps,
        guidance=section.fresh_fakes_guidance,
        seed=data.seed + round_number,
    )
    with ShardWriter(folder, "train", encoding=real.encoding) as writer:
        for place, (origin, image) in enumerate(zip(origins, images, strict=True)):
            writer.write(
                Sample(
                    key=f"fresh{round_number}-{place:06d}",
                    image=image,
                    source_id=origin.source_id,
                    split=origin.split,
                    domain=origin.domain,
                    caption=origin.caption,
                    fake=True,
                    generator="flow",
                    explanation=explainer.explain(measure(image), fake=True),
                )
            )
