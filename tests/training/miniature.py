"""Real tiles, fakes of them and a tokenizer, in folders as stages shard and forge write them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from unigendet.data.answers import write_answers
from unigendet.data.prompts import prompt_corpus
from unigendet.data.shards import ShardWriter
from unigendet.data.sources.blue_marble import BlueMarble
from unigendet.data.tokenizer import train_tokenizer
from unigendet.evidence import measure
from unigendet.explanations import EVIDENCE_FILE, fit_explainer, phrase_corpus
from unigendet.types import Sample

TRAIN, VAL = 24, 8


@dataclass(frozen=True, slots=True)
class Miniature:
    shards: Path
    forged: Path


def _blurred(sample: Sample) -> Sample:
    picture = Image.fromarray(sample.image).filter(ImageFilter.GaussianBlur(1.0))
    return replace(
        sample,
        key=f"blurred-{sample.key}",
        image=np.asarray(picture),
        fake=True,
        generator="blurred",
    )


def write_miniature(folder: Path, *, tile: int = 64) -> Miniature:
    """24 training and 8 validation tiles, a blurred fake of each, answers, and a tokenizer."""
    source = BlueMarble(tile=tile, shrink=1.3, train_stride=tile)
    items = source.items()
    made = Miniature(folder / "shards", folder / "forged")
    chosen = {
        name: [item for item in items if item.split == name][:count]
        for name, count in (("train", TRAIN), ("val", VAL))
    }
    real = {name: [source.read(item) for item in part] for name, part in chosen.items()}
    fakes = {name: [_blurred(sample) for sample in part] for name, part in real.items()}
    explainer = fit_explainer(
        [measure(s.image) for s in real["train"]], [measure(s.image) for s in fakes["train"]]
    )
    for name, samples in real.items():
        with ShardWriter(made.shards, name) as writer:
            for sample in samples:
                writer.write(sample)
        with ShardWriter(made.forged, name) as writer:
            for sample in fakes[name]:
                answer = explainer.explain(measure(sample.image), True)
                writer.write(replace(sample, explanation=answer))
    write_answers(
        made.forged,
        {
            name: {s.key: explainer.explain(measure(s.image), False) for s in samples}
            for name, samples in real.items()
        },
    )
    (made.forged / EVIDENCE_FILE).write_text(explainer.to_json(), encoding="utf-8")
    captions = [sample.caption for sample in real["train"]]
    texts = [*captions, *prompt_corpus(), *phrase_corpus()]
    train_tokenizer(texts, 600).save(made.shards)
    return made
