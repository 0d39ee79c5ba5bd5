"""Stage shard on sources that lie elsewhere: LAION, FakeClue, parquet files, a folder at a URI."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import fsspec
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from pipeline.forge import forge
from pipeline.generator import pretrain_generator
from pipeline.params import load_params
from pipeline.shard_parts import PlannedItem, cut_into_parts, write_part
from pipeline.sharding import SETS, open_source
from tests.pipeline.sharding_in_process import (
    ROOT,
    context,
    picture,
    plan_with_everyday,
    save_pictures,
    shard_source,
)
from unigendet.data.benchmarks import base
from unigendet.data.benchmarks.base import normalised
from unigendet.data.manifest import read_originals
from unigendet.data.opener import OpenError
from unigendet.data.shards import ShardDataset
from unigendet.data.sources.base import Source
from unigendet.data.sources.published import TAKEN
from unigendet.data.sources.registry import NAMES
from unigendet.data.tars import MEMBER_NAME
from unigendet.forgeries.roles import TRAITS
from unigendet.types import Sample


def source(name: str, place: object, **values: object) -> Source:
    """As the stage opens what params.yaml names."""
    data = load_params(ROOT / "profiles" / "smoke.yaml").data
    named = {"source": name, "folder": str(place), "image_size": 32, "train_stride": 32}
    shares = {"val_share": 0.2, "test_share": 0.2, "fit": "square"}
    checked = type(data).model_validate(data.model_dump() | named | shares | values)
    return open_source(checked, root=ROOT)


def encoded(seed: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(seed)).save(buffer, kind)
    return buffer.getvalue()


def put(folder: Path, name: str, data: bytes) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def written(ctx: Any, domain: str) -> list[Sample]:
    samples = [sample for name in SETS for sample in ShardDataset(ctx.out, name)]
    return [sample for sample in samples if sample.domain == domain]


def quarantine(ctx: Any) -> dict[str, str]:
    lines = [json.loads(x) for x in (ctx.out / "quarantine.jsonl").read_text().splitlines()]
    return {line["path"]: line["reason"] for line in lines}


def test_every_registered_source_can_be_named_in_the_parameters(tmp_path: Path) -> None:
    for name in NAMES:
        assert source(name, tmp_path).domain == (tmp_path.name if name == "folder" else name)
    for name, place in (("loki", tmp_path), ("laion", ""), ("blue_marble", tmp_path)):
        with pytest.raises(ValueError):
            source(name, place)


@pytest.mark.parametrize(("fit", "shape"), [("square", (32, 32)), ("within", (16, 32))])
def test_laion(tmp_path: Path, fit: str, shape: tuple[int, int]) -> None:
    rows = [{"image_path": "images/gone.jpg", "prompt": "dead"}]
    for n in range(40):
        buffer = io.BytesIO()
        Image.fromarray(picture(n, 64)[:32]).save(buffer, "JPEG")
        put(tmp_path / "set", f"images/{n}.jpg", b"broken" if n == 7 else buffer.getvalue())
        rows.append({"image_path": f"images/{n}.jpg", "prompt": f"picture {n}"})
    put(tmp_path / "set", "final_metadata.json", json.dumps(rows).encode())
    counts, ctx = shard_source(
        source("laion", tmp_path / "set", fit=fit), tmp_path, quarantine_share=0.2
    )
    found = written(ctx, "laion")
    assert (counts.quarantined, counts.not_downloaded) == (1, 1)
    assert (len(found), counts.left_out) == (39, 0)
    assert {sample.image.shape for sample in found} == {(*shape, 3)}
    assert all(sample.caption.startswith("picture ") for sample in found)
    reasons = {Path(path).name: reason for path, reason in quarantine(ctx).items()}
    assert "no such file" in reasons["gone.jpg"] and "not an image" in reasons["7.jpg"]


@pytest.mark.parametrize("form", ["rows", "tars", "files"])
def test_dead_links_are_told_and_are_no_damage(tmp_path: Path, form: str) -> None:
    """Of 40 links 14 were dead and one file could not be scaled: all are listed, one is damage."""
    status = ["failed_to_download"] * 14 + ["failed_to_resize"] + ["success"] * 25
    there = [encoded(n, "JPEG") if status[n] == "success" else None for n in range(40)]
    columns = {
        "key": [f"{n:09d}" for n in range(40)],
        "caption": [f"picture {n}" for n in range(40)],
        "status": status,
        "error_message": ["HTTP Error 404" if one != "success" else None for one in status],
    }
    folder = tmp_path / "set"
    folder.mkdir()
    if form == "rows":
        columns["jpg"] = there
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "00000.parquet")
    members = {f"{n:09d}.jpg": image for n, image in enumerate(there) if image}
    if form == "files":
        for name, image in members.items():
            put(folder, f"00000/{name}", image)
    elif form == "tars":
        with tarfile.open(folder / "00000.tar", "w") as tar:
            for name, image in members.items():
                tar.addfile(tar_header(name, image), io.BytesIO(image))
    counts, ctx = shard_source(source("laion", folder), tmp_path, quarantine_share=0.03)
    assert (counts.quarantined, counts.not_downloaded) == (1, 14)
    assert counts.planned == counts.written + counts.left_out + 1 + 14
    assert len(written(ctx, "laion")) == 25
    reasons = Counter(quarantine(ctx).values())
    assert reasons == {
        "not downloaded: HTTP Error 404": 14,
        "failed_to_resize: HTTP Error 404": 1,
    }
    assert any(line.endswith("1 in quarantine + 14 not downloaded") for line in ctx.said)
    with pytest.raises(ValueError, match="1 of 34 images cannot be used"):
        shard_source(source("laion", folder), tmp_path / "narrow", quarantine_share=0.01)


def tar_header(name: str, data: bytes) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size = len(data)
    return header


def test_fakeclue_with_both_classes_and_its_explanations(tmp_path: Path) -> None:
    records = []
    for n in range(40):
        kind = ("fake", "real")[n % 2]
        path = f"{'test' if n > 35 else 'train'}/doc/{kind}/{n}.png"
        put(tmp_path / "set", path, encoded(n))
        turns = [{"from": "gpt", "value": f"This is a {kind} image. {n}"}]
        # The last says the opposite of its folder.
        label = n % 2 if n != 39 else 0
        records.append({"image": path, "label": label, "conversations": turns})
    for split in ("train", "test"):
        rows = [record for record in records if str(record["image"]).startswith(split)]
        put(tmp_path / "set", f"data_json/{split}.json", json.dumps(rows).encode())
    _, ctx = shard_source(source("fakeclue", tmp_path / "set"), tmp_path, quarantine_share=0.2)
    found = written(ctx, "fakeclue")
    assert sum(sample.fake for sample in found) == 20 and len(found) == 39
    for sample in found:
        word = "fake" if sample.fake else "real"
        assert sample.explanation.startswith(f"This is a {word} image.")
        assert sample.generator == ("doc" if sample.fake else "real")
    ((path, reason),) = quarantine(ctx).items()
    assert path.endswith("39.png") and "its folder says real" in reason


def test_a_source_of_fakes_alone_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    table = ["path,label,split"]
    for n in range(12):
        put(tmp_path, f"{n}.png", b"never looked at")
        table.append(f"{n}.png,{int(n % 2 or n % 3 == 1)},{('train', 'val', 'test')[n % 3]}")
    put(tmp_path, "manifest.csv", "\n".join(table).encode())
    told = r"no real images for val \(.*val: 0 real, 4 fake"
    with pytest.raises(ValueError, match=told):
        plan_with_everyday(source("manifest", tmp_path / "manifest.csv"))


def test_names_and_explanations_that_would_mislead(tmp_path: Path) -> None:
    """A generator called as one of ours, texts without a verdict, with another's, with both."""
    said = {
        0: "The fur is soft.",
        1: "This is a real image.",
        2: "This is a fake image.",
        3: "This is a fake image, though one may think that it is real.",
        4: "This is a real image. The fur is soft.",
        5: "",
        7: "The paws have six toes.",
    }
    rows = [
        {
            "path": f"{'long' * 30}{n}.png",
            "label": n % 2,
            "generator": ("real", ("GAN", "ff++")[n // 2 % 2])[n % 2],
            "split": ("train", "val", "test")[n // 2 % 3],
            "explanation": said.get(n, ""),
        }
        for n in range(24)
    ]
    for n, row in enumerate(rows):
        put(tmp_path / "set", str(row["path"]), encoded(n))
    put(tmp_path / "set", "manifest.json", json.dumps(rows).encode())
    _, ctx = shard_source(source("manifest", tmp_path / "set"), tmp_path, quarantine_share=0.2)
    reasons = {
        Path(path).stem.removeprefix("long" * 30): why for path, why in quarantine(ctx).items()
    }
    assert reasons == {
        "1": "its label says fake, its explanation the opposite",
        "2": "its label says real, its explanation the opposite",
    }
    found = {re.sub(r"^[long]*|-\w+$", "", s.key): s for s in written(ctx, "manifest")}
    texts = {name: sample.explanation for name, sample in found.items() if sample.explanation}
    assert texts == {
        "0": "This is a real image. The fur is soft.",
        "4": "This is a real image. The fur is soft.",
        "7": "This is a fake image. The paws have six toes.",
    }
    assert {s.generator for s in found.values()} == {"real", "GAN of manifest", "ff++"}
    assert {normalised(name) for name in TRAITS} < TAKEN and {"all", "real"} < TAKEN
    # Stage forge names what it makes of an image after the family and the image.
    longest = max(map(len, TRAITS))
    assert all(MEMBER_NAME.fullmatch("x" * longest + "-" + s.key) for s in found.values())


def test_a_text_that_is_not_utf_8_is_told_and_spoils_no_other(tmp_path: Path) -> None:
    columns = ("caption", "explanation", "generator", "source_id")
    rows: list[dict[str, Any]] = [
        {"path": f"{n}.png", "label": n % 2, "split": ("train", "val", "test")[n // 2 % 3]}
        for n in range(24)
    ]
    for row, column in zip(rows[1:8:2], columns, strict=True):
        row[column] = "half a pair \ud83d"
    for row in rows:
        put(tmp_path / "set", row["path"], encoded(int(row["path"][:-4])))
    rows.append({"path": "gone \ud83d.png", "label": 0, "split": "train"})
    put(tmp_path / "set", "manifest.json", json.dumps(rows).encode())
    counts, ctx = shard_source(source("manifest", tmp_path / "set"), tmp_path, quarantine_share=0.3)
    assert (counts.quarantined, len(written(ctx, "manifest"))) == (5, 20)
    reasons = {Path(path).name: reason for path, reason in quarantine(ctx).items()}
    for n, column in zip((1, 3, 5, 7), columns, strict=True):
        assert f"the text of {column} is not UTF-8" in reasons[f"{n}.png"]
    assert "no such file" in reasons["gone \\ud83d.png"]


@pytest.mark.parametrize("form", ["manifest", "parquet"])
def test_an_image_that_others_name_as_their_source_goes_where_they_go(
    tmp_path: Path, form: str
) -> None:
    """Forty reals of which the table says nothing, and two fakes of each."""
    rows = [
        {
            "name": f"{'r' if kind == 0 else f'f{kind}-'}{n}.png",
            "label": int(kind > 0),
            "source_id": f"r{n}.png" if kind else None,
            "split": "train",
        }
        for n in range(40)
        for kind in range(3)
    ]
    images = [encoded(number) for number in range(len(rows))]
    (tmp_path / "set").mkdir()
    if form == "parquet":
        table = pyarrow.Table.from_pylist(
            [row | {"image": image} for row, image in zip(rows, images, strict=True)]
        )
        pyarrow.parquet.write_table(table, tmp_path / "set" / "a.parquet", row_group_size=7)
    else:
        for row, image in zip(rows, images, strict=True):
            put(tmp_path / "set", row["name"], image)
            row["path"] = row.pop("name")
        put(tmp_path / "set", "manifest.json", json.dumps(rows).encode())
    items = source(form, tmp_path / "set").items()
    assert Counter(item.source_id for item in items) == {f"r{n}.png": 3 for n in range(40)}
    assert len({(item.source_id, item.split) for item in items}) == 40
    assert {item.split for item in items} == {"train", "val", "test"}


def test_images_of_several_sizes_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    for n in range(24):
        side = ("train", "val", "test")[n % 3]
        (tmp_path / "set" / side).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(n)[: 40 - n % 2 * 12]).save(tmp_path / "set" / side / f"{n}.png")
    _, ctx = shard_source(source("folder", tmp_path / "set", fit="within"), tmp_path)
    ctx.inputs = {"shard": ctx.out}
    for stage in (forge, pretrain_generator):
        with pytest.raises(ValueError, match=r"2 sizes .* of 32 x 22.*`data.fit` to square"):
            stage(ctx)


def test_parquet_files_with_the_images_inside(tmp_path: Path) -> None:
    rows = [
        {
            "image": {"bytes": b"" if n == 3 else encoded(n, ("PNG", "JPEG")[n % 2])},
            "caption": f"picture {n}",
            "label": ("real", "fake", "unsure")[2 if n == 5 else n % 2],
            "explanation": f"because {n}",
            "source_id": f"scene {n // 2}",
            "split": ("train", "val", "test")[n // 2 % 3],
        }
        for n in range(24)
    ]
    (tmp_path / "set").mkdir()
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, tmp_path / "set" / "a.parquet", row_group_size=5)
    put(tmp_path / "set", "b.parquet", b"no table")
    _, ctx = shard_source(source("parquet", tmp_path / "set"), tmp_path, quarantine_share=0.2)
    found = {sample.caption: sample for sample in written(ctx, "parquet")}
    assert set(found) == {f"picture {n}" for n in range(24) if n not in (3, 5)}
    for n in (0, 1, 22):
        sample = found[f"picture {n}"]
        verdict = f"This is a {('real', 'fake')[n % 2]} image."
        assert (sample.fake, sample.explanation) == (n % 2 == 1, f"{verdict} because {n}")
        assert sample.split == ("train", "val", "test")[n // 2 % 3]
    assert len(quarantine(ctx)) == 3 and "the file is empty" in quarantine(ctx).values()
    facts = [one for name in ("train", "val", "test") for one in read_originals(ctx.out, name)]
    assert {one.format for one in facts if one is not None} == {"PNG", "JPEG"}


def test_a_folder_at_a_uri(tmp_path: Path) -> None:
    save_pictures(tmp_path / "set", 12)
    files = fsspec.filesystem("memory")
    files.put(str(tmp_path / "set"), "/photos", recursive=True)
    try:
        files.pipe_file("/photos/train/bad.png", b"no image")
        remote = source("folder", "memory://photos")
        _, ctx = shard_source(remote, tmp_path / "remote", quarantine_share=0.2)
        _, local = shard_source(source("folder", tmp_path / "set"), tmp_path / "local")
        found, same = written(ctx, "photos"), written(local, "set")
        assert len(found) == 12 == len(same)
        for one, other in zip(found, same, strict=True):
            assert np.array_equal(one.image, other.image) and one.caption == other.caption
        assert list(quarantine(ctx)) == ["memory://photos/train/bad.png"]
        encoding = context(tmp_path / "x").params.shard.encoding()
        before, again = (
            cut_into_parts(plan_with_everyday(remote), tmp_path, encoding)[0].digest
            for _ in range(2)
        )
        files.pipe_file("/photos/train/bad.png", encoded(99))
        after = cut_into_parts(plan_with_everyday(remote), tmp_path, encoding)[0].digest
        assert before == again != after
    finally:
        files.rm("/photos", recursive=True)


def test_what_a_store_failed_to_give_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = fsspec.filesystem("memory")
    for n, split in enumerate(("train", "val", "test")):
        files.pipe_file(f"/fragile/{split}/{n}.png", encoded(n))
    try:
        remote = source("folder", "memory://fragile")
        plan = [PlannedItem(remote, item, item.split) for item in remote.items()]
        (order,) = cut_into_parts(plan, tmp_path, context(tmp_path / "x").params.shard.encoding())
        with monkeypatch.context() as broken:
            broken.setattr(base, "read_bytes", Mock(side_effect=OpenError("no connection")))
            assert write_part(order).quarantined == 3
        again = write_part(order)
        assert (again.quarantined, again.reused) == (0, False)
        assert write_part(order).reused
    finally:
        files.rm("/fragile", recursive=True)
