"""Stage shard: read a source, check and caption every image, split, write shards and tokenizer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.sections.data import DataSection
from pipeline.stage import StageContext
from unigendet.data.contact_sheet import draw_band_map, draw_contact_sheet
from unigendet.data.prompts import prompt_corpus
from unigendet.data.shards import EncodedSample, ShardDataset, ShardWriter, encode
from unigendet.data.sources.base import Source, SourceItem
from unigendet.data.sources.blue_marble import BlueMarble
from unigendet.data.sources.everyday import EverydayPhotographs
from unigendet.data.sources.folder import ImageFolder
from unigendet.data.tokenizer import train_tokenizer
from unigendet.explanations import phrase_corpus

EVERYDAY = "everyday"
SETS = ("test", EVERYDAY, "val", "train")
"""In the order in which they are filled: a picture met again is kept where it was first, so that no
evaluation image is ever also a training image."""
ROWS_PER_BLOCK = 64
SHOWN_ERRORS = 5


@dataclass(frozen=True, slots=True)
class PlannedItem:
    """One image to read: from which source, into which set."""

    source: Source
    item: SourceItem
    set_name: str


@dataclass(frozen=True, slots=True)
class ReadItem:
    """What reading one planned item gave: a sample, or why there is none."""

    set_name: str
    sample: EncodedSample | None
    problem: str


def shard(ctx: StageContext) -> None:
    """Write the sets of `SETS`, the tokenizer and pictures of them into `ctx.out`."""
    params = ctx.params
    source = open_source(params.data, seed=ctx.seed)
    everyday = EverydayPhotographs(tile=params.data.image_size, crops=params.data.everyday_crops)
    with ctx.ray("ray.data"):
        ctx.mark_started()
        with ctx.timed("list"):
            plan = plan_sets(source, everyday)
        ctx.log(f"{len(plan)} images to read")
        with ctx.timed("shards"):
            left_out = write_sets(ctx.out, read_in_parallel(plan), params.shard.samples_per_shard)
    sets = {name: ShardDataset(ctx.out, name) for name in SETS}
    for name, written in sets.items():
        sources = written.manifest.source_count
        ctx.log(f"{name}: {len(written)} images of {sources} sources")
        ctx.run.log_metrics({f"{name}/images": len(written), f"{name}/sources": sources}, step=0)
    if left_out:
        ctx.log(f"{left_out} images left out: the same picture is in an earlier set already")
    with ctx.timed("tokenizer"):
        captions = [sample.caption for sample in sets["train"]]
        texts = [*captions, *prompt_corpus(), *phrase_corpus()]
        train_tokenizer(texts, params.shard.vocab_size).save(ctx.out)
    with ctx.timed("pictures"):
        for name in ("train", EVERYDAY):
            path = ctx.out / f"{name}_images.png"
            draw_contact_sheet(sets[name], path, title=f"{name}: {len(sets[name])} real images")
            ctx.run.log_figure(name, path)
        if isinstance(source, BlueMarble):
            tiles = [planned.item for planned in plan if planned.set_name != EVERYDAY]
            draw_band_map(source, tiles, ctx.out / "bands.png")
            ctx.run.log_figure("bands", ctx.out / "bands.png")


def open_source(data: DataSection, *, seed: int) -> Source:
    """The source that the parameters name."""
    if data.source == "folder":
        return ImageFolder(
            Path(data.folder).expanduser(),
            image_size=data.image_size,
            val_share=data.val_share,
            test_share=data.test_share,
            seed=seed,
        )
    return BlueMarble(
        tile=data.image_size,
        shrink=data.shrink,
        train_stride=data.train_stride,
        train_width=data.band_width,
        gap=data.band_gap,
        first_column=data.first_column,
    )


def plan_sets(source: Source, everyday: Source) -> list[PlannedItem]:
    """Every image of both sources with its set, set by set in the order of `SETS`.

    Raises ValueError where a set would be empty, or one source_id would be in two sets.
    """
    plan = [PlannedItem(source, item, item.split) for item in source.items()]
    plan += [PlannedItem(everyday, item, EVERYDAY) for item in everyday.items()]
    counts = {name: sum(planned.set_name == name for planned in plan) for name in SETS}
    if empty := [name for name, count in counts.items() if not count]:
        raise ValueError(
            f"the source gives no images for {', '.join(empty)} ({counts}): "
            f"add images, or change the splits in section `data`"
        )
    homes: dict[str, str] = {}
    for planned in plan:
        home = homes.setdefault(planned.item.source_id, planned.set_name)
        if home != planned.set_name:
            raise ValueError(
                f"source_id {planned.item.source_id} is in the sets {home} and "
                f"{planned.set_name}: all images of one source belong to one set"
            )
    return sorted(plan, key=lambda planned: SETS.index(planned.set_name))


def read_in_parallel(plan: Sequence[PlannedItem]) -> Iterator[ReadItem]:
    """Decode, check, caption and encode every planned item with Ray Data, in the plan's order."""
    import ray

    ray.data.DataContext.get_current().execution_options.preserve_order = True
    ray.data.DataContext.get_current().enable_progress_bars = False
    shared = ray.put(list(plan))
    blocks = max(1, len(plan) // ROWS_PER_BLOCK)
    rows = ray.data.range(len(plan), override_num_blocks=blocks).map_batches(
        _read_batch, batch_size=ROWS_PER_BLOCK, batch_format="numpy", fn_kwargs={"shared": [shared]}
    )
    for expected, row in enumerate(rows.iter_rows()):
        assert row["id"] == expected, "Ray Data gave the rows in another order"
        sample = None
        if not row["problem"]:
            sample = EncodedSample(
                key=row["key"],
                source_id=row["source_id"],
                fake=False,
                generator="real",
                png=row["png"],
                meta=row["meta"],
            )
        yield ReadItem(plan[expected].set_name, sample, row["problem"])


def _read_batch(batch: dict[str, Any], shared: list[Any]) -> dict[str, Any]:
    """Rows of the plan -> encoded samples; a bad image gives its problem, to name all at once."""
    import numpy as np
    import ray

    plan: list[PlannedItem] = ray.get(shared[0])
    columns: dict[str, list[Any]] = {
        name: [] for name in ("key", "source_id", "png", "meta", "problem")
    }
    for place in batch["id"]:
        planned = plan[int(place)]
        key, png, meta, problem = planned.item.key, b"", b"", ""
        try:
            encoded = encode(planned.source.read(planned.item))
            png, meta = encoded.png, encoded.meta
        except ValueError as error:
            problem = str(error)
        values = (key, planned.item.source_id, png, meta, problem)
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)
    filled = {name: np.array(column, dtype=object) for name, column in columns.items()}
    return {"id": batch["id"], **filled}


def write_sets(folder: Path, items: Iterator[ReadItem], samples_per_shard: int) -> int:
    """Write the items, which come set by set; the number of repeated pictures that were left out.

    Raises ValueError naming the first few images that could not be read.
    """
    pictures: dict[str, str] = {}
    problems: list[str] = []
    left_out = 0
    pending = next(items, None)
    while pending is not None:
        name = pending.set_name
        with ShardWriter(folder, name, samples_per_shard) as writer:
            while pending is not None and pending.set_name == name:
                if pending.sample is None:
                    problems.append(pending.problem)
                else:
                    picture = hashlib.sha256(pending.sample.png).hexdigest()
                    if pictures.setdefault(picture, name) == name:
                        writer.write_encoded(pending.sample)
                    else:
                        left_out += 1
                pending = next(items, None)
            if problems:
                rest = [pending, *items] if pending is not None else []
                problems += [later.problem for later in rest if later.problem]
                raise ValueError(_told(problems))
    return left_out


def _told(problems: Sequence[str]) -> str:
    shown = "\n  ".join(problems[:SHOWN_ERRORS])
    more = f"\n  and {len(problems) - SHOWN_ERRORS} more" if len(problems) > SHOWN_ERRORS else ""
    return f"{len(problems)} images cannot be used; repair or remove them:\n  {shown}{more}"
