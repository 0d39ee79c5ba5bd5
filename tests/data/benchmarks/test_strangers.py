"""Shards and tables that mean harm, and what is shown of them."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from pipeline.report.html import element
from pipeline.report.html import picture as report_picture
from tests.data.benchmarks.miniature import (
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
from unigendet.data.benchmarks import containers
from unigendet.data.contact_sheet import draw_contact_sheet
from unigendet.data.image_header import ImageError
from unigendet.data.plain_text import plain
from unigendet.data.shards import encode
from unigendet.data.sources.base import read_all
from unigendet.data.sources.folder import ImageFolder

ESCAPE = "\x1b]0;owned\x07\x1b[31m"


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch OWNED",)


def test_a_hostile_tar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    good = picture("x", "JPEG")
    path = write_tar(
        tmp_path / "set" / "0.tar",
        {
            "../../escape.jpg": good,
            "/etc/escape.jpg": good,
            "a.pkl": pickle.dumps(Bomb()),
            "a.pickle": pickle.dumps(Bomb()),
            "a.pyd": b"MZ",
            "a.pth": pickle.dumps(Bomb()),
            "b.jpg": good,
            "b.txt": b"[red]<script>alert(1)</script>" + ESCAPE.encode(),
        },
    )
    with tarfile.open(path, "a") as tar:
        for name, kind in (("c.jpg", tarfile.SYMTYPE), ("d.jpg", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        device = tarfile.TarInfo("e.jpg")
        device.type = tarfile.CHRTYPE
        tar.addfile(device)
    found = check("laion", tmp_path / "set")
    assert counts(found) == {"laion": (1, 0)}
    reasons = skipped(found)
    for name in ("a.pkl", "a.pickle", "a.pyd", "a.pth"):
        assert "never opened" in reasons[f"0.tar#{name}"]
    for name in ("c.jpg", "d.jpg", "e.jpg"):
        assert "a link or a device" in reasons[f"0.tar#{name}"]
    assert "out of the archive" in reasons["0.tar#../../escape.jpg"]
    assert sorted(os.listdir(tmp_path)) == ["set"]


def test_a_cut_or_false_tar_is_told(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "0.tar", {"a.jpg": picture("a", "JPEG"), "b.jpg": bytes(9000)})
    path.write_bytes(path.read_bytes()[:5000])
    write(tmp_path, "1.tar", b"not a tar at all" * 100)
    found = check("laion", tmp_path)
    assert counts(found) == {"laion": (1, 0)}
    assert all("damaged" in reason or "cut off" in reason for reason in skipped(found).values())


def test_a_tar_cut_within_a_caption_keeps_what_is_before_it(tmp_path: Path) -> None:
    members = {"0.jpg": picture("0", "JPEG"), "0.txt": b"first"}
    members |= {"1.jpg": picture("1", "JPEG"), "1.txt": b"x" * 3000}
    path = write_tar(tmp_path / "0.tar", members)
    with tarfile.open(path) as tar:
        begins = tar.getmember("1.txt").offset_data
    path.write_bytes(path.read_bytes()[: begins + 1000])
    found = check("laion", tmp_path)
    assert counts(found) == {"laion": (1, 0)}
    assert "its caption" in skipped(found)["0.tar#1.jpg"]


def test_pipes_and_unknown_schemes_are_not_opened(tmp_path: Path) -> None:
    for place in ("pipe:touch OWNED", "ssh://host/x", "zip://a::file:///b.zip"):
        result = run("check", "laion", place)
        assert result.exit_code == 1 and "error: " in result.stderr
    assert not Path("OWNED").exists()


def test_shown_text_is_text(tmp_path: Path) -> None:
    name = f"[red]{ESCAPE}<b>"
    put(tmp_path / name.replace("/", ""), "0_real/a.png", "1_fake/a.png", "1_fake/b.png")
    write(tmp_path, f"{name}/1_fake/{ESCAPE}.png", b"")
    result = run("check", "folder", tmp_path)
    assert result.exit_code == 0
    assert "\x1b]0" not in result.output and "\x07" not in result.output
    assert "[red]" in result.output and "\\x1b" in result.output
    raw = run("check", "folder", tmp_path, "--json").stdout
    assert "\x1b" not in raw and name in json.loads(raw)["generators"]
    gone = run("check", "folder", f"/nowhere{ESCAPE}")
    assert gone.exit_code == 1 and "\x1b" not in gone.stderr
    assert plain("a\u202eb\n\x9bc") == "a\\u202eb\\n\\x9bc" and plain("é 日") == "é 日"
    assert plain("x" * 300).endswith("…") and len(plain("x" * 300)) == 200


def test_pictures_that_claim_too_much_or_run_programs(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    for name, side in (("large", 11_000), ("huge", 60_000)):
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
        write(tmp_path, f"0_real/{name}.png", data)
    write(tmp_path, "0_real/script.png", "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    put(tmp_path, "0_real/a.png", "1_fake/a.png")
    left = skipped(check("folder", tmp_path))
    assert "pixels" in left["0_real/large.png"] and "pixels" in left["0_real/huge.png"]
    assert "not an image" in left["0_real/script.png"]


def test_tables_that_mean_harm(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    deep = "[" * 200_000
    for name, text in {
        "deep.json": deep,
        "deep.jsonl": deep,
        "wide.csv": "path,label\n" + "x" * 200_000 + ",1\n",
        "quote.csv": 'path,label\n"a.png,1\n',
        "latin.csv": "path,label\ncaf\xe9.png,1\n".encode("latin-1"),
        "nan.jsonl": '{"path": "a.png", "label": NaN}',
        "list.jsonl": '["a.png", 1]',
        "number.json": '[{"path": 3, "label": {"a": 1}}]',
    }.items():
        result = run("check", "manifest", write(tmp_path, name, text))
        assert result.exit_code == 1 and result.stderr.startswith("error: "), name
        assert result.exception is None or isinstance(result.exception, SystemExit), name


def test_rows_without_an_image(tmp_path: Path) -> None:
    columns = {
        "image": [
            {"bytes": None, "path": "/etc/passwd"},
            {"bytes": picture("a"), "path": "../x"},
            {"bytes": picture("b"), "path": None},
        ],
        "label": ["fake", "fake", "real"],
    }
    write_parquet(tmp_path / "test.parquet", columns)
    found = check("openfake", tmp_path)
    assert (found["n_real"], found["n_fake"]) == (1, 1)
    assert "no image bytes" in found["skipped"][0]["reason"]


def test_parquet_that_is_damaged_or_would_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = {"image": [picture(str(n), side=64) for n in range(4)], "label": [0, 1, 0, 1]}
    path = write_parquet(tmp_path / "t.parquet", columns)
    data = bytearray(path.read_bytes())
    data[30:200] = bytes(170)
    (tmp_path / "t.parquet").write_bytes(data)
    found = check("opensdi", tmp_path)  # the other row group is whole
    assert (found["n_real"], found["n_fake"]) == (1, 1)
    assert all("damaged" in reason for reason in skipped(found).values())
    write_parquet(tmp_path / "t.parquet", columns)
    monkeypatch.setattr(containers, "MAX_GROUP_BYTES", 100)
    found = check("opensdi", tmp_path, code=1)
    assert "smaller row groups" in found["skipped"][0]["reason"]


@pytest.fixture
def remote() -> Iterator[str]:
    files = fsspec.filesystem("memory")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in (("0.jpg", picture("t", "JPEG")), ("0.txt", b"a tree")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    for name, data in {
        "far/gan/0_real/a.png": picture("a"),
        "far/gan/1_fake/a.jpg": picture("b", "JPEG"),
        "far/gan/1_fake/empty.jpg": b"",
        "far/m.csv": b"path,label\ngan/0_real/a.png,0\ngan/1_fake/a.jpg,1\n",
        "shards/0.tar": buffer.getvalue(),
    }.items():
        files.pipe_file(f"/{name}", data)
    yield "memory://far"
    files.rm("/far", recursive=True)
    files.rm("/shards", recursive=True)


def test_remote_folders_tables_and_shards(remote: str) -> None:
    found = check("forensynths", remote)
    assert counts(found) == {"gan": (1, 1)} and list(skipped(found)) == ["gan/1_fake/empty.jpg"]
    assert counts(check("manifest", f"{remote}/m.csv")) == {"real": (1, 0), "unknown": (0, 1)}
    assert counts(check("laion", "memory://shards")) == {"laion": (1, 0)}
    assert counts(check("laion", "memory://shards/0.tar")) == {"laion": (1, 0)}


def test_odd_names_and_things_that_are_no_files(tmp_path: Path) -> None:
    put(tmp_path, "0_real/a.png", "1_fake/b.png")
    os.mkfifo(tmp_path / "0_real" / "pipe.jpg")
    os.mkfifo(tmp_path / "0_real" / "pipe")
    odd = os.fsdecode(b"1_fake/caf\xe9.png")
    (tmp_path / odd).write_bytes(picture("odd"))
    found = check("folder", tmp_path)
    assert (found["n_real"], found["n_fake"], found["skipped"]) == (1, 2, [])
    assert run("check", "folder", tmp_path).exit_code == 0
    reals = tmp_path / "reals"
    reals.mkdir()
    (reals / os.fsdecode(b"caf\xe9.png")).write_bytes(picture("odd"))
    (item,) = ImageFolder(reals, image_size=8).items()
    assert item.problem == "the file's name is not UTF-8"


def test_a_hostile_caption_is_text_in_the_report_and_on_the_sheet(tmp_path: Path) -> None:
    caption = '"><script>alert(1)</script>' + ESCAPE + "\x00\u202e$\\frac{"
    put(tmp_path / "set", "a.png")
    write(tmp_path, "set/captions.jsonl", json.dumps({"file": "a.png", "caption": caption}))
    (sample,) = read_all(ImageFolder(tmp_path / "set", image_size=8))
    assert sample.caption == caption and encode(sample)
    shown = report_picture(sample.image, sample.caption) + element("p", sample.caption)
    assert "<script" not in shown and "&lt;script&gt;" in shown
    draw_contact_sheet([sample], tmp_path / "sheet.png", title="t")
    broken = write(tmp_path, f"set/{ESCAPE}.png", b"no image")
    write(tmp_path, "set/captions.jsonl", "")
    with pytest.raises(ImageError) as told:
        list(read_all(ImageFolder(broken.parent)))
    assert "\x1b" not in str(told.value)
