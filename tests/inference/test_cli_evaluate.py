"""`unigendet evaluate`: a folder judged by a small model, and what cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from unigendet import cli, cli_evaluate
from unigendet.benchmarking import result as results
from unigendet.records import read_records


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["evaluate", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Real images are JPEG and fakes PNG, as in too many sets."""
    generator = np.random.default_rng(0)
    for name in ("biggan/0_real", "biggan/1_fake", "progan/0_real", "progan/1_fake"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for at in range(8):
            picture = generator.integers(0, 256, (16, 24, 3), dtype=np.uint8)
            ending = "jpg" if "real" in name else "png"
            Image.fromarray(picture).save(tmp_path / "set" / name / f"{at}.{ending}")
    return tmp_path / "set"


@pytest.fixture(autouse=True)
def fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_evaluate, "DRAWS", 20)


def test_a_folder_is_judged_and_written(model_folder: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "biggan/1_fake/broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")
    out = tmp_path / "new" / "out"
    options = ("--model", model_folder, "--batch-size", 5, "--out", out, "--perturb", "jpeg=50")
    result = run("forensynths", folder, *options)
    assert result.exit_code == 1, "an image could not be read"
    assert "biggan/1_fake/broken.png" in result.stderr and "judging: 1" in result.stderr
    for words in ("biggan", "progan", "mean", "WARNING: format, size or codec", "AUROC at jpeg=50"):
        assert words in result.stdout
    assert "32 images judged, of 33 of the split test; 1 could not be read" in result.stdout
    records = read_records(out / "records.jsonl")
    assert len(records) == 32 and {record.suite for record in records} == {"forensynths"}
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["benchmarks"]["forensynths"]["audit"]["shortcut"] is True
    assert len(metrics["provenance"]["model_sha256"]) == 64
    pinned = metrics["provenance"]["benchmarks"]["forensynths"]
    assert pinned["images"] == 33 and len(pinned["sha256_of_list"]) == 64


def test_scores_are_written_before_the_figures(
    model_folder: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    (tmp_path / "out").mkdir()
    (tmp_path / "out/metrics.json").write_text("{}")
    monkeypatch.setattr(results, "to_json", interrupted)
    options = ("--model", model_folder, "--limit", 8, "--out", tmp_path / "out")
    assert run("forensynths", folder, *options).exit_code != 0
    assert len(read_records(tmp_path / "out/records.jsonl")) == 8
    assert not (tmp_path / "out/metrics.json").exists(), "of other scores"


def test_a_picture_too_large_for_a_perturbation_is_told(model_folder: Path, folder: Path) -> None:
    for path in folder.glob("progan/*/[2-7].*"):
        path.unlink()
    Image.new("RGB", (16_400, 40)).save(folder / "progan/1_fake/wide.png")
    options = ("--model", model_folder, "--limit", 8, "--perturb", "webp=70")
    result = run("forensynths", folder / "progan", *options)
    assert result.exit_code == 1 and "figures: 100%" in result.stderr
    assert "1_fake/wide.png: too large to be judged after webp=70" in result.stderr
    assert "5 images judged" in result.stdout and "AUROC at webp=70" in result.stdout


def test_json_and_a_limit(model_folder: Path, folder: Path) -> None:
    result = run("forensynths", folder, "--model", model_folder, "--json", "--limit", 8)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["benchmarks"]["forensynths"]
    assert found["images"] == {"listed": 32, "chosen": 8, "judged": 8}
    assert {row["fakes"] for row in found["detection"].values()} == {2, 4}
    assert set(found["detection"]) == {"biggan", "progan", "mean", "all"}


def test_one_class_is_said_plainly(model_folder: Path, folder: Path) -> None:
    result = run("folder", folder / "biggan/0_real", "--model", model_folder)
    assert result.exit_code == 0, result.output
    assert "Recall only: all 8 images are real" in result.stdout and "AUROC" not in result.stdout


def test_what_cannot_be_used_is_told_before_a_model_is_loaded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_evaluate, "load_model", lambda *_: pytest.fail("the model was loaded"))
    for arguments, words in (
        (("genimage", tmp_path / "nowhere"), "no such file or folder"),
        (("genimage", folder), "holds no image of genimage"),
        (("genimag", folder), "did you mean genimage"),
        (("forensynths", folder, "--limit", 3), "limit of 3"),
        (("forensynths", folder, "--split", "val"), "no images of the split val"),
        (("forensynths", folder, "--perturb", "fog=3"), "KIND=STRENGTH"),
        (("forensynths", folder, "--out", folder / "biggan/0_real/0.jpg"), "0.jpg"),
    ):
        result = run(*arguments)
        assert result.exit_code == 1 and words in result.stderr, (arguments, result.output)


def test_a_model_that_is_not_there(folder: Path, tmp_path: Path) -> None:
    result = run("forensynths", folder, "--model", tmp_path / "none")
    assert result.exit_code == 1 and "no model at" in result.stderr
