"""Training that begins from a model folder: what is taken over, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipeline.base_model import check_base
from pipeline.generator import GeneratorJob, pretrain_generator, train_generator
from pipeline.params import Params, load_params
from tests.models.published import write_json
from tests.models.test_published_config import QWEN, SIGLIP
from tests.training.miniature import Miniature, write_miniature
from unigendet.data.tokenizer import Tokenizer, train_tokenizer
from unigendet.models.pretrained import load_pretrained, save_pretrained
from unigendet.models.published_config import read_published_config
from unigendet.models.unified import UniGenDetModel
from unigendet.models.vae import LatentAutoencoder
from unigendet.training.session import TrainingSession


@pytest.fixture(scope="module")
def params() -> Params:
    return load_params(Path(__file__).parents[2] / "profiles" / "smoke.yaml")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Miniature:
    return write_miniature(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def base(params: Params, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bfloat16 model with an alignment head and a tokenizer of its own."""
    tokenizer = train_tokenizer(["sand and snow and sea"], 300)
    config = params.model.config(320, alignment_head=True)
    torch.manual_seed(3)
    model, vae = UniGenDetModel(config), LatentAutoencoder(config.vae)
    folder = tmp_path_factory.mktemp("base") / "model"
    save_pretrained(folder, model.to(torch.bfloat16), vae.to(torch.bfloat16), tokenizer)
    return folder


def trained(
    params: Params, data: Miniature, base: Path, folder: Path, steps: int
) -> tuple[Path, list[str]]:
    section = params.pretrain_generator
    optim = section.flow.optim.model_copy(update={"steps": steps, "log_every": 1})
    section = section.model_copy(
        update={"base": str(base), "flow": section.flow.model_copy(update={"optim": optim})}
    )
    session = TrainingSession(folder, say=lambda _: None)
    train_generator(session, GeneratorJob(0, data.shards, params.model, section, base))
    rows = (folder / "history.jsonl").read_text().splitlines()
    return folder / "kept" / "generator", [json.loads(row)["phase"] for row in rows]


def test_without_steps_the_base_is_the_result(
    params: Params, data: Miniature, base: Path, tmp_path: Path
) -> None:
    kept, phases = trained(params, data, base, tmp_path, steps=0)
    assert phases == []
    start, result = load_pretrained(base), load_pretrained(kept)
    assert result.config == start.config
    expected = start.model.state_dict()
    for name, value in result.model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, expected[name].float()), name
    encoder = start.vae.published_state_dict()
    for name, value in result.vae.published_state_dict().items():
        assert torch.equal(value, encoder[name].float()), name
    assert result.tokenizer.encode("sand") == Tokenizer.load(base).encode("sand")
    assert "val_psnr_db" in json.loads((kept / "summary.json").read_text())["figures"]


def test_with_steps_flow_goes_on_from_the_base(
    params: Params, data: Miniature, base: Path, tmp_path: Path
) -> None:
    kept, phases = trained(params, data, base, tmp_path, steps=2)
    assert phases == ["flow", "flow"]
    start, result = load_pretrained(base), load_pretrained(kept)
    assert all(p.dtype == torch.float32 for p in result.model.parameters())
    before = start.model.float().state_dict()
    moved = {n for n, v in result.model.state_dict().items() if not torch.equal(v, before[n])}
    assert "llm2vae.weight" in moved and not any(n.startswith("vit_model") for n in moved)


def test_profile_bagel_7b_is_the_published_model(tmp_path: Path) -> None:
    write_json(tmp_path / "llm_config.json", QWEN)
    write_json(tmp_path / "vit_config.json", SIGLIP)
    params = load_params(Path(__file__).parents[2] / "profiles" / "bagel-7b.yaml")
    assert params.model.config(params.shard.vocab_size) == read_published_config(tmp_path)


def test_a_base_of_other_shapes_is_refused_before_anything_starts(
    params: Params, base: Path, tmp_path: Path
) -> None:
    check_base(base, params.model)
    llm = params.model.llm.model_copy(update={"num_hidden_layers": 7})
    other = params.model.model_copy(update={"llm": llm, "timestep_shift": 3.0})
    with pytest.raises(ValueError, match=r"model\.llm\.num_hidden_layers is 7, there 2") as error:
        check_base(base, other)
    assert "model.timestep_shift is 3.0, there 1.0" in str(error.value)
    assert "hidden_size" not in str(error.value)
    # The alignment head is the folder's own business, its width too.
    wide = shutil.copytree(base, tmp_path / "wide")
    config = json.loads((wide / "config.json").read_text())
    write_json(wide / "config.json", config | {"alignment_width": 24})
    check_base(wide, params.model)
    # A relative folder lies in the repository, also where a temporary workspace runs the stage.
    generator = params.pretrain_generator.model_copy(update={"base": "nowhere"})
    asked = params.model_copy(update={"pretrain_generator": generator})
    temporary = tmp_path / ".dvc/tmp/exps/one"
    stage: Any = SimpleNamespace(
        params=asked, seed=0, inputs={"shard": tmp_path}, workspace=temporary
    )
    with pytest.raises(ValueError, match=f"{tmp_path / 'nowhere'}: there is no such folder"):
        pretrain_generator(stage)
