"""Strict parameters: every wrong key is named, with the nearest valid one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML

from pipeline.params import load_params, main, parse_params
from pipeline.profiles import use_profile
from pipeline.sections.base import LossWeightsSection, OptimSection
from pipeline.sections.model import (
    AutoencoderSection,
    ResizeSection,
    TransformerSection,
    VisionSection,
)
from unigendet.config import (
    AutoencoderConfig,
    LossWeights,
    OptimConfig,
    ResizeRule,
    TransformerConfig,
    VisionConfig,
)
from unigendet.models.unified import UniGenDetModel
from unigendet.models.vae import LatentAutoencoder

ROOT = Path(__file__).resolve().parents[2]
PROFILES = sorted((ROOT / "profiles").glob("*.yaml"))
Raw = dict[str, Any]


@pytest.fixture
def raw() -> Raw:
    loaded: Raw = YAML(typ="safe", pure=True).load((ROOT / "profiles" / "tiny.yaml").read_text())
    return loaded


@pytest.mark.parametrize("path", [ROOT / "params.yaml", *PROFILES], ids=lambda path: path.stem)
def test_profiles_are_valid(path: Path) -> None:
    params = load_params(path)
    config = params.model.config(params.shard.vocab_size)
    assert config.llm.vocab_size == params.shard.vocab_size
    with torch.device("meta"):
        UniGenDetModel(config)
        vae = LatentAutoencoder(config.vae)
    assert vae.posterior(torch.empty(1, 3, 64, 64, device="meta"))[0].shape[1:] == (
        config.vae.latent_channels,
        64 // config.vae.downsample,
        64 // config.vae.downsample,
    )
    cells = params.data.image_size // (config.vae.downsample * config.latent_patch_size)
    assert cells <= config.max_latent_size, "an image's latents must have a position each"


def _misspell(raw: Raw) -> None:
    raw["coevolve"]["aling_weight"] = raw["coevolve"].pop("align_weight")


def _set(section: str, key: str, value: Any) -> Callable[[Raw], None]:
    def change(raw: Raw) -> None:
        raw[section][key] = value

    return change


def _budget(**later: float) -> Raw:
    """A token budget that draws all streams first, from step 5 on those in `later`."""
    none = {"generation": 0.0, "real": 0.0, "fake": 0.0}
    mixture = [{"from_step": 0, **dict.fromkeys(none, 1.0)}, {"from_step": 5, **none, **later}]
    return {
        "packs_per_step": 1,
        "expected_num_tokens": 900,
        "max_num_tokens": 1000,
        "max_num_tokens_per_sample": 300,
        "prefer_buffer_before": 600,
        "max_buffer_size": 4,
        "mixture": mixture,
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_misspell, ["`coevolve.aling_weight`", "did you mean `align_weight`"]),
        (_misspell, ["`coevolve.align_weight` is missing"]),
        (lambda raw: raw.pop("sweep"), ["`sweep` is missing"]),
        (lambda raw: raw.update(modle={}), ["`modle`", "did you mean `model`"]),
        (lambda raw: raw.update(zzzzz=1), ["`zzzzz`", "valid keys:", "pretrain_generator"]),
        (_set("coevolve", "align_weight", -0.5), ["`coevolve.align_weight`", "equal to 0", "-0.5"]),
        (_set("coevolve", "align_weight", "autoo"), ["`coevolve.align_weight`", "'auto'"]),
        (_set("coevolve", "fresh_share", 1.5), ["`coevolve.fresh_share`", "equal to 1", "1.5"]),
        (_set("coevolve", "fresh_share", 0), ["`coevolve`", "fresh_fakes (96)", "go together"]),
        (_set("coevolve", "fresh_fakes", 0), ["`coevolve`", "fresh_share (0.1)", "both to 0"]),
        (_set("coevolve", "joint", False), ["coevolve.flow_weight is auto", "joint is false"]),
        (_set("coevolve", "matrix_images", 11), ["`coevolve`", "matrix_images", "least 12", "11"]),
        (_set("coevolve", "matrix_images", -1), ["`coevolve.matrix_images`", "equal to 0"]),
        (_set("coevolve", "teacher", "forzen"), ["`coevolve.teacher`", "'frozen'"]),
        (_set("coevolve", "teacher", "dinov2"), ["`coevolve`", "`teacher_path` is the folder"]),
        (_set("coevolve", "teacher_path", "x"), ["`coevolve`", "and empty for all others"]),
        (_set("coevolve", "teacher_layer", 6), ["teacher_layer 6", "layers 0..5"]),
        (_set("coevolve", "teacher_layer", "first"), ["`coevolve.teacher_layer`", "'first'"]),
        (
            lambda raw: raw["coevolve"].update(teacher="live", teacher_centred=True),
            ["`coevolve`", "teacher_centred: false"],
        ),
        (
            lambda raw: raw["coevolve"].update(teacher="efficientnet", teacher_layer=17),
            ["`coevolve`", "teacher_layer 17", "layers 0..16"],
        ),
        (
            lambda raw: raw["coevolve"]["diga"].update(align_until=0.0),
            ["`coevolve.diga.align_until`", "greater than 0"],
        ),
        (
            lambda raw: raw["coevolve"]["diga"].update(align_schedule="until"),
            ["`coevolve.diga.align_schedule`", "'linear'"],
        ),
        (_set("coevolve", "tap_layer", 99), ["tap_layer 99", "layers 0..5"]),
        (_set("sweep", "tap_layers", [1, 99]), ["tap_layer 99", "layers 0..5"]),
        (
            lambda raw: raw["coevolve"]["diga"]["optim"].update(ema_decay=1.0),
            ["`coevolve.diga.optim.ema_decay`", "less than 1"],
        ),
        (
            lambda raw: raw["coevolve"]["gduf"]["optim"].update(betas=[0.9, 1.0]),
            ["`coevolve.gduf.optim.betas.1`", "less than 1"],
        ),
        (
            lambda raw: raw["coevolve"]["diga"].update(
                detection_per_step=0, token_budget=_budget(real=1.0, fake=1.0)
            ),
            ["`coevolve.diga`", "from step 5", "draws none", "(generation)"],
        ),
        (
            lambda raw: raw["coevolve"]["diga"].update(
                detection_per_step=2, token_budget=_budget(real=1.0)
            ),
            ["`coevolve.diga`", "from step 5", "without generation samples"],
        ),
        (
            lambda raw: raw["pretrain_detector"].update(
                generation_per_step=0, token_budget=_budget(generation=1.0)
            ),
            ["`pretrain_detector`", "draws none", "(real, fake)"],
        ),
        (
            lambda raw: raw["pretrain_generator"]["flow"].update(token_budget=_budget(fake=1.0)),
            ["`pretrain_generator.flow`", "draws none", "(generation)"],
        ),
        (_set("pretrain_detector", "smsa", "yes"), ["`pretrain_detector.smsa`", "boolean"]),
        (_set("pretrain_detector", "smsa", 1), ["`pretrain_detector.smsa`", "boolean"]),
        (_set("data", "image_size", 64.5), ["`data.image_size`", "integer"]),
        (_set("data", "image_size", "64"), ["`data.image_size`", "integer"]),
        (_set("shard", "vocab_size", float("nan")), ["`shard.vocab_size`"]),
        (lambda raw: raw.update(seed=-1), ["`seed`", "equal to 0"]),
        (lambda raw: raw.update(seed=None), ["`seed`", "integer"]),
        (_set("sweep", "align_weight", [1.0, 0.1]), ["`sweep`", "align_weight", "1.0"]),
        (_set("sweep", "grace_steps", 99), ["`sweep`", "grace_steps", "99", "4 steps"]),
        (_set("sweep", "trials", 0), ["`sweep.trials`"]),
        (_set("sweep", "gpu_share", 0.0), ["`sweep.gpu_share`"]),
        (_set("sweep", "distance", {"measure": "fid"}), ["sweep.distance.measure", "'kd'"]),
        (
            lambda raw: raw["pretrain_detector"]["optim"].update(lr=0),
            ["`pretrain_detector.optim.lr`", "greater than 0"],
        ),
        (
            lambda raw: raw["forge"]["roles"].update({k: "train" for k in raw["forge"]["roles"]}),
            ["`forge.roles`", "no family has the role val, test"],
        ),
    ],
)
def test_wrong_values_are_named(raw: Raw, change: Callable[[Raw], None], words: list[str]) -> None:
    change(raw)
    with pytest.raises(ValueError) as caught:
        parse_params(raw)
    for word in words:
        assert word in str(caught.value)


def test_all_wrong_keys_are_named_at_once(raw: Raw) -> None:
    raw["seed"] = "x"
    raw["data"]["image_size"] = -1
    with pytest.raises(ValueError, match=r"2 wrong(.|\n)*seed(.|\n)*image_size"):
        parse_params(raw)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("seed: 0\nseed: 1\n", "duplicate key"),
        ("seed: [0\n", "not valid YAML"),
        ("- 1\n", "must hold the sections"),
        ("", "must hold the sections"),
    ],
)
def test_broken_files(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=word):
        load_params(path)


def test_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.yaml")]) == 1
    assert "does not exist" in capsys.readouterr().err


def test_numbers_are_read_as_dvc_reads_them(raw: Raw) -> None:
    """YAML 1.1 reads 1e-3 as a string; DVC writes such numbers after `exp run -S`."""
    text = YAML(typ="safe", pure=True).load("lr: 1e-3")
    raw["pretrain_detector"]["optim"]["lr"] = text["lr"]
    assert parse_params(raw).pretrain_detector.optim.lr == 1e-3


def test_fingerprint_is_of_what_decides_results(raw: Raw) -> None:
    before = parse_params(raw).fingerprint()
    raw["cluster"]["num_cpus"] = 7
    raw["tracking"]["experiment"] = "other"
    assert parse_params(raw).fingerprint() == before
    raw["seed"] += 1
    assert parse_params(raw).fingerprint() != before


@pytest.mark.parametrize(
    ("section", "config", "elsewhere"),
    [
        (OptimSection, OptimConfig, set()),
        (LossWeightsSection, LossWeights, set()),
        (TransformerSection, TransformerConfig, {"vocab_size"}),
        (VisionSection, VisionConfig, set()),
        (AutoencoderSection, AutoencoderConfig, set()),
        (ResizeSection, ResizeRule, set()),
    ],
)
def test_sections_mirror_the_configuration(section: Any, config: Any, elsewhere: set[str]) -> None:
    fields = {field.name for field in dataclasses.fields(config)}
    assert set(section.model_fields) | elsewhere == fields


def test_use_profile(tmp_path: Path) -> None:
    folder = tmp_path / "profiles"
    folder.mkdir()
    for path in PROFILES:
        (folder / path.name).write_bytes(path.read_bytes())
    target = tmp_path / "params.yaml"
    use_profile("smoke", tmp_path)
    assert target.read_bytes() == (folder / "smoke.yaml").read_bytes()
    use_profile("tiny", tmp_path)
    with pytest.raises(ValueError, match="did you mean 'smoke'"):
        use_profile("smok", tmp_path)
    (folder / "broken.yaml").write_text("seed: 1\n")
    with pytest.raises(ValueError, match="`model` is missing"):
        use_profile("broken", tmp_path)
    target.write_text(target.read_text() + "# mine\n")
    with pytest.raises(ValueError, match="holds changes"):
        use_profile("smoke", tmp_path)
    assert target.read_text().endswith("# mine\n")


def test_without_a_base_both_parts_of_the_generator_are_trained(raw: Raw) -> None:
    for part in ("autoencoder", "flow"):
        raw["pretrain_generator"][part]["optim"]["steps"] = 0
        with pytest.raises(ValueError, match="steps of 0 need a `base`"):
            parse_params(raw)
        raw["pretrain_generator"][part]["optim"]["steps"] = 1
    raw["pretrain_generator"] |= {"base": "bagel"}
    raw["pretrain_generator"]["flow"]["optim"]["steps"] = 0
    parse_params(raw)


def test_images_that_a_family_has_no_positions_for_are_refused(raw: Raw) -> None:
    raw["data"] |= {"image_size": 520, "band_width": 520}
    with pytest.raises(ValueError, match=r"vqar takes images of at most 512 pixels .* not of 520"):
        parse_params(raw)
    raw["forge"]["vqar"]["patch"] = 16
    parse_params(raw)


def test_without_a_sweep_every_weight_is_a_number(raw: Raw) -> None:
    raw["sweep"]["enabled"] = False
    with pytest.raises(ValueError, match=r"coevolve\.flow_weight is auto, but sweep\.enabled"):
        parse_params(raw)
    weights = ("flow_weight", "det_weight", "text_weight", "align_weight")
    raw["coevolve"] |= {"tap_layer": 1, **dict.fromkeys(weights, 1.0)}
    parse_params(raw)
