"""The `unigendet` command: results, and one clear line with exit code 1 for what cannot be used."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from unigendet import cli
from unigendet.inference import UniGenDet


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def test_detect_prints_a_table(model_folder: Path, picture_files: list[Path]) -> None:
    result = run("detect", *picture_files, "--model", model_folder, "--no-explain")
    assert result.exit_code == 0, result.output
    for path in picture_files:
        assert path.name in result.stdout
    assert "P(fake)" in result.stdout


def test_detect_prints_json(
    model_folder: Path, picture_files: list[Path], small: UniGenDet
) -> None:
    result = run("detect", *picture_files, "--model", model_folder, "--json", "--batch-size", 2)
    assert result.exit_code == 0, result.output
    records = json.loads(result.stdout)
    expected = small.detect(picture_files)
    assert [record["image"] for record in records] == [str(path) for path in picture_files]
    for record, found in zip(records, expected, strict=True):
        assert record["score"] == pytest.approx(found.score, abs=1e-5)
        assert record["verdict"] == ("fake" if found.fake else "real")
        assert (record["explanation"] or "") == found.explanation


def test_one_broken_image_does_not_hide_the_others(
    model_folder: Path, picture_files: list[Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(picture_files[0].read_bytes()[:100])
    absent = tmp_path / "absent.png"
    files = [picture_files[0], broken, absent, picture_files[1]]
    result = run("detect", *files, "--model", model_folder, "--json", "--no-explain")
    assert result.exit_code == 1
    assert f"error: {broken}" in result.stderr and "no such file" in result.stderr
    records = json.loads(result.stdout)
    assert [sorted(record) for record in records] == [
        ["explanation", "image", "score", "verdict"],
        ["error", "image"],
        ["error", "image"],
        ["explanation", "image", "score", "verdict"],
    ]
    table = run("detect", *files, "--model", model_folder, "--no-explain")
    assert table.exit_code == 1 and picture_files[1].name in table.stdout


def test_images_of_every_kind_are_judged_or_named(
    model_folder: Path, picture_files: list[Path], tmp_path: Path
) -> None:
    picture = Image.open(picture_files[0])
    usable = {
        "thin.png": picture.resize((1, 4000)),
        "flat.png": picture.resize((4000, 1)),
        "dot.png": picture.resize((1, 1)),
        "ink.jpg": picture.convert("CMYK"),
        "clear.png": picture.convert("RGBA"),
        "clear-grey.png": picture.convert("LA"),
        "palette.gif": picture.convert("P"),
        "two colours.tif": picture.convert("1"),
        "deep.png": Image.fromarray(np.full((9, 9), 40_000, dtype=np.uint16)),
    }
    for name, image in usable.items():
        image.save(tmp_path / name)
    picture.save(tmp_path / "film.gif", save_all=True, append_images=[picture.rotate(90)])
    picture.convert("F").save(tmp_path / "float.tif")
    (tmp_path / "empty.png").touch()
    (tmp_path / "notes.txt").write_text("no picture")
    refused = ["film.gif", "float.tif", "empty.png", "notes.txt", ""]
    files = [tmp_path / name for name in [*usable, *refused]]
    result = run("detect", *files, "--model", model_folder, "--json", "--batch-size", 4)
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    records = json.loads(result.stdout)
    assert [record["image"] for record in records if "score" in record] == [
        str(tmp_path / name) for name in usable
    ]
    reasons = ("2 frames", "32-bit floats", "file is empty", "not an image", "cannot be read")
    lines = result.stderr.splitlines()
    for line, path, reason in zip(lines, files[len(usable) :], reasons, strict=True):
        assert line.startswith(f"error: {path}: ") and reason in line


def test_a_missing_or_damaged_model_is_one_line(picture_files: list[Path], tmp_path: Path) -> None:
    for arguments in (
        ("detect", picture_files[0]),
        ("generate", "sand", "-o", tmp_path / "out.png"),
    ):
        result = run(*arguments, "--model", tmp_path / "nowhere")
        assert result.exit_code == 1
        assert result.stderr.startswith("error: no model at ") and "--model" in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
    empty = tmp_path / "empty"
    empty.mkdir()
    result = run("detect", picture_files[0], "--model", empty)
    assert result.exit_code == 1 and "config.json is missing" in result.stderr
    assert not (tmp_path / "out.png").exists()


def test_generate_writes_the_image_of_its_seed(
    model_folder: Path, small: UniGenDet, tmp_path: Path
) -> None:
    out = tmp_path / "out.png"
    result = run(
        *("generate", "pale desert", "-o", out, "--model", model_folder),
        *("--seed", 3, "--steps", 2, "--guidance", 1.5, "--size", "24x16"),
    )
    assert result.exit_code == 0, result.output
    (expected,) = small.generate(["pale desert"], seed=3, steps=2, guidance=1.5, size=(16, 24))
    written = np.asarray(Image.open(out)).astype(int)
    assert written.shape == (16, 24, 3) and np.abs(written - expected).max() <= 1
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]
    assert out.stat().st_mode & 0o044  # as readable as any new file


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent/out.png", "does not exist"),
        ("out.txt", "must name an image kind"),
        ("out", "must name an image kind"),
        ("folder.png", "is a folder"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_drawing(
    model_folder: Path,
    tmp_path: Path,
    name: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "folder.png").mkdir()
    monkeypatch.setattr(cli, "load_model", lambda *_: pytest.fail("the model was loaded"))
    result = run("generate", "sand", "-o", tmp_path / name, "--model", model_folder)
    assert result.exit_code == 1 and message in result.stderr


def test_a_full_disk_leaves_the_earlier_file(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.png"
    out.write_bytes(b"earlier")

    def full(self: Image.Image, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    result = run("generate", "sand", "-o", out, "--model", model_folder, "--steps", 1)
    assert result.exit_code == 1 and "No space left" in result.stderr
    assert out.read_bytes() == b"earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("detect",),
        ("generate", "sand"),
        ("generate", "sand", "-o", "x.png", "--steps", "many"),
        ("generate", "sand", "-o", "x.png", "--steps", "0"),
        ("generate", "sand", "-o", "x.png", "--seed", "-1"),
        ("detect", "x.png", "--batch-size", "0"),
        ("paint",),
    ],
)
def test_a_wrong_command_line_is_code_2(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


@pytest.mark.parametrize("size", ["64", "64x", "x64", "axb", "30x32", "640x8"])
def test_a_wrong_size_is_refused(model_folder: Path, tmp_path: Path, size: str) -> None:
    out = tmp_path / "out.png"
    result = run("generate", "sand", "-o", out, "--model", model_folder, "--size", size)
    assert result.exit_code == 1 and result.stderr.startswith("error: ")
    assert not out.exists()


def test_a_wrong_device_is_refused(model_folder: Path, picture_files: list[Path]) -> None:
    result = run("detect", picture_files[0], "--model", model_folder, "--device", "abacus")
    assert result.exit_code == 1 and "cannot be used here" in result.stderr


def test_help_is_quick() -> None:
    """Nothing heavy is imported before there is work to do."""
    code = (
        "import sys, unigendet.cli\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
