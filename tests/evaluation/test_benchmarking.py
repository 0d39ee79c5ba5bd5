"""A detector judged on published layouts: what is chosen, counted and told; a stand-in judges."""

from __future__ import annotations

import errno
import io
import json
import math
import tarfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.benchmarks.miniature import cells, write_parquet
from unigendet.benchmarking.headers import header_items, source_of
from unigendet.benchmarking.judging import judge_items
from unigendet.benchmarking.perturbations import Perturbation, parse_all
from unigendet.benchmarking.result import Judged, collect, robustness, to_json
from unigendet.benchmarking.selection import Selection, select
from unigendet.data import audit as audit_module
from unigendet.data import opener
from unigendet.data.audit import audit
from unigendet.data.benchmarks import containers
from unigendet.data.benchmarks.containers import TarSpan
from unigendet.evaluation import ALL, MEAN
from unigendet.records import read_records, write_records


@dataclass(frozen=True)
class Said:
    score: float
    explanation: str = ""


def brightness(images, *, explain: bool):  # type: ignore[no-untyped-def]
    """P(fake) is how bright an image is."""
    answer = "This is a fake image." if explain else ""
    return [Said(float(image.mean()) / 255.0, answer) for image in images]


def grey(folder: Path, name: str, *levels: int, side: int = 8) -> None:
    """One flat image of each grey level."""
    path = folder / name
    path.mkdir(parents=True, exist_ok=True)
    for level in levels:
        Image.new("RGB", (side, side), (level,) * 3).save(path / f"{level}.png")


def judged(selection: Selection, perturbations: tuple[Perturbation, ...] = ()) -> Judged:
    outcomes = judge_items(
        brightness, selection.items, batch_size=3, explain=False, perturbations=perturbations
    )
    return collect("set", selection, list(outcomes), perturbations)


@pytest.fixture
def two_generators(tmp_path: Path) -> Path:
    """BigGAN is told apart, of ProGAN's four fakes one lies below the threshold, and below half
    of its reals."""
    root = tmp_path / "CNN_synth_testset"
    grey(root, "biggan/0_real", 10, 20)
    grey(root, "biggan/1_fake", 200, 210)
    grey(root, "progan/0_real", 30, 100)
    grey(root, "progan/1_fake", 60, 220, 230, 240)
    return root


def test_figures_by_generator_their_mean_and_all_pooled(two_generators: Path) -> None:
    rows = {
        row.generator: row
        for row in judged(select("forensynths", str(two_generators))).table(draws=50)
    }
    assert list(rows) == ["biggan", "progan", MEAN, ALL]
    assert (rows["biggan"].reals, rows["biggan"].fakes) == (2, 2)
    assert rows["biggan"].figures["auroc"].value == 1.0
    assert rows["progan"].figures["auroc"].value == pytest.approx(7 / 8)
    assert rows["progan"].figures["recall_fake"].value == 0.75
    assert rows["progan"].figures["balanced_accuracy"].value == pytest.approx(0.875)
    # A mean weighs generators alike, whatever their size.
    assert rows[MEAN].figures["auroc"].value == pytest.approx((1 + 7 / 8) / 2)
    assert rows[MEAN].figures["recall_fake"].value == pytest.approx(0.875)
    assert rows[ALL].figures["recall_fake"].value == pytest.approx(5 / 6)
    assert (rows[MEAN].reals, rows[MEAN].fakes) == (4, 6)
    for row in rows.values():
        found = row.figures["balanced_accuracy"]
        assert found.low <= found.value <= found.high


def test_fakes_stand_against_the_reals_that_their_set_pairs_them_with(tmp_path: Path) -> None:
    root = tmp_path / "diffusion_datasets"
    grey(root, "imagenet/0_real", 10, 20, 30)
    grey(root, "laion/0_real", 240, 250)
    grey(root, "guided/1_fake", 200, 201)
    grey(root, "dalle/1_fake", 202, 203)
    rows = {
        row.generator: row
        for row in judged(select("universalfakedetect", str(root))).table(draws=5)
    }
    assert (rows["guided"].reals, rows["dalle"].reals, rows[ALL].reals) == (3, 2, 5)
    assert rows["guided"].figures["auroc"].value == 1.0
    assert rows["dalle"].figures["auroc"].value == 0.0


def test_a_generator_called_as_a_row_of_several_has_its_own(tmp_path: Path) -> None:
    told = {"mean": (True, (200, 210)), "all": (True, (5, 220)), "x": (False, (10, 20))}
    rows = []
    for generator, (is_fake, levels) in told.items():
        grey(tmp_path, generator, *levels)
        rows += [
            {"path": f"{generator}/{level}.png", "label": is_fake, "generator": generator}
            for level in levels
        ]
    (tmp_path / "index.json").write_text(json.dumps(rows))
    found = to_json(judged(select("manifest", str(tmp_path))), None, draws=5)["detection"]
    assert {name: row["fakes"] for name, row in found.items()} == {
        "all of set": 2, "mean of set": 2, MEAN: 4, ALL: 4,
    }  # fmt: skip
    assert found[MEAN]["figures"]["recall_fake"]["value"] == 0.75


def test_records_are_written_whatever_a_table_holds(tmp_path: Path) -> None:
    grey(tmp_path, "images", 10)
    row = {
        "path": "images/10.png",
        "label": 0,
        "explanation": "\ud800 caf\u00e9",
        "source_id": "\udcff",
    }
    (tmp_path / "index.json").write_text(json.dumps([row]))
    records = judged(select("manifest", str(tmp_path))).records
    assert records[0].reference == row["explanation"]
    write_records(tmp_path / "records.jsonl", records)
    assert read_records(tmp_path / "records.jsonl") == list(records)


def test_one_class_gives_recall_and_nothing_else(tmp_path: Path) -> None:
    grey(tmp_path / "a", "images", 10, 200, 210, 220)
    fakes = select("synthscars", str(tmp_path / "a"))
    assert "all 4 images are fake" in fakes.problem
    (row,) = [row for row in judged(fakes).table(draws=5) if row.generator == ALL]
    assert set(row.figures) == {"recall_fake"} and row.figures["recall_fake"].value == 0.75
    grey(tmp_path / "b", "0_real", 10, 20, 200)
    reals = select("folder", str(tmp_path / "b"))
    (row,) = judged(reals).table(draws=5)
    assert set(row.figures) == {"recall_real"} and row.reals == 3 and row.fakes == 0
    told = to_json(judged(reals, (Perturbation("blur", 1),)), None, draws=5)
    assert "all 3 images are real" in told["one_class"] and told["robustness"] == []


def test_what_cannot_be_read_is_named_and_the_others_are_judged(two_generators: Path) -> None:
    (two_generators / "biggan/1_fake/broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")
    (two_generators / "biggan/1_fake/empty.png").write_bytes(b"")
    found = to_json(judged(select("forensynths", str(two_generators))), None, draws=5)
    assert [left["path"] for left in found["unreadable"]] == ["biggan/1_fake/broken.png"]
    assert [left["path"] for left in found["left_out"]] == ["biggan/1_fake/empty.png"]
    assert found["images"] == {"listed": 11, "chosen": 11, "judged": 10}
    assert found["detection"]["biggan"]["fakes"] == 2


def test_a_disk_that_fails_in_a_tar_spoils_one_image_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(tmp_path / "00000.tar", "w") as tar:
        for level in (10, 20):
            grey(tmp_path / "apart", "", level)
            tar.add(tmp_path / f"apart/{level}.png", f"{level}.png")
    selection = select("laion", str(tmp_path / "00000.tar"))
    _, second = selection.items
    assert isinstance(second.member, TarSpan)
    offset, whole = second.member.offset, opener.open_binary

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() == offset:
                raise OSError(errno.EIO, "Input/output error")
            return super().read(size)

    monkeypatch.setattr(opener, "open_binary", lambda place: Failing(whole(place).read()))
    found = judged(selection)
    assert len(found.records) == 1
    assert [one.path for one in found.unreadable] == [second.name]
    assert "cannot be read (Input/output error)" in found.unreadable[0].reason


def test_nothing_that_can_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "0_real").mkdir()
    (tmp_path / "0_real/a.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")
    with pytest.raises(ValueError, match=r"none of 1 images could be read.*a\.png"):
        judged(select("folder", str(tmp_path)))


def test_rows_of_a_table_are_judged_like_files(tmp_path: Path) -> None:
    cell = (tmp_path / "0_real", tmp_path / "1_fake")
    grey(tmp_path, "0_real", 10, 20)
    grey(tmp_path, "1_fake", 200, 210)
    images = [{"bytes": path.read_bytes()} for folder in cell for path in sorted(folder.iterdir())]
    rows = {
        "image": images,
        "label": ["real", "real", "fake", "fake"],
        "model": ["a", "a", "x", "x"],
    }
    write_parquet(tmp_path / "set/core/test-0.parquet", rows)
    (*_, row) = judged(select("openfake", str(tmp_path / "set"))).table(draws=5)
    assert row.figures["auroc"].value == 1.0 and (row.reals, row.fakes) == (2, 2)


def test_a_limit_is_even_and_the_same_each_time(tmp_path: Path) -> None:
    grey(tmp_path, "biggan/0_real", *range(40))
    grey(tmp_path, "biggan/1_fake", *range(3))
    grey(tmp_path, "progan/0_real", *range(20))
    grey(tmp_path, "progan/1_fake", *range(20))
    part = select("forensynths", str(tmp_path), limit=30)
    counts = Counter((item.generator, item.is_fake) for item in part.items)
    assert counts == {
        ("biggan", False): 9, ("biggan", True): 3, ("progan", False): 9, ("progan", True): 9,
    }  # fmt: skip
    assert part.items == select("forensynths", str(tmp_path), limit=30).items
    assert part.listed == 83 and list(part.items) == [
        i for i in select("forensynths", str(tmp_path)).items if i in part.items
    ]
    assert len(select("forensynths", str(tmp_path), limit=1000).items) == 83
    with pytest.raises(ValueError, match=r"limit of 3 leaves out some of the 4.*at least 4"):
        select("forensynths", str(tmp_path), limit=3)


def test_the_digest_pins_what_was_read(two_generators: Path) -> None:
    before = select("forensynths", str(two_generators)).digest()
    assert select("forensynths", str(two_generators)).digest() == before
    grey(two_generators, "progan/1_fake", 220, side=80)
    assert select("forensynths", str(two_generators)).digest() != before


def test_a_split_is_the_test_images_unless_asked(tmp_path: Path) -> None:
    for split in ("train", "val"):
        grey(tmp_path, f"BigGAN/inner/{split}/ai", 1, 2)
        grey(tmp_path, f"BigGAN/inner/{split}/nature", 3)
    assert select("genimage", str(tmp_path)).split == "val"
    assert len(select("genimage", str(tmp_path), split="train").items) == 3
    assert len(select("genimage", str(tmp_path), split="all").items) == 6
    with pytest.raises(ValueError, match=r"no images of the split test; it has train \(3 images\)"):
        select("genimage", str(tmp_path), split="test")
    with pytest.raises(ValueError, match="train, val, test or all; got 'tset'"):
        select("genimage", str(tmp_path), split="tset")


def test_places_that_cannot_be_used_are_told_as_the_reader_tells_them(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere: there is no such file or folder"):
        select("genimage", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"holds no image of genimage.*published layout"):
        select("genimage", str(tmp_path))
    (tmp_path / "parts.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"archives \(parts\.zip\): unpack them first"):
        select("genimage", str(tmp_path))
    with pytest.raises(ValueError, match="did you mean genimage"):
        select("genimag", str(tmp_path))


def test_headers_that_give_fakes_away_are_found(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    for at, picture in enumerate(noise):
        for name, is_jpeg in (
            ("a/0_real", True),
            ("a/1_fake", False),
            ("b/0_real", False),
            ("b/1_fake", False),
        ):
            path = tmp_path / name / f"{at}.{'jpg' if is_jpeg else 'png'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
    (tmp_path / "b/0_real/broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")
    given_away = audit(header_items(select("folder", str(tmp_path / "a")).items), draws=50)
    assert given_away.shortcut and given_away.auroc.value == 1.0
    assert given_away.to_json()["shortcut"] is True and given_away.blockiness is None
    alike = audit(header_items(select("folder", str(tmp_path / "b")).items), draws=50)
    assert not alike.shortcut and alike.auroc.n == 120


def test_perturbations_are_alike_for_real_and_fake_and_make_a_curve(two_generators: Path) -> None:
    kinds = parse_all(["jpeg=50", "jpeg=90", "noise=40"])
    found = judged(select("forensynths", str(two_generators)), kinds)
    assert [len(scores) for scores in found.perturbed.values()] == [10, 10, 10]
    curve = robustness(found.records, found.perturbed, draws=5)
    assert [(point["kind"], point["strength"]) for point in curve] == [
        ("jpeg", 100), ("jpeg", 90), ("jpeg", 50), ("noise", 0), ("noise", 40),
    ]  # fmt: skip
    assert curve[0]["auroc"]["value"] == pytest.approx(23 / 24)


def test_a_picture_too_large_for_a_perturbation_is_named_and_the_others_are_judged(
    two_generators: Path,
) -> None:
    wide = two_generators / "progan/1_fake/wide.png"
    Image.new("RGB", (16_400, 2), (190,) * 3).save(wide)
    kinds = parse_all(["webp=70", "blur=1"])
    found = judged(select("forensynths", str(two_generators)), kinds)
    assert len(found.records) == 11 and not found.unreadable
    (left,) = found.unperturbed
    assert left.path == "progan/1_fake/wide.png" and left.reason.endswith("judged after webp=70")
    webp, blur = (np.isnan(found.perturbed[kind]) for kind in kinds)
    assert webp.sum() == 1 and not blur.any()
    told = to_json(found, None, draws=5)
    assert told["unperturbed"] == [{"path": left.path, "reason": left.reason}]
    known = {(p["kind"], p["strength"]): p["auroc"] for p in told["robustness"]}
    assert (known["webp", 70]["n"], known["webp", 70]["n_total"]) == (10, 11)
    assert (known["blur", 1]["n"], known["blur", 1]["n_total"]) == (11, 11)
    assert known["webp", 70]["value"] is not None
    reals_only = {kinds[0]: [math.nan if record.fake else 0.5 for record in found.records]}
    undefined = robustness(found.records, reals_only, draws=5)[1]["auroc"]
    assert undefined["value"] is None and (undefined["n"], undefined["n_total"]) == (4, 11)


def test_real_images_linked_into_several_generators_count_once_in_the_pool(tmp_path: Path) -> None:
    grey(tmp_path, "coco", 10, 20, 200)
    grey(tmp_path, "set/genA/1_fake", 210, 220)
    grey(tmp_path, "set/genB/1_fake", 90, 220)
    grey(tmp_path, "set/genC/1_fake", 230)
    grey(tmp_path, "set/genC/0_real", 240)
    for name in ("genA", "genB"):
        (tmp_path / "set" / name / "0_real").symlink_to(tmp_path / "coco")
    found = judged(select("community_forensics", str(tmp_path / "set")), (Perturbation("blur", 1),))
    rows = {row.generator: row for row in found.table(draws=20)}
    assert {name: (row.reals, row.fakes) for name, row in rows.items()} == {
        **{"genA": (3, 2), "genB": (3, 2), "genC": (1, 1), MEAN: (4, 5), ALL: (4, 5)}
    }
    assert rows["genA"].figures["auroc"].value == 1.0
    assert rows["genB"].figures["auroc"].value == pytest.approx(5 / 6)
    assert len({record.key for record in found.records}) == 12
    assert rows[ALL].figures["auroc"].groups == 9
    (curve, _) = to_json(found, None, draws=5)["robustness"]
    assert curve["auroc"]["n"] == 9


def test_the_rows_of_a_table_are_told_as_they_are_made(two_generators: Path) -> None:
    told: list[tuple[int, int]] = []
    selection = select("forensynths", str(two_generators))
    judged(selection).table(draws=2, progress=lambda *done: told.append(done))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_headers_of_a_part_are_read_forward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_module, "MOST", 12)
    rows = {"image": cells(40), "label": ["real", "fake"] * 20}
    write_parquet(tmp_path / "core/test-0.parquet", rows, group=4)
    selected = select("openfake", str(tmp_path)).items
    chosen = audit_module.some_sources(selected, source_of, seed=3)
    assert len(chosen) == 12 and [item for item in selected if item in chosen] == chosen
    groups: list[int] = []
    read = containers._read_group
    monkeypatch.setattr(
        containers,
        "_read_group",
        lambda table, place, group, columns: (
            groups.append(group) or read(table, place, group, columns)
        ),
    )
    containers._column.cache_clear()
    assert len(header_items(selected, seed=3)) == 12
    assert groups == sorted(set(groups))


def test_outcomes_keep_their_order_over_batches(two_generators: Path) -> None:
    selection = select("forensynths", str(two_generators))
    (two_generators / "progan/0_real/30.png").write_bytes(b"")
    found = list(judge_items(brightness, selection.items, batch_size=4, explain=True))
    for item, outcome in zip(selection.items, found, strict=True):
        if item.name == "progan/0_real/30.png":
            assert math.isnan(outcome.score) and "empty" in outcome.problem
        else:
            assert outcome.score == pytest.approx(int(Path(item.name).stem) / 255)
            assert outcome.answer == "This is a fake image."
