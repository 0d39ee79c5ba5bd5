"""Published weights in and out: bit-equal, every tensor accounted for, whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.models.published import assert_same, bagel_folder, small_config, small_parts
from unigendet.data.tokenizer import Tokenizer
from unigendet.models import exchange
from unigendet.models.exchange import export_weights, import_weights
from unigendet.models.pretrained import load_pretrained, open_model_weights, save_pretrained
from unigendet.models.unified import UniGenDetModel
from unigendet.models.weight_specs import spec_of
from unigendet.models.weight_writer import write_weights

BAGEL_LACKS = ("fake_cls_head", "latent_to_vit_connector")
TABLES = ("latent_pos_embed.pos_embed", "vit_pos_embed.pos_embed")


@pytest.fixture(scope="module", params=[False, True], ids=["gduf", "diga"])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder, without and with an alignment head. Shared: no test may change it."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_pretrained(folder, *small_parts(small_config(alignment_head=request.param)))
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published folder. Shared: no test may change it."""
    folder = tmp_path_factory.mktemp("exported")
    save_pretrained(folder / "model", *small_parts())
    export_weights(folder / "model", folder / "published")
    return folder / "published"


@pytest.fixture
def published(exported: Path, tmp_path: Path) -> Path:
    return shutil.copytree(exported, tmp_path / "published")


@pytest.fixture
def bagel(tmp_path: Path) -> Path:
    bagel_folder(tmp_path / "bagel")
    return tmp_path / "bagel"


def weights_of(folder: Path) -> dict[str, Tensor]:
    opened = open_model_weights(folder)
    return {name: opened.read(name) for name in opened.specs}


def assert_same_model(found: Path, expected: Path) -> None:
    for name in ("config.json", "tokenizer.json", "vae.safetensors"):
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name
    assert_same(weights_of(found), weights_of(expected))


def change(path: Path, **tensors: Tensor | None) -> None:
    """Replace, add or (None) remove tensors of a file; `__` stands for a point."""
    weights = load_file(path)
    for name, value in tensors.items():
        weights.pop(name.replace("__", "."), None)
        if value is not None:
            weights[name.replace("__", ".")] = value
    save_file(weights, path)


def in_shards(published: Path, folder: Path) -> None:
    weights = load_file(published / "ema.safetensors")
    specs = {name: spec_of(value) for name, value in weights.items()}
    write_weights(folder, "model", specs, weights.__getitem__, shard_bytes=100_000)


@pytest.mark.parametrize("form", ["folder", "file", "index", "shards", "shards in the folder"])
def test_an_export_comes_back_bit_equal(saved: Path, tmp_path: Path, form: str) -> None:
    published, again = tmp_path / "published", tmp_path / "again"
    export_weights(saved, published)
    source, config = published, None
    if form == "file":
        source = published / "ema.safetensors"
    elif form != "folder":
        source = published if form.endswith("folder") else tmp_path / "elsewhere"
        source.mkdir(exist_ok=True)
        in_shards(published, source)
        (published / "ema.safetensors").unlink()
        config = None if source == published else published
        if form == "index":
            source /= "model.safetensors.index.json"
        else:
            (source / "model.safetensors.index.json").unlink()
    import_weights(source, again, config=config, shard_bytes=150_000)
    assert len(list(again.glob("model-*.safetensors"))) > 2  # ours is in shards as well
    assert_same_model(again, saved)
    loaded, before = load_pretrained(again), load_pretrained(saved)
    assert loaded.config == before.config
    assert_same(loaded.model.state_dict(), before.model.state_dict())
    export_weights(again, tmp_path / "published again")  # of a model in shards
    assert_same(load_file(tmp_path / "published again" / "ema.safetensors"), weights_of(saved))


def test_an_export_has_the_published_names(exported: Path) -> None:
    assert sorted(path.name for path in exported.iterdir()) == [
        *("ae.safetensors", "config.json", "ema.safetensors", "llm_config.json", "merges.txt"),
        *("tokenizer.json", "tokenizer_config.json", "vit_config.json", "vocab.json"),
    ]
    assert (
        load_file(exported / "ema.safetensors").keys()
        == UniGenDetModel(small_config()).state_dict().keys()
    )
    assert "decoder.up.0.block.0.conv1.weight" in load_file(exported / "ae.safetensors")


def test_the_tokenizers_tables_say_what_its_own_file_says(published: Path) -> None:
    own = Tokenizer.load(published)
    (published / "tokenizer.json").unlink()
    tables = Tokenizer.load(published)
    assert tables.markers == own.markers
    assert tables.encode("sand, snow") == own.encode("sand, snow")


def test_bagel_with_its_additions_started_afresh(bagel: Path, tmp_path: Path) -> None:
    written = import_weights(bagel, tmp_path / "model", initialise=(*BAGEL_LACKS, "diga_mlp"))
    found, stored = weights_of(tmp_path / "model"), load_file(bagel / "ema.safetensors")
    assert written.dtypes == (torch.bfloat16,) and written.tensors == len(found)
    fresh = {name: found.pop(name) for name in found.keys() - stored.keys()}
    assert_same(found, stored)
    assert {name.partition(".")[0] for name in fresh} == {*BAGEL_LACKS, "diga_mlp"}
    assert all(value.dtype == torch.bfloat16 for value in fresh.values())
    assert bool((fresh["fake_cls_head.0.weight"] == 1).all())  # a LayerNorm that changes nothing
    assert not fresh["fake_cls_head.3.weight"].any()  # says neither real nor fake
    assert 0.1 < float(fresh["diga_mlp.0.weight"].float().std()) * 48**0.5 < 1.5
    config = load_pretrained(tmp_path / "model").config
    assert config.alignment_head and config.vit.num_hidden_layers == 2
    assert config.vae.scale_factor == 0.3611 and config.vae_resize.max_size == 1024

    import_weights(bagel, tmp_path / "same", initialise=(*BAGEL_LACKS, "diga_mlp"))
    assert_same_model(tmp_path / "same", tmp_path / "model")
    import_weights(bagel, tmp_path / "other", initialise=BAGEL_LACKS, seed=1)
    other = weights_of(tmp_path / "other")
    name = "fake_cls_head.1.weight"
    assert not torch.equal(other[name], fresh[name])
    assert not load_pretrained(tmp_path / "other").config.alignment_head


def test_additions_are_started_afresh_only_when_asked_for(bagel: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"missing: fake_cls_head\.0\.bias, .*latent_to_vit_connector\.2\.weight; .*"
        r"--initialise fake_cls_head,latent_to_vit_connector$",
    ):
        import_weights(bagel, tmp_path / "model")
    with pytest.raises(ValueError, match="missing: latent_to_vit") as error:
        import_weights(bagel, tmp_path / "model", initialise=["fake_cls_head"])
    assert "missing: fake_cls_head" not in str(error.value)
    with pytest.raises(ValueError, match="cannot initialise vit_model: known are fake_cls_head,"):
        import_weights(bagel, tmp_path / "model", initialise=["vit_model"])
    assert not (tmp_path / "model").exists()


def test_what_is_there_is_not_started_afresh(published: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has fake_cls_head: only what it lacks"):
        import_weights(published, tmp_path / "model", initialise=["fake_cls_head"])
    change(published / "ema.safetensors", fake_cls_head__3__bias=None)
    with pytest.raises(ValueError, match=r"missing: fake_cls_head\.3\.bias$"):
        import_weights(published, tmp_path / "model")


def test_every_key_is_accounted_for(published: Path, tmp_path: Path) -> None:
    change(
        published / "ema.safetensors",
        llm2vae__bias=None,
        connector__fc1__bias=None,
        vit_model__vision_model__encoder__layers__2__layer_norm1__bias=torch.zeros(32),
        vae2llm__weight=torch.zeros(48, 13),
    )
    with pytest.raises(ValueError) as error:
        import_weights(published, tmp_path / "model")
    assert str(error.value).endswith(
        "missing: connector.fc1.bias, llm2vae.bias; "
        "not known: vit_model.vision_model.encoder.layers.2.layer_norm1.bias; "
        "of another shape: vae2llm.weight is (48, 13), expected (48, 12)"
    )
    assert not (tmp_path / "model").exists()


def test_fixed_tables_may_be_left_out_or_rounded(published: Path, tmp_path: Path) -> None:
    whole = load_file(published / "ema.safetensors")
    change(published / "ema.safetensors", **{name.replace(".", "__"): None for name in TABLES})
    import_weights(published, tmp_path / "without")
    assert_same(weights_of(tmp_path / "without"), whole)
    import_weights(published, tmp_path / "narrow", dtype=torch.bfloat16)
    narrow = {name: value.bfloat16() for name, value in whole.items()}
    assert_same(weights_of(tmp_path / "narrow"), narrow)
    save_file(narrow, published / "ema.safetensors")
    import_weights(published, tmp_path / "rounded")
    assert_same_model(tmp_path / "rounded", tmp_path / "narrow")


@pytest.mark.parametrize("name", TABLES)
def test_changed_tables_are_refused(published: Path, tmp_path: Path, name: str) -> None:
    table = load_file(published / "ema.safetensors")[name]
    table[3, 5] += 0.01
    change(published / "ema.safetensors", **{name.replace(".", "__"): table})
    with pytest.raises(ValueError, match=f"{name} is not the fixed sin/cos table"):
        import_weights(published, tmp_path / "model")
    change(published / "ema.safetensors", **{name.replace(".", "__"): table[:4]})
    with pytest.raises(ValueError, match=rf"{name} is \(4, 48\), expected"):
        import_weights(published, tmp_path / "model")


def test_mixed_types_need_a_choice(published: Path, tmp_path: Path) -> None:
    change(published / "ema.safetensors", llm2vae__bias=torch.ones(12).bfloat16())
    with pytest.raises(ValueError, match=r"bfloat16, float32\): choose one with --dtype"):
        import_weights(published, tmp_path / "model")
    import_weights(published, tmp_path / "model", dtype=torch.float32)
    assert weights_of(tmp_path / "model")["llm2vae.bias"].dtype == torch.float32


@pytest.mark.parametrize("given", ["published", "model folder", "config.json"])
def test_a_checkpoint_without_a_configuration(exported: Path, tmp_path: Path, given: str) -> None:
    (tmp_path / "released").mkdir()
    checkpoint = shutil.copy(
        exported / "ema.safetensors", tmp_path / "released" / "ema.safetensors"
    )
    with pytest.raises(ValueError, match=r"no llm_config\.json .*--config"):
        import_weights(checkpoint, tmp_path / "model")
    import_weights(exported, tmp_path / "expected")
    config = {
        "published": exported,
        "model folder": tmp_path / "expected",
        "config.json": tmp_path / "expected" / "config.json",
    }[given]
    import_weights(tmp_path / "released", tmp_path / "model", config=config)
    assert_same_model(tmp_path / "model", tmp_path / "expected")
    import_weights(checkpoint, tmp_path / "from the file", config=config)
    assert_same_model(tmp_path / "from the file", tmp_path / "expected")


def test_alignment_head_follows_from_the_weights(tmp_path: Path) -> None:
    """The released DIGA checkpoint is read with BAGEL's configuration, which does not know it."""
    save_pretrained(tmp_path / "model", *small_parts(small_config(alignment_head=True)))
    export_weights(tmp_path / "model", tmp_path / "published")
    import_weights(tmp_path / "published", tmp_path / "again")
    assert load_pretrained(tmp_path / "again").config.alignment_head
    change(
        tmp_path / "published" / "ema.safetensors",
        **{f"diga_mlp__{i}__{kind}": None for i in (0, 2) for kind in ("weight", "bias")},
    )
    source, config = tmp_path / "published", tmp_path / "model"
    import_weights(source, tmp_path / "without")
    assert not load_pretrained(tmp_path / "without").config.alignment_head
    with pytest.raises(ValueError, match=r"missing: diga_mlp.*--initialise diga_mlp$"):
        import_weights(source, tmp_path / "x", config=config)  # which says that there is one


def test_what_else_is_missing_is_named(published: Path, tmp_path: Path) -> None:
    shutil.copy(published / "ema.safetensors", tmp_path)
    shutil.copy(published / "llm_config.json", tmp_path)
    shutil.copy(published / "vit_config.json", tmp_path)
    shutil.copy(published / "config.json", tmp_path)
    with pytest.raises(ValueError, match=r"neither ae\.safetensors nor vae\.safetensors"):
        import_weights(tmp_path, tmp_path / "model")
    shutil.copy(published / "ae.safetensors", tmp_path)
    with pytest.raises(ValueError, match=r"neither tokenizer\.json nor vocab\.json"):
        import_weights(tmp_path, tmp_path / "model")
    with pytest.raises(ValueError, match=r"no configuration at .*absent"):
        import_weights(tmp_path, tmp_path / "model", config=tmp_path / "absent")
    with pytest.raises(ValueError, match="no such file or folder"):
        import_weights(tmp_path / "absent", tmp_path / "model")
    change(tmp_path / "ae.safetensors", encoder__conv_in__bias=None)
    with pytest.raises(ValueError, match=r"ae\.safetensors .* missing: encoder\.conv_in\.bias"):
        import_weights(tmp_path, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_tokenizer_too_large_is_refused(published: Path, tmp_path: Path) -> None:
    tokenizer = json.loads((published / "tokenizer.json").read_text())
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    tokenizer["added_tokens"] += [
        {"id": 262 + i, "content": f"<|{i}|>", "special": True, **special} for i in range(30)
    ]
    (published / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ValueError, match="has 292 ids, more than the model's vocabulary of 280"):
        import_weights(published, tmp_path / "model")


def test_nothing_is_replaced(published: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="taken exists; name a new folder"):
        import_weights(published, tmp_path / "taken")
    with pytest.raises(ValueError, match="published exists; name a new folder"):
        export_weights(published, published)
    (tmp_path / "empty").mkdir()
    import_weights(published, tmp_path / "empty")
    load_pretrained(tmp_path / "empty")


def test_a_full_disk_is_seen_before(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_weights(published, tmp_path / "model")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(exchange.shutil, "disk_usage", lambda _: usage(9, 9, 400_000))
    for job, source in ((import_weights, published), (export_weights, tmp_path / "model")):
        with pytest.raises(ValueError, match=r"needs 0\.\d GB, its disk has 0\.\d GB free"):
            job(source, tmp_path / "new" / "folder")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_is_cut_short_leaves_nothing(
    published: Path, tmp_path: Path, error: BaseException
) -> None:
    seen: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        seen.append((done, total))
        if done > total / 2:
            raise error

    with pytest.raises(type(error)):
        import_weights(published, tmp_path / "new" / "model", progress=stop)
    assert len(seen) > 10
    assert list((tmp_path / "new").iterdir()) == []


def test_damage_that_shows_while_copying_leaves_nothing(published: Path, tmp_path: Path) -> None:
    ema = published / "ema.safetensors"

    def truncate(done: int, total: int) -> None:
        ema.write_bytes(ema.read_bytes()[:1000])

    with pytest.raises(ValueError, match=r"ema\.safetensors is damaged"):
        import_weights(published, tmp_path / "new" / "model", progress=truncate)
    assert list((tmp_path / "new").iterdir()) == []


def test_a_damaged_model_is_not_exported(saved: Path, tmp_path: Path) -> None:
    model = shutil.copytree(saved, tmp_path / "model")
    change(model / "model.safetensors", llm2vae__bias=None)
    with pytest.raises(ValueError, match=r"does not fit its configuration: missing: llm2vae\.bias"):
        export_weights(model, tmp_path / "published")
    with pytest.raises(ValueError, match="there is no such folder"):
        export_weights(tmp_path / "absent", tmp_path / "published")
