"""Sets whose tables say the class: FakeClue, LOKI, parquet files, manifests, LAION, folders."""

from __future__ import annotations

import csv
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from tests.data.benchmarks.miniature import (
    cells,
    check,
    counts,
    picture,
    put,
    run,
    skipped,
    write,
    write_parquet,
    write_tar,
)
from unigendet.data.benchmarks.base import BenchmarkItem
from unigendet.data.benchmarks.check import items
from unigendet.data.benchmarks.registry import find_benchmark
from unigendet.data.benchmarks.samples import read_sample
from unigendet.data.image_header import ImageError
from unigendet.data.shards import encode


def read(name: str, place: Path) -> list[BenchmarkItem]:
    found = items(find_benchmark(name), str(place))
    return [item for item in found if isinstance(item, BenchmarkItem)]


def clue(image: str, label: Any, answer: str = "because") -> dict[str, Any]:
    turns = [{"from": "human", "value": "<image>\nIs it?"}, {"from": "gpt", "value": answer}]
    return {"image": image, "label": label, "conversations": turns}


def fakeclue(root: Path, nested: str = "test") -> None:
    put(root / nested, "doc/fake/1.jpg", "doc/real/1.jpg", "ff++/fake/sub/2.png", "ff++/real/2.png")
    records = [clue("doc/fake/1.jpg", 0, "This is a fake image. x"), clue("doc/real/1.jpg", 1)]
    records += [clue("ff++/fake/sub/2.png", 0), clue("ff++/real/2.png", 1)]
    write(root, "data_json/test.json", records)


@pytest.mark.parametrize("nested", ["test", "test/test"])
def test_fakeclue_has_1_for_real(tmp_path: Path, nested: str) -> None:
    fakeclue(tmp_path, nested)
    for place in (tmp_path, tmp_path / "test"):
        found = check("fakeclue", place)
        assert counts(found) == {"doc": (1, 1), "ff++": (1, 1)}
        assert found["skipped"] == []
    assert check("fakeclue", tmp_path)["missing"] == ["train", "data_json/train.json"]
    by_name = {item.name.split(nested + "/")[1]: item for item in read("fakeclue", tmp_path)}
    item = by_name["doc/fake/1.jpg"]
    assert item.is_fake and item.native_label == "0" and item.split == "test"
    assert item.explanation == "This is a fake image. x"


def test_fakeclue_refuses_what_disagrees(tmp_path: Path) -> None:
    fakeclue(tmp_path)
    records = [clue("test/doc/fake/1.jpg", 1), clue("test/doc/real/1.jpg", 1)]
    records += [clue("test/ff++/real/2.png", 1), clue("test/ff++/real/gone.png", 1)]
    write(tmp_path, "data_json/test.json", records)
    put(tmp_path, "test/doc/unlabelled.png")
    write(tmp_path, "data_json/train.json", [clue("doc/real/9.jpg", 1)])
    found = check("fakeclue", tmp_path)
    assert (found["n_real"], found["n_fake"]) == (2, 1)
    left = skipped(found)
    assert set(left) == {
        *("test/doc/fake/1.jpg", "test/ff++/real/gone.png", "test/doc/unlabelled.png")
    }
    assert "opposite" in left["test/doc/fake/1.jpg"]
    assert "no such file" in left["test/ff++/real/gone.png"]
    inverted = [clue("doc/fake/1.jpg", 1), clue("doc/real/1.jpg", 0), clue("ff++/real/2.png", 0)]
    write(tmp_path, "data_json/test.json", inverted)
    result = run("check", "fakeclue", tmp_path)
    assert result.exit_code == 1 and "inverted" in result.stderr
    put(tmp_path, *(f"train/doc/{c}/{n}.png" for c in ("fake", "real") for n in range(9)))
    others = [clue(f"doc/{c}/{n}.png", c == "real") for c in ("fake", "real") for n in range(9)]
    write(tmp_path, "data_json/train.json", [r | {"label": int(r["label"])} for r in others])
    result = run("check", "fakeclue", tmp_path)  # most of all labels agree, but not the test ones
    assert result.exit_code == 1 and "3 of 3 labels in data_json/test.json" in result.stderr


def test_fakeclue_without_its_json_or_class_folders(tmp_path: Path) -> None:
    put(tmp_path, "test/doc/a.png", "test/doc/b.png")
    assert "holds no image" in run("check", "fakeclue", tmp_path).stderr
    write(tmp_path, "data_json/test.json", [clue("doc/a.png", 1), clue("doc/b.png", 0)])
    assert counts(check("fakeclue", tmp_path)) == {"doc": (1, 1)}
    write(tmp_path, "data_json/test.json", '{"not": "a list"}')
    assert "must be a JSON list" in run("check", "fakeclue", tmp_path).stderr


def ask(image: str, truth: str, asked: str, answer: str) -> dict[str, Any]:
    kind = f"image_tf_image_{truth}_ask_{asked}_animal"
    return {"image_path": image, "question_type": kind, "answer": answer, "modality": "image"}


def test_loki_takes_truth_from_the_question_type(tmp_path: Path) -> None:
    put(tmp_path, "media_data/image/animal/f.jpg", "media_data/image/animal/r.png")
    put(tmp_path, "media_data/image/animal/other.png", "media_data/video/frame.png")
    questions = [
        ask("image/animal/f.jpg", "fake", "fake", "yes"),
        ask("image/animal/f.jpg", "fake", "real", "no"),
        ask("image/animal/r.png", "real", "fake", "no"),
        ask("image/animal/r.png", "real", "real", "yes"),
        ask("image/animal/gone.png", "real", "real", "yes"),
        {"image_path": "video/frame.png", "question_type": "video_tf", "modality": "video"},
    ]
    assert "true_or_false.json" in run("check", "loki", tmp_path).stderr
    write(tmp_path, "data_json/image/true_or_false.json", questions)
    write(tmp_path, "data_json/video/true_or_false.json", [])
    for place in (tmp_path, tmp_path / "media_data", tmp_path / "media_data" / "image"):
        found = check("loki", place)
        assert counts(found) == {"animal": (1, 1)} and found["missing"] == []
        assert len(found["skipped"]) == 2
        assert "no such file" in skipped(found)["image/animal/gone.png"]
    questions[1]["question_type"] = "image_tf_image_real_ask_real_animal"
    write(tmp_path, "data_json/image/true_or_false.json", questions)
    assert "both real and fake" in json.dumps(check("loki", tmp_path, code=1)["skipped"])


def test_community_forensics(tmp_path: Path) -> None:
    columns = {
        "image_name": ["a", "b", "c"],
        "image_data": [picture("a"), picture("b", "JPEG"), b"no image"],
        "model_name": ["sd15", "", "sd15"],
        "real_source": [None, "laion", None],
        "label": [1, 0, 1],
        "split": ["test", "test", "test"],
        "prompt": ["a cat", None, "x"],
    }
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", columns)
    found = check("community_forensics", tmp_path)
    assert counts(found) == {"sd15": (0, 1), "laion": (1, 0)}
    assert found["formats"] == {"PNG": 1, "JPEG": 1} and len(found["skipped"]) == 1
    first = read("community_forensics", tmp_path)[0]
    assert first.caption == "a cat" and first.read_bytes() == picture("a")
    assert counts(check("community_forensics", tmp_path / "data")) == counts(found)


def test_openfake_labels_are_words(tmp_path: Path) -> None:
    columns: dict[str, Any] = {
        "image": cells(3),
        "prompt": ["p", "q", ""],
        "label": ["fake", "real", "Fake"],
        "model": ["flux", "real", "imagen"],
        "type": ["t", "t", "t"],
    }
    write_parquet(tmp_path / "core" / "validation-00000-of-00001.parquet", columns)
    found = check("openfake", tmp_path)
    assert counts(found) == {"flux": (0, 1), "real": (1, 0), "imagen": (0, 1)}
    assert found["missing"] == ["train", "test", "reddit"]
    assert read("openfake", tmp_path)[0].split == "val"
    columns["label"] = [1, 0, 1]
    write_parquet(tmp_path / "core" / "validation-00000-of-00001.parquet", columns)
    found = check("openfake", tmp_path, code=1)
    assert "accepted: real = real, fake = fake" in found["skipped"][0]["reason"]


def test_opensdi_takes_the_generator_from_the_file(tmp_path: Path) -> None:
    columns = {"key": ["entire/1", "partial/2", "real/3"], "image": cells(3), "mask": cells(3)}
    write_parquet(
        tmp_path / "data" / "sd15-00000-of-00002.parquet", {**columns, "label": [1, 1, 0]}
    )
    write_parquet(
        tmp_path / "data" / "flux-00000-of-00001.parquet", {**columns, "label": [1, 0, 0]}
    )
    write(tmp_path, "data/broken.parquet", b"PAR1 no")
    write_parquet(tmp_path / "other.parquet", {"url": ["x"]})
    found = check("opensdi", tmp_path)
    assert counts(found) == {"sd15": (1, 2), "flux": (2, 1)}
    left = skipped(found)
    assert "damaged" in left["data/broken.parquet"]
    assert "no column of images" in left["other.parquet"]


def test_sid_set_as_parquet(tmp_path: Path) -> None:
    columns = {"img_id": ["a", "b", "c"], "image": cells(3), "mask": cells(3), "label": [0, 1, 2]}
    write_parquet(tmp_path / "validation-00000-of-00001.parquet", columns)
    found = check("sid_set", tmp_path)
    assert counts(found) == {"real": (1, 0), "full_synthetic": (0, 1), "tampered": (0, 1)}


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl", "parquet", "bom.csv", ";.csv"])
def test_a_manifest_of_every_kind(tmp_path: Path, kind: str) -> None:
    put(tmp_path, "a.png", "sub/b.jpg", "c.webp")
    rows = [
        {"filename": "a.png", "label": "REAL", "generator": ""},
        {"filename": "sub/b.jpg", "label": "fake", "generator": "sdxl"},
        {"filename": "c.webp", "label": "1", "generator": ""},
    ]
    place = tmp_path / f"labels.{kind}"
    if kind.endswith(("csv", "tsv")):
        with place.open("w", newline="", encoding="utf-8-sig" if "bom" in kind else "utf-8") as out:
            delimiter = {"tsv": "\t", ";.csv": ";"}.get(kind, ",")
            table = csv.DictWriter(out, list(rows[0]), delimiter=delimiter)
            table.writeheader()
            table.writerows(rows)
    elif kind == "parquet":
        write_parquet(place, {key: [row[key] for row in rows] for key in rows[0]})
    elif kind == "jsonl":
        place.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        place.write_text(json.dumps(rows))
    for given in (place, tmp_path):
        found = check("manifest", given)
        assert counts(found) == {"real": (1, 0), "sdxl": (0, 1), "unknown": (0, 1)}
        assert found["formats"] == {"PNG": 1, "JPEG": 1, "WEBP": 1}


@pytest.mark.parametrize(
    ("column", "values"),
    [("label", (0, 1)), ("is_fake", (False, True)), ("fake", ("0", "1")), ("class", (0.0, 1.0))],
)
def test_label_columns_and_values(tmp_path: Path, column: str, values: tuple[Any, Any]) -> None:
    put(tmp_path, "r.png", "f.png")
    rows = [{"path": "r.png", column: values[0]}, {"path": "f.png", column: values[1]}]
    place = write(tmp_path, "m.json", rows)
    assert {i.name: i.is_fake for i in read("manifest", place)} == {"r.png": False, "f.png": True}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label,fake\na.png,0,1\n", "all could be it"),
        ("path,verdict\na.png,0\n", "exactly one column must say the class"),
        ("path,label\na.png,2\n", "accepted: real = real"),
        ("path,label\na.png,\n", "not understood"),
        ("path,label\na.png,ai\n", "line 2"),
        ("picture,label\na.png,1\n", "no file is named"),
        ("path,label\na.png,1\na.png,0\n", "both as real and as fake"),
        ("path,label,split\na.png,1,holdout\n", "not train, val or test"),
        ("path,label\na.png,1,2\n", "more values"),
    ],
)
def test_what_a_manifest_may_not_say(tmp_path: Path, text: str, message: str) -> None:
    put(tmp_path, "a.png")
    result = run("check", "manifest", write(tmp_path, "m.csv", text))
    assert result.exit_code == 1 and message in result.stderr


def test_manifest_rows_that_are_left_out(tmp_path: Path) -> None:
    put(tmp_path, "set/a.png", "set/b.png", "secret.png")
    lines = ["path,label", "a.png,1", "b.png,0", "a.png,1", "gone.png,1", "../secret.png,0"]
    lines += [f"{tmp_path}/secret.png,0", f"{tmp_path}/set/b.png,0", "http://host/x.png,0"]
    lines += ["pipe:cat a.png,1"]
    found = check("manifest", write(tmp_path, "set/m.csv", "\n".join(lines)))
    assert (found["n_real"], found["n_fake"]) == (1, 1)
    reasons = skipped(found)
    assert "does not lie below" in reasons["../secret.png"]
    assert "does not lie below" in reasons[f"{tmp_path}/secret.png"]
    assert "listed twice" in reasons["a.png"] + reasons[f"{tmp_path}/set/b.png"]
    assert "URI" in reasons["http://host/x.png"] and "URI" in reasons["pipe:cat a.png"]
    write(tmp_path, "set/other.csv", "x")
    assert "several tables" in run("check", "manifest", tmp_path / "set").stderr


def test_a_folder_is_class_folders_or_captioned_photographs(tmp_path: Path) -> None:
    put(tmp_path / "photos", "train/red_house.png", "b.JPG", "c.png")
    write(tmp_path / "photos", "b.txt", "a grey\n wall")
    rows = [{"file_name": "c.png", "text": "a cat"}, {"file_name": "gone.png", "text": "x"}]
    write(tmp_path / "photos", "metadata.jsonl", "\n".join(map(json.dumps, rows)))
    found = check("folder", tmp_path / "photos")
    assert counts(found) == {"real": (3, 0)} and list(skipped(found)) == ["gone.png"]
    assert [item.caption for item in read("folder", tmp_path / "photos")] == [
        *("a grey wall", "a cat", "red house")
    ]
    put(tmp_path / "set", "sdxl/0_real/a.png", "sdxl/1_fake/a.png", "flux/fake/a.png", "odd.png")
    found = check("folder", tmp_path / "set")
    assert counts(found) == {"sdxl": (1, 1), "flux": (0, 1)} and list(skipped(found)) == ["odd.png"]
    put(tmp_path / "below", "real/a.png", "fake/sdxl/a.png", "fake/flux/a.png")
    assert counts(check("folder", tmp_path / "below")) == {
        **{"real": (1, 0), "sdxl": (0, 1), "flux": (0, 1)}
    }
    put(tmp_path / "half", "0_real/a.png")
    assert check("folder", tmp_path / "half", code=1)["n_real"] == 1


@pytest.mark.parametrize(
    ("real", "fake"),
    [
        *(("reals", "fakes"), ("nature", "ai"), ("Real", "AI"), ("REALS", "Generated")),
        *(("0_Real", "synthetic"), ("nature", "1_FAKE")),
    ],
)
def test_class_folders_have_several_names(tmp_path: Path, real: str, fake: str) -> None:
    put(tmp_path / "set", f"sd/{real}/a.png", f"sd/{fake}/a.png", f"sd/{fake}/nature/b.png")
    assert counts(check("folder", tmp_path / "set")) == {"sd": (1, 2)}
    below = check("folder", tmp_path / "set" / "sd" / fake, code=1)
    assert (below["n_real"], below["n_fake"]) == (0, 2), "a subject is no class among the fakes"


def test_a_subject_called_nature_is_a_photograph_s(tmp_path: Path) -> None:
    put(tmp_path, "nature/a.png", "city/b.png")
    assert counts(check("folder", tmp_path)) == {"real": (2, 0)}


@pytest.mark.parametrize(
    "folder", ["fake_images", "AI-generated", "2_fake", "ai2", "synthetic pictures", "DeepFakes"]
)
def test_what_looks_like_a_folder_of_fakes_is_no_photograph(tmp_path: Path, folder: str) -> None:
    put(tmp_path / "set", "photos/a.png", f"{folder}/b.png")
    told = run("check", "folder", tmp_path / "set")
    assert told.exit_code == 1 and f"'{folder}'" in told.stderr and "'fake'" in told.stderr
    put(tmp_path, f"real/{folder}/c.png", "real/mosaic/d.png")
    assert counts(check("folder", tmp_path / "real")) == {"real": (2, 0)}
    put(tmp_path / "other", "mosaic/a.png", "rain/b.png", "degenerated/c.png")
    assert counts(check("folder", tmp_path / "other")) == {"real": (3, 0)}


def test_laion_as_the_published_script_leaves_it(tmp_path: Path) -> None:
    put(tmp_path, "images/0.jpg", "images/1.png", "images/stray.png")
    write(tmp_path, "images/2.jpg", b"")
    rows = [{"image_path": f"images/{n}", "prompt": f"p {n}"} for n in ("0.jpg", "1.png", "2.jpg")]
    rows += [{"image_path": "images/7.jpg", "prompt": "dead link"}]
    write(tmp_path, "final_metadata.json", rows)
    for place in (tmp_path, tmp_path / "images"):
        found = check("laion", place)
        assert counts(found) == {"laion": (2, 0)} and len(found["skipped"]) == 3
    assert [item.caption for item in read("laion", tmp_path)] == ["p 0.jpg", "p 1.png"]


def test_laion_as_img2dataset_leaves_it(tmp_path: Path) -> None:
    members = {}
    for n in range(3):
        members[f"00000000{n}.jpg"] = picture(str(n), "JPEG")
        members[f"00000000{n}.txt"] = f"caption {n}".encode()
        members[f"00000000{n}.json"] = json.dumps(
            {"caption": "other", "status": "success"}
        ).encode()
    write_tar(tmp_path / "tars" / "00000.tar", members)
    write_parquet(tmp_path / "tars" / "00000.parquet", {"url": ["u"], "caption": ["c"]})
    write(tmp_path, "tars/00000_stats.json", "{}")
    assert counts(check("laion", tmp_path / "tars")) == {"laion": (3, 0)}
    first = read("laion", tmp_path / "tars")[0]
    assert first.caption == "caption 0" and first.read_bytes() == members["000000000.jpg"]
    columns = {"key": ["0", "1"], "jpg": [picture("0", "JPEG"), None], "caption": ["a", "b"]}
    columns |= {"status": ["success", "failed_to_download"], "error_message": [None, "HTTP 404"]}
    write_parquet(tmp_path / "rows" / "00000.parquet", columns)
    found = check("laion", tmp_path / "rows")
    assert counts(found) == {"laion": (1, 0)} and "HTTP 404" in found["skipped"][0]["reason"]
    put(tmp_path / "files", "00000/000000000.jpg")
    write(tmp_path / "files", "00000/000000000.txt", "a boat")
    assert [item.caption for item in read("laion", tmp_path / "files")] == ["a boat"]
    write_parquet(tmp_path / "urls" / "0.parquet", {"URL": ["u"], "TEXT": ["t"]})
    assert (
        "not downloaded here" in check("laion", tmp_path / "urls", code=1)["skipped"][0]["reason"]
    )


def test_evaluation_samples_are_native_and_paired(tmp_path: Path) -> None:
    put(tmp_path, "laion/0_real/a.jpg", "imagenet/0_real/b.png", "guided/1_fake/c.png")
    put(tmp_path, "dalle/1_fake/d.webp")
    found = [pickle.loads(pickle.dumps(i)) for i in read("universalfakedetect", tmp_path)]
    samples = [read_sample(item, "universalfakedetect") for item in found]
    assert {(s.generator, s.fake) for s in samples} == {
        *(("real", False), ("guided", True), ("dalle", True))
    }
    assert all(s.image.shape == (8, 8, 3) and s.split == "test" for s in samples)
    assert all(encode(sample) for sample in samples) and len({s.key for s in samples}) == 4
    names = {"laion", "imagenet"}
    judged = find_benchmark("universalfakedetect").judged_against
    assert judged("guided", names) == ["imagenet"] and judged("ldm_100", names) == ["laion"]
    assert find_benchmark("forensynths").judged_against("san", ["san", "crn"]) == ["san"]
    assert find_benchmark("dmimage").judged_against("eg3d", {"real_ucid", "real_coco_valid"}) == [
        *("real_coco_valid", "real_ucid")
    ]
    (tmp_path / "guided" / "1_fake" / "c.png").unlink()
    with pytest.raises(ImageError, match=r"c\.png: there is no such file"):
        read_sample(next(i for i in found if i.generator == "guided"), "x")
