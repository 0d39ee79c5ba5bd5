"""Stage shard: read a source, check and caption every image, split, write shards and tokenizer.

Two passes, each in parallel on Ray Data and without the other's data in memory. `shard_parts` reads
every image once and keeps it, encoded, in the state folder. `shard_quarantine` and then
`shard_decisions` look at rows only: what cannot be used, duplicates, groups, sets. `shard_assembly`
copies what stays into tars. For a while the images are on the disk twice. An interrupted stage goes
on from its last finished part, and ends with the same bytes as an undisturbed one.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pipeline.artifacts import COUNTS, QUARANTINE, write_json
from pipeline.codec_gate import audit_sets
from pipeline.ray_data import each_on_ray
from pipeline.sections.data import DataSection
from pipeline.shard_assembly import assemble
from pipeline.shard_decisions import LEFT_OUT, Counts, check_reals, decide
from pipeline.shard_parts import PartOrder, PlannedItem, cut_into_parts, read_rows, write_part
from pipeline.shard_quarantine import check_quarantine, write_lines
from pipeline.stage import StageContext
from pipeline.workspace import persistent_root
from unigendet.data.audit import original_items
from unigendet.data.contact_sheet import draw_band_map, draw_contact_sheet
from unigendet.data.opener import is_remote, location
from unigendet.data.prompts import prompt_corpus
from unigendet.data.shards import ShardDataset
from unigendet.data.sources.base import CAPTIONS_FROM, Source
from unigendet.data.sources.blue_marble import BlueMarble
from unigendet.data.sources.everyday import EverydayPhotographs
from unigendet.data.sources.registry import open_stored
from unigendet.data.tokenizer import train_tokenizer
from unigendet.explanations import phrase_corpus

EVERYDAY = "everyday"
SETS = ("test", EVERYDAY, "val", "train")
"""In the order in which they are filled: a picture met again is kept where it was first, so that no
evaluation image is ever also a training image."""


def shard(ctx: StageContext) -> None:
    """Write the sets of `SETS`, the tokenizer and pictures of them into `ctx.out`."""
    params = ctx.params
    source = open_source(params.data, root=persistent_root(ctx.workspace))
    everyday = EverydayPhotographs(tile=params.data.image_size, crops=params.data.everyday_crops)
    with ctx.ray("ray.data"):
        ctx.mark_started()
        with ctx.timed("list"):
            plan = plan_sets(source, everyday)
        write_shards(ctx, plan)
    sets = {name: ShardDataset(ctx.out, name) for name in SETS}
    for name, written in sets.items():
        sources = written.manifest.source_count
        ctx.log(f"{name}: {len(written)} images of {sources} sources")
        ctx.run.log_metrics({f"{name}/images": len(written), f"{name}/sources": sources}, step=0)
    with ctx.timed("audit"):
        audit_sets(
            ctx,
            {name: original_items(data, seed=ctx.seed) for name, data in sets.items()},
            allowed=params.shard.allow_codec_shortcut,
            remedy="Bring the files of both classes through the same encoder and size",
        )
    with ctx.timed("tokenizer"):
        captions = [sample.caption for sample in sets["train"].entries]
        told = (sets["train"].fields(place)["explanation"] for place in range(len(captions)))
        texts = [*captions, *filter(None, told), *prompt_corpus(), *phrase_corpus()]
        train_tokenizer(texts, params.shard.vocab_size).save(ctx.out)
    with ctx.timed("pictures"):
        for name in ("train", EVERYDAY):
            path = ctx.out / f"{name}_images.png"
            draw_contact_sheet(sets[name], path, title=f"{name}: {len(sets[name])} images")
            ctx.run.log_figure(name, path)
        if isinstance(source, BlueMarble):
            tiles = [planned.item for planned in plan if planned.set_name != EVERYDAY]
            draw_band_map(source, tiles, ctx.out / "bands.png")
            ctx.run.log_figure("bands", ctx.out / "bands.png")


def write_shards(ctx: StageContext, plan: Sequence[PlannedItem]) -> Counts:
    """Both passes over `plan`: tars, index, counts and lists of what is not among them."""
    section = ctx.params.shard
    encoding = section.encoding()
    origins = Counter(one.item.caption_from for one in plan if not one.item.problem)
    if told := [f"{origins[kind]} from a {kind}" for kind in CAPTIONS_FROM if origins[kind]]:
        ctx.log(f"captions: {', '.join(told)}")
    with ctx.timed("read"):
        orders = cut_into_parts(plan, ctx.state / "parts", encoding)
        _read_all(ctx, orders, len(plan))
    with ctx.timed("decide"):
        checked = check_quarantine(read_rows(orders), section.quarantine_share, ctx.state)
        decided = decide(checked, SETS, near_duplicates=section.near_duplicates)
        names, fake = (decided.rows.column(name).to_pylist() for name in ("set", "fake"))
        check_reals(zip(names, fake, strict=True), SETS)
    with ctx.timed("write"):
        assemble(
            decided.rows,
            SETS,
            out=ctx.out,
            state=ctx.state,
            shard_bytes=round(section.shard_mb * 2**20),
            encoding=encoding,
        )
        shutil.copyfile(ctx.state / QUARANTINE, ctx.out / QUARANTINE)
        write_lines(ctx.out / LEFT_OUT, decided.left_out)
        write_json(ctx.out / COUNTS, asdict(decided.counts))
    counts = decided.counts
    dead = f" + {counts.not_downloaded} not downloaded" if counts.not_downloaded else ""
    ctx.log(
        f"{counts.planned} images planned = {counts.written} written + {counts.left_out} left out "
        f"(the same picture comes earlier) + {counts.quarantined} in quarantine{dead}"
    )
    if counts.kept_apart:
        ctx.log(
            f"{counts.kept_apart} of those left out resemble an image of a published evaluation "
            f"set, or share a source with one that does"
        )
    for crowd in decided.crowds:
        ctx.log(
            f"WARNING: {crowd.sources} of {crowd.of} sources became one group, all of it in set "
            f"{crowd.set_name}: some of their images are alike ({LEFT_OUT} lists what was left "
            f"out, and for what). Take out what they share, a title for instance, if they have no "
            f"more in common"
        )
    if counts.linked or counts.moved:
        ctx.log(
            f"{counts.linked} fakes look like a real image and share its source_id from now on; "
            f"{counts.moved} images moved to the set of their group"
        )
    ctx.run.log_metrics({f"images/{name}": value for name, value in asdict(counts).items()}, step=0)
    return counts


def _read_all(ctx: StageContext, orders: Sequence[PartOrder], total: int) -> None:
    """The first pass, with a line of progress every tenth of the way."""
    ctx.log(f"{total} images to read, in {len(orders)} parts")
    asked = began = time.time()
    done = bad = reused = 0
    said = 0.1
    for _, part in each_on_ray(write_part, orders):
        # Until the first part began, workers were starting.
        began = min(part.began, began) if began > asked else part.began
        done, bad, reused = done + part.images, bad + part.quarantined, reused + part.reused
        if done / total >= said:
            spent = time.time() - began
            left = spent * (total - done) / done
            ctx.log(f"{done / total:4.0%} of the images, {bad} unusable, {left:.0f} s left")
            said = done / total + 0.1
    ctx.phases["workers"] = began - asked
    if reused:
        ctx.log(f"{reused} of {len(orders)} parts were finished by an earlier attempt")


def open_source(data: DataSection, *, root: Path) -> Source:
    """The source that the parameters name. A folder that is not absolute lies below `root`."""
    if data.source != "blue_marble":
        place = location(data.folder)
        if not is_remote(data.folder):
            place = str(root / Path(data.folder).expanduser())
        return open_stored(
            data.source,
            place,
            image_size=data.image_size,
            val_share=data.val_share,
            test_share=data.test_share,
            seed=data.split_seed,
            fit=data.fit,
            crops=data.crops,
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

    Raises ValueError where a set would have no real image, or one source_id would be in two sets.
    """
    plan = [PlannedItem(source, item, item.split) for item in source.items()]
    plan += [PlannedItem(everyday, item, EVERYDAY) for item in everyday.items()]
    usable = [planned for planned in plan if not planned.item.problem]
    check_reals([(planned.set_name, planned.item.fake) for planned in usable], SETS)
    homes: dict[str, str] = {}
    for planned in plan:
        home = homes.setdefault(planned.item.source_id, planned.set_name)
        if home != planned.set_name:
            raise ValueError(
                f"source_id {planned.item.source_id} is in the sets {home} and "
                f"{planned.set_name}: all images of one source belong to one set"
            )
    return sorted(plan, key=lambda planned: SETS.index(planned.set_name))
