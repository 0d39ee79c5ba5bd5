"""The everyday photographs, and folders of a user's own."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unigendet.data.image_files import ImageError
from unigendet.data.sources.base import Source, read_all
from unigendet.data.sources.everyday import PHOTOGRAPHS, EverydayPhotographs
from unigendet.data.sources.folder import ImageFolder
from unigendet.data.sources.registry import open_stored
from unigendet.data.tars import encode


def test_everyday_crops_are_disjoint_real_and_grouped_by_photograph() -> None:
    source = EverydayPhotographs(crops=5)
    items = source.items()
    assert {item.source_id for item in items} == {f"everyday/{p.name}" for p in PHOTOGRAPHS}
    assert len(items) == 5 * len(PHOTOGRAPHS) == len({item.key for item in items})
    for source_id in {item.source_id for item in items}:
        corners = [item.box[:2] for item in items if item.source_id == source_id]
        for n, (x, y) in enumerate(corners):
            assert all(abs(x - u) >= 64 or abs(y - v) >= 64 for u, v in corners[:n])
    for sample in read_all(source):
        assert sample.image.shape == (64, 64, 3) and sample.image.std() > 5
        assert (sample.split, sample.domain, sample.fake) == ("test", "everyday", False)
        assert sample.caption.startswith("part of a photograph of ")
        encode(sample)


def save(path: Path, size: tuple[int, int] = (40, 30), shade: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, 100, 110)).save(path)


def test_a_folder_without_tables_takes_sidecars_then_file_names(tmp_path: Path) -> None:
    save(tmp_path / "A_red-House.02.png")
    save(tmp_path / "sub" / "x.jpg")
    (tmp_path / "sub" / "x.txt").write_text("a grey\n wall\n")
    (tmp_path / "notes.md").write_text("no image")
    samples = {sample.caption: sample for sample in read_all(ImageFolder(tmp_path, image_size=16))}
    assert set(samples) == {"a red house 02", "a grey wall"}
    assert all(sample.image.shape == (16, 16, 3) for sample in samples.values())
    assert len({sample.key for sample in samples.values()}) == 2
    assert all(encode(sample) for sample in samples.values())


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_tables_give_caption_split_and_source(tmp_path: Path, kind: str) -> None:
    for name in ("a.png", "b.png", "val/c.png"):
        save(tmp_path / name)
    rows = [
        {"file": "a.png", "caption": "first, view", "split": "test", "source_id": "house"},
        {"file": "b.png", "caption": "second view", "split": "test", "source_id": "house"},
    ]
    if kind == "jsonl":
        text = "\n".join(json.dumps(row) for row in rows) + "\n\n"
    else:
        text = "file,caption,split,source_id\n" + "".join(
            f'{row["file"]},"{row["caption"]}",{row["split"]},{row["source_id"]}\n' for row in rows
        )
    (tmp_path / f"captions.{kind}").write_text(text)
    items = {item.path.name: item for item in ImageFolder(tmp_path).items()}
    assert items["a.png"].caption == "first, view"
    assert items["a.png"].source_id == items["b.png"].source_id == "house"
    assert items["b.png"].split == "test"
    assert (items["c.png"].split, items["c.png"].caption) == ("val", "c")


def test_centre_square_keeps_the_middle(tmp_path: Path) -> None:
    image = np.zeros((20, 60, 3), np.uint8)
    image[:, 20:40] = 200
    Image.fromarray(image).save(tmp_path / "wide.png")
    source = ImageFolder(tmp_path, image_size=20)
    assert (source.read(source.items()[0]).image == 200).all()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"file": "a.png"', "line 2: not valid JSON"),
        ('{"caption": "x"}', "line 2: no image is named"),
        ('{"file": "z.png", "caption": "x"}', "line 2: there is no image 'z.png'"),
        ('{"file": "a.png", "split": "x"}', "line 2 of captions.jsonl: split is 'x', not one of"),
        ('{"file": "a.png", "caption": "\\ud800"}', "line 2 of captions.jsonl: the text is"),
        ('{"file": "a.png", "text": ["\\ud83d"]}', "line 2 of captions.jsonl: the text is"),
        ('{"file": "../a.png"}', "line 2: ../a.png does not lie below the folder of the table"),
        ('{"file": "b.png"}', "line 2: b.png is named already in line 1"),
        ("[1]", "line 2: must be an object"),
        ("[" * 100_000, "line 2: not valid JSON"),
    ],
)
def test_a_bad_line_is_an_item_with_a_problem(tmp_path: Path, line: str, message: str) -> None:
    for name in ("a.png", "b.png"):
        save(tmp_path / name)
    good = '{"file": "b.png", "caption": "good"}'
    (tmp_path / "captions.jsonl").write_text(f"{good}\n{line}\n")
    items = ImageFolder(tmp_path).items()
    assert [item.caption for item in items if item.path.name == "b.png"] == ["good"]
    (problem,) = [item.problem for item in items if item.problem]
    assert problem.startswith(message)
    assert len({item.key for item in items}) == len(items)


def test_a_bad_csv_line_spoils_no_other(tmp_path: Path) -> None:
    names = ["a.png", "b.png", "c.png", "d.png", "e.png"]
    for name in names:
        save(tmp_path / name)
    lines = [
        b"file,caption",
        b'a.png,"two\nlines"',
        b'b.png,"an open quote',
        b"c.png,plain",
        b"d.png,one,too many",
        b"e.png,caf\xe9",
    ]
    (tmp_path / "captions.csv").write_bytes(b"\n".join(lines))
    found = {item.path.name: item for item in ImageFolder(tmp_path).items()}
    assert found["a.png"].caption == "two\nlines" and found["c.png"].caption == "plain"
    problems = {name: item.problem for name, item in found.items() if item.problem}
    assert set(problems) == {"captions.csv", "d.png", "e.png"}
    assert "line 4: not valid CSV" in problems["captions.csv"]
    assert "3 fields" in problems["d.png"] and "not UTF-8" in problems["e.png"]


def test_a_latin_1_source_spoils_its_own_line_only(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        save(tmp_path / name)
    lines = [b"file,caption,source_id", b"a.png,x,caf\xe9", b"b.png,y,barn"]
    (tmp_path / "captions.csv").write_bytes(b"\n".join(lines))
    bad, good = ImageFolder(tmp_path).items()
    assert bad.problem == "line 2 of captions.csv: the text is not UTF-8"
    assert bad.source_id == f"{tmp_path.name}/a.png" and good.source_id == "barn"


def test_splits_are_recognised_in_their_usual_spellings(tmp_path: Path) -> None:
    for name in ("Train/a.png", "validation/b.png", "Test/c.png", "Testing/d.png", "e.png"):
        save(tmp_path / name)
    (tmp_path / "captions.csv").write_text("file,split\ne.png,Validation\n")
    found = {item.path.name: (item.split, item.drawn) for item in ImageFolder(tmp_path).items()}
    wanted = {"a": "train", "b": "val", "c": "test", "d": "test", "e": "val"}
    assert found == {f"{name}.png": (split, False) for name, split in wanted.items()}


def test_tables_of_folders_below_name_images_from_there_on(tmp_path: Path) -> None:
    for name in ("train/0.png", "train/in/1.png", "Validation/0.png", "2.png"):
        save(tmp_path / name)
    lines = [{"file_name": f"{name}.png", "text": [f"a {name}", "b"]} for name in ("0", "in/1")]
    lines += [{"file_name": "gone.png"}]
    (tmp_path / "train" / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "Validation" / "Metadata.CSV").write_text("file_name,text\n0.png,a val\n")
    (tmp_path / "captions.json").write_text('[{"file": "2.png"}, {"file": "train/0.png"}]')
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "metadata.csv").write_text("about,nothing\n")
    items = ImageFolder(tmp_path).items()
    found = {str(item.path.relative_to(tmp_path)): item for item in items if not item.problem}
    assert {name: (item.caption, item.caption_from) for name, item in found.items()} == {
        "2.png": ("2", "file name"),
        "Validation/0.png": ("a val", "table"),
        "train/0.png": ("0", "file name"),
        "train/in/1.png": ("a in/1", "table"),
    }
    assert sorted(item.problem for item in items if item.problem) == [
        "line 1: train/0.png is named already in line 2 of captions.json",
        "line 3: there is no image 'train/gone.png'",
    ]
    assert len({item.key for item in items}) == len(items) == 6


def test_names_are_compared_as_people_read_them(tmp_path: Path) -> None:
    save(tmp_path / "cafe\u0301.jpg")
    save(tmp_path / "a" / "b.jpg")
    rows = [
        {"file": "caf\u00e9.jpg", "caption": "accents", "source_id": 0},
        {"file": "a\\b.jpg", "caption": "signs"},
    ]
    (tmp_path / "Captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    items = ImageFolder(tmp_path).items()
    assert [(item.caption, item.problem) for item in items] == [("signs", ""), ("accents", "")]
    assert items[1].source_id == "0"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_tables_of_other_programs_are_read(tmp_path: Path, encoding: str) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "captions.csv").write_text("file,caption\r\na.png,ein Häuschen\r\n", encoding)
    (item,) = ImageFolder(tmp_path).items()
    assert (item.caption, item.problem) == ("ein Häuschen", "")


def test_odd_names_and_sidecars_are_problems(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    save(tmp_path / "b.png")
    os.rename(tmp_path / "b.png", os.fsencode(tmp_path) + b"/b\xff.png")
    problems = [item.problem for item in ImageFolder(tmp_path).items()]
    assert problems == ["the caption beside it is not UTF-8", "the file's name is not UTF-8"]


def test_two_tables_and_a_headless_one_are_told(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "captions.csv").write_text("a.png,x\n")
    with pytest.raises(ValueError, match="must name its columns"):
        ImageFolder(tmp_path).items()
    (tmp_path / "captions.jsonl").write_text("")
    with pytest.raises(ValueError, match="keep one"):
        ImageFolder(tmp_path).items()


@pytest.mark.parametrize(
    ("fit", "shape"), [("square", (20, 20)), ("stretch", (20, 20)), ("within", (7, 20))]
)
def test_fits(tmp_path: Path, fit: str, shape: tuple[int, int]) -> None:
    image = np.zeros((20, 60, 3), np.uint8)
    image[:, 20:40] = 200
    Image.fromarray(image).save(tmp_path / "wide.png")
    source = ImageFolder(tmp_path, image_size=20, fit=fit)
    found = source.read(source.items()[0]).image
    assert found.shape == (*shape, 3)
    assert (found.mean() > 190) == (fit == "square")
    with pytest.raises(ValueError, match="fit is 'x', not one of square"):
        ImageFolder(tmp_path, fit="x")


def test_bad_folders_and_images_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        ImageFolder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no images"):
        ImageFolder(tmp_path).items()
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    source = ImageFolder(tmp_path)
    with pytest.raises(ImageError, match=r"bad\.png"):
        source.read(source.items()[0])
    with pytest.raises(ValueError, match="leave something for train"):
        ImageFolder(tmp_path, val_share=0.5, test_share=0.5)


def test_a_table_of_another_name_and_other_endings(tmp_path: Path) -> None:
    save(tmp_path / "A.JPG")
    save(tmp_path / "images" / "b.webp")
    Image.new("RGB", (20, 20)).save(tmp_path / "no_ending", "PNG")
    for hidden in (".hidden.png", "__MACOSX/A.png", ".hidden/A.png"):
        save(tmp_path / hidden)
    rows = [{"file": "A.JPG", "caption": "caf\u00e9", "group": "x"}, {"file": "images/b.webp"}]
    text = "\ufeff" + "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "manifest.jsonl").write_text(text, encoding="utf-8")
    items = {item.path.name: item.caption for item in ImageFolder(tmp_path).items()}
    assert items == {"A.JPG": "caf\u00e9", "b.webp": "b", "no_ending": "no ending"}
    (tmp_path / "captions.csv").write_text("file,caption\nA.JPG,x\n")
    with pytest.raises(ValueError, match=r"captions\.csv and manifest\.jsonl: keep one"):
        ImageFolder(tmp_path).items()


def test_fakes_are_not_taken_for_real_and_empty_files_are_named(tmp_path: Path) -> None:
    save(tmp_path / "0_real" / "a.png")
    save(tmp_path / "1_fake" / "a.png")
    with pytest.raises(ValueError, match="lies in a folder of fakes"):
        ImageFolder(tmp_path).items()
    (tmp_path / "0_real" / "b.png").write_bytes(b"")
    items = ImageFolder(tmp_path / "0_real").items()
    assert [item.problem for item in items] == ["", "the file is empty"]
    with pytest.raises(ValueError, match="lies in a folder of fakes"):
        ImageFolder(tmp_path / "1_fake").items()


@pytest.mark.parametrize("fakes", ["ai", "AI", "generated", "Synthetic", "fakes", "fake_images"])
def test_fakes_of_every_name_are_no_photographs(tmp_path: Path, fakes: str) -> None:
    save(tmp_path / "photos" / "a.png")
    save(tmp_path / fakes / "a.png")
    with pytest.raises(ValueError, match=f"{fakes}/a.png lies in .*fakes"):
        ImageFolder(tmp_path).items()
    save(tmp_path / "real" / "fake_flowers" / "a.png")
    assert len(ImageFolder(tmp_path / "real").items()) == 1


def test_crops_of_a_picture_are_squares_of_it_and_share_its_source(tmp_path: Path) -> None:
    ramp = np.zeros((40, 60, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(60), np.arange(40)[:, None]
    Image.fromarray(ramp).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    source = ImageFolder(tmp_path, image_size=16, crops=4)
    items = source.items()
    assert [item.problem for item in items] == [*[""] * 4, "the file is empty"]
    whole, *crops = (source.read(item) for item in items[:4])
    assert len({sample.key for sample in (whole, *crops)}) == 4
    assert len({(s.source_id, s.split, s.caption) for s in (whole, *crops)}) == 1
    assert np.array_equal(whole.image, ImageFolder(tmp_path, image_size=16).read(items[0]).image)
    for crop in crops:
        assert crop.image.shape == (16, 16, 3)
        across, down = (int(np.ptp(crop.image[..., channel])) for channel in (0, 1))
        assert abs(across - down) <= 2 and 17 <= across <= 39  # half to all of the short side
    assert len({crop.image.tobytes() for crop in crops}) == 3
    again = ImageFolder(tmp_path, image_size=16, crops=4)
    assert [again.read(item).image.tobytes() for item in again.items()[1:4]] == [
        crop.image.tobytes() for crop in crops
    ]
    for wrong in ({"crops": 0}, {"crops": 2, "fit": "within"}):
        with pytest.raises(ValueError, match=r"crops \(\d\) must be at least 1"):
            ImageFolder(tmp_path, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="source folder alone"):
        open_stored(
            "laion", str(tmp_path), image_size=16, val_share=0, test_share=0, seed=0, crops=2
        )


def test_a_remote_folder(tmp_path: Path) -> None:
    import fsspec

    save(tmp_path / "a.png")
    files = fsspec.filesystem("memory")
    files.pipe_file("/pictures/val/a.png", (tmp_path / "a.png").read_bytes())
    files.pipe_file("/pictures/val/a.txt", b"a far wall")
    try:
        source = open_stored(
            "folder", "memory://pictures", image_size=16, val_share=0, test_share=0, seed=0
        )
        (sample,) = read_all(source)
    finally:
        files.rm("/pictures", recursive=True)
    assert (sample.caption, sample.split, sample.domain) == ("a far wall", "val", "pictures")
    assert sample.image.shape == (16, 16, 3) and encode(sample)


def stored(name: str, place: Path, *, reals_only: bool = True) -> Source:
    return open_stored(
        name,
        str(place),
        image_size=16,
        val_share=0.2,
        test_share=0.2,
        seed=0,
        reals_only=reals_only,
    )


def test_laion_is_split_by_hashing_and_dead_links_are_left_out(tmp_path: Path) -> None:
    rows = [{"image_path": "images/gone.jpg", "prompt": "dead"}]
    for n in range(40):
        save(tmp_path / "images" / f"{n}.jpg", shade=n)
        rows.append({"image_path": f"images/{n}.jpg", "prompt": f"wall {n}"})
    (tmp_path / "final_metadata.json").write_text(json.dumps(rows))
    source = stored("laion", tmp_path)
    items = source.items()
    (left_out,) = [item for item in items if item.problem]
    assert left_out.place == str(tmp_path / "images" / "gone.jpg")
    assert left_out.problem.endswith("there is no such file")
    assert {item.split for item in items} == {"train", "val", "test"}
    again = pickle.loads(pickle.dumps(source))
    samples = [again.read(item) for item in again.items() if not item.problem]
    assert len(samples) == 40 == len({sample.key for sample in samples})
    for sample in samples:
        assert not sample.fake and sample.caption.startswith("wall ") and encode(sample)


def test_fakeclue_trains_with_its_explanations(tmp_path: Path) -> None:
    records = []
    for n in range(12):
        kind = ("fake", "real")[n % 2]
        path = f"{'test' if n > 9 else 'train'}/doc/{kind}/{n}.png"
        save(tmp_path / path, shade=n)
        turns = [{"from": "gpt", "value": f"This is a {kind} image. {n}"}]
        records.append({"image": path, "label": n % 2, "conversations": turns})
    for split in ("train", "test"):
        rows = [record for record in records if record["image"].startswith(split)]
        (tmp_path / "data_json").mkdir(exist_ok=True)
        (tmp_path / "data_json" / f"{split}.json").write_text(json.dumps(rows))
    samples = list(read_all(stored("fakeclue", tmp_path, reals_only=False)))
    assert len(samples) == 12
    for sample in samples:
        word = "fake" if sample.fake else "real"
        assert sample.explanation.startswith(f"This is a {word} image.") and encode(sample)
        assert sample.generator == ("doc" if sample.fake else "real")
    assert sum(sample.split == "test" for sample in samples) == 2
    assert not any(sample.fake for sample in read_all(stored("fakeclue", tmp_path)))


def test_unknown_sources_and_empty_sets_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no training source 'loki'; known are folder, laion"):
        stored("loki", tmp_path)
    with pytest.raises(ValueError, match="holds no real image of openfake"):
        stored("openfake", tmp_path).items()
