"""Weights on disk: found in every form, read and written tensor by tensor, faults named."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from unigendet.models.weight_files import open_weights
from unigendet.models.weight_specs import TensorSpec, compare_specs, spec_of
from unigendet.models.weight_writer import save_weights, write_weights

INDEX = "w.safetensors.index.json"


@pytest.fixture
def weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "first": torch.randn(3, 5, generator=generator).bfloat16(),  # 30 bytes: of no even size
        "second": torch.randn(4, 4, generator=generator),
        "scalar": torch.tensor(2.5),
        "turned": torch.randn(6, 2, generator=generator).t(),  # not contiguous
        "half": torch.randn(7, generator=generator).half(),
    }


def sharded(folder: Path, weights: dict[str, Tensor], shard_bytes: int = 64) -> None:
    specs = {name: spec_of(value) for name, value in weights.items()}
    write_weights(folder, "w", specs, weights.__getitem__, shard_bytes=shard_bytes)


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value), name


def test_one_file_is_what_safetensors_reads(weights: dict[str, Tensor], tmp_path: Path) -> None:
    save_weights(tmp_path, "w", weights)
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]
    assert_same(load_file(tmp_path / "w.safetensors"), weights)


def test_shards_and_their_index(weights: dict[str, Tensor], tmp_path: Path) -> None:
    sharded(tmp_path, weights)
    index = json.loads((tmp_path / INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in weights.values())
    assert index["weight_map"].keys() == weights.keys()
    files = sorted(tmp_path.glob("*.safetensors"))
    assert [path.name for path in files] == [f"w-0000{i}-of-00004.safetensors" for i in range(1, 5)]
    assert_same({k: v for path in files for k, v in load_file(path).items()}, weights)


@pytest.mark.parametrize("form", ["file", "index", "folder", "shard", "folder without index"])
def test_every_form_is_opened(weights: dict[str, Tensor], tmp_path: Path, form: str) -> None:
    if form == "file":
        save_weights(tmp_path, "w", weights)
    else:
        sharded(tmp_path, weights)
    save_file({"first": torch.zeros(1)}, tmp_path / "ae.safetensors")
    path = {
        "file": tmp_path / "w.safetensors",
        "index": tmp_path / INDEX,
        "shard": tmp_path / "w-00002-of-00004.safetensors",
    }.get(form, tmp_path)
    if form == "folder without index":
        (tmp_path / INDEX).unlink()
    opened = open_weights(path, leaving_out=["ae.safetensors"])
    assert opened.specs == {name: spec_of(value) for name, value in weights.items()}
    assert_same({name: opened.read(name) for name in opened.specs}, weights)


def test_several_sets_in_a_folder_are_listed(weights: dict[str, Tensor], tmp_path: Path) -> None:
    sharded(tmp_path, weights)
    save_weights(tmp_path, "ema", weights)
    with pytest.raises(ValueError, match=rf"several sets .*: {INDEX}, ema\.safetensors$"):
        open_weights(tmp_path)
    assert open_weights(tmp_path / "ema.safetensors").files == (tmp_path / "ema.safetensors",)


@pytest.mark.parametrize("bytes_kept", [0, 4, 40, -1])
def test_a_truncated_shard_is_named(
    weights: dict[str, Tensor], tmp_path: Path, bytes_kept: int
) -> None:
    sharded(tmp_path, weights)
    shard = tmp_path / "w-00003-of-00004.safetensors"
    shard.write_bytes(shard.read_bytes()[:bytes_kept])
    with pytest.raises(ValueError, match=r"w-00003-of-00004\.safetensors is damaged"):
        open_weights(tmp_path)


def test_what_is_cut_off_after_opening_is_named(weights: dict[str, Tensor], tmp_path: Path) -> None:
    save_weights(tmp_path, "w", weights)
    opened = open_weights(tmp_path)
    os.truncate(tmp_path / "w.safetensors", 100)
    with pytest.raises(ValueError, match=r"w\.safetensors is damaged"):
        opened.read("second")


@pytest.mark.parametrize("with_index", [True, False])
def test_a_missing_shard_is_named(
    weights: dict[str, Tensor], tmp_path: Path, with_index: bool
) -> None:
    sharded(tmp_path, weights)
    (tmp_path / "w-00003-of-00004.safetensors").unlink()
    if not with_index:
        (tmp_path / INDEX).unlink()
    with pytest.raises(ValueError, match=r"missing: w-00003-of-00004\.safetensors$"):
        open_weights(tmp_path)


def test_an_index_that_says_something_else_is_refused(
    weights: dict[str, Tensor], tmp_path: Path
) -> None:
    sharded(tmp_path, weights)
    index = json.loads((tmp_path / INDEX).read_text())
    places = index["weight_map"]
    places["first"], places["second"] = places["second"], places["first"]
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"does not say what its files hold: first, second$"):
        open_weights(tmp_path)
    index["weight_map"]["second"] = "../elsewhere.safetensors"
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(ValueError, match="no file beside it"):
        open_weights(tmp_path)
    for text, message in (("{", "is not JSON"), ("[]", "no weight_map")):
        (tmp_path / INDEX).write_text(text)
        with pytest.raises(ValueError, match=message):
            open_weights(tmp_path / INDEX)


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    for number in (1, 2):
        save_file({"twice": torch.zeros(2)}, tmp_path / f"w-0000{number}-of-00002.safetensors")
    with pytest.raises(ValueError, match=r"twice is both in .*w-00001.* and in .*w-00002"):
        open_weights(tmp_path)


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    save_file({"packed": torch.zeros(2, dtype=torch.int8)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"w\.safetensors: packed is of type I8"):
        open_weights(tmp_path)


def test_pickles_are_refused_with_the_reason(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    for name in ("model.pt", "model.bin", "model.pth", "model.ckpt"):
        (tmp_path / name).write_bytes(pickle.dumps(Trap()))
        for path in (tmp_path / name, tmp_path):
            with pytest.raises(ValueError, match=rf"{name} is a pickle, .*run any code"):
                open_weights(path)
        (tmp_path / name).unlink()
    (tmp_path / "model.safetensors").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match="damaged or not a safetensors file"):
        open_weights(tmp_path)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": "a.bin"}}))
    with pytest.raises(ValueError, match=r"a\.bin is a pickle"):
        open_weights(tmp_path / INDEX)
    assert not (tmp_path / "sprung").exists()


def test_what_holds_no_weights_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file or folder"):
        open_weights(tmp_path / "absent")
    with pytest.raises(ValueError, match="no weights in"):
        open_weights(tmp_path)
    (tmp_path / "notes.txt").write_text("weights")
    with pytest.raises(ValueError, match=r"notes\.txt holds no weights"):
        open_weights(tmp_path / "notes.txt")


def test_differences_are_listed() -> None:
    spec = TensorSpec(torch.float32, (2, 3))
    expected = {"same": (2, 3), "turned": (3, 2), **{f"gone.{i:02d}": (1,) for i in range(22)}}
    found = {"same": spec, "turned": spec, "odd": spec}
    missing, unknown, reshaped = compare_specs(expected, found)
    assert missing.startswith("missing: gone.00, gone.01, ") and missing.endswith("and 2 more")
    assert unknown == "not known: odd"
    assert reshaped == "of another shape: turned is (2, 3), expected (3, 2)"
    assert compare_specs({"same": (2, 3)}, {"same": spec}) == []


def test_a_tensor_that_is_not_as_announced_is_a_bug(tmp_path: Path) -> None:
    specs = {"a": TensorSpec(torch.float32, (2,))}
    with pytest.raises(RuntimeError, match="announced"):
        write_weights(tmp_path, "w", specs, lambda name: torch.zeros(3))
