"""`unigendet import` and `unigendet export`: what a person types, and what they are told."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from tests.models.published import bagel_folder, small_parts
from unigendet import cli
from unigendet.models.pretrained import load_pretrained, save_pretrained

LACKING = "fake_cls_head,latent_to_vit_connector"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def test_bagel_in_and_out(tmp_path: Path) -> None:
    bagel, model, published = (tmp_path / name for name in ("bagel", "model", "published"))
    stored = bagel_folder(bagel)
    result = run("import", bagel, model, "--initialise", LACKING, "--seed", 3)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"wrote {model}: {len(stored) + 10} tensors, bfloat16, 0.00 GB")
    loaded = load_pretrained(model).model.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in stored.items())
    result = run("export", model, published)
    assert result.exit_code == 0, result.output
    assert (published / "ema.safetensors").is_file()
    again = run("import", published / "ema.safetensors", tmp_path / "again", "--dtype", "float32")
    assert again.exit_code == 0 and "float32" in again.stdout


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_what_was_imported_detects_and_draws(tmp_path: Path, dtype: str) -> None:
    save_pretrained(tmp_path / "trained", *small_parts())
    model, picture, drawn = (tmp_path / name for name in ("model", "in.png", "out.png"))
    run("export", tmp_path / "trained", tmp_path / "published")
    run("import", tmp_path / "published", model, "--dtype", dtype)
    Image.new("RGB", (16, 12), "green").save(picture)
    result = run("detect", picture, "--model", model, "--json")
    assert result.exit_code == 0, result.output
    result = run("generate", "sand", "-o", drawn, "--model", model, "--steps", 2, "--size", "8x8")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("import", "absent", "model"), "no weights at absent"),
        (("import", "bagel", "model"), "missing: fake_cls_head.0.bias, "),
        (("import", "bagel", "model", "--initialise", "head"), "cannot initialise head"),
        (("import", "bagel", "bagel", "--initialise", LACKING), "bagel exists; name a new folder"),
        (("import", "old.pt", "model"), "old.pt is a pickle"),
        (("export", "bagel", "published"), "model.safetensors is missing"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    bagel_folder(tmp_path / "bagel")
    (tmp_path / "old.pt").write_bytes(b"anything")
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ") and message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "model").exists() and not (tmp_path / "published").exists()


def test_a_wrong_type_is_code_2() -> None:
    assert run("import", "a", "b", "--dtype", "int8").exit_code == 2
