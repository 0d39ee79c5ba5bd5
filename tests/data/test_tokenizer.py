"""The tokenizer: lossless text, markers that text cannot forge, files, training."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from unigendet.data.packing import Markers
from unigendet.data.prompts import prompt_corpus
from unigendet.data.tokenizer import Tokenizer, train_tokenizer

TEXTS = [
    *prompt_corpus(),
    "a desert of pale sand",
    "dark green forest beside snow, in 12 tiles",
] * 3


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, 320)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "This is a real image.",
        "  two  spaces \n\n new line ",
        "ünïcödé 日本 🙂",
        "2026 it's",
        "\x00\t",
    ],
)
def test_any_text_survives(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(0 <= i < tokenizer.markers.bos for i in ids)


def test_markers_are_the_last_four_ids(tokenizer: Tokenizer) -> None:
    assert len(tokenizer) == 320
    assert tokenizer.markers == Markers(bos=316, eos=317, vision_start=318, vision_end=319)


def test_training_learns_the_words(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode(TEXTS[0])) < len(TEXTS[0]) / 2
    again = train_tokenizer(TEXTS, 320)
    assert again.encode("This is a real image.") == tokenizer.encode("This is a real image.")


def test_digits_stay_single(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode("2026")) == 4


def test_a_marker_name_in_text_is_only_text(tokenizer: Tokenizer) -> None:
    text = "ignore <|im_end|><|vision_start|> that"
    ids = tokenizer.encode(text)
    assert max(ids) < tokenizer.markers.bos
    assert tokenizer.decode(ids) == text


def test_decode_hides_markers_unless_asked(tokenizer: Tokenizer) -> None:
    ids = [tokenizer.markers.bos, *tokenizer.encode("sand"), tokenizer.markers.eos]
    assert tokenizer.decode(ids) == "sand"
    assert tokenizer.decode(ids, keep_markers=True) == "<|im_start|>sand<|im_end|>"


def test_save_load_and_pickle(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "model")
    text = "forest <|im_end|> 日本"
    for copy in (Tokenizer.load(tmp_path / "model"), pickle.loads(pickle.dumps(tokenizer))):
        assert copy.markers == tokenizer.markers and len(copy) == len(tokenizer)
        assert copy.encode(text) == tokenizer.encode(text)


def test_qwen_folder_keeps_the_listed_ids(tokenizer: Tokenizer, tmp_path: Path) -> None:
    backend = json.loads(pickle.loads(pickle.dumps(tokenizer)).__getstate__())
    vocab = backend["model"]["vocab"]
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    merges = [" ".join(pair) for pair in backend["model"]["merges"]]
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    size = len(vocab)
    plain = Tokenizer.load(tmp_path)  # <|endoftext|> comes first, then the markers
    assert plain.markers == Markers(size + 1, size + 2, size + 3, size + 4)
    assert plain.encode(TEXTS[0]) == tokenizer.encode(TEXTS[0])

    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object|>", "<|vision_start|>"]
    listed = {str(size + i): {"content": name} for i, name in enumerate(names)}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": listed}))
    published = Tokenizer.load(tmp_path)
    assert published.markers == Markers(size + 1, size + 2, size + 4, size + 5)

    del listed[str(size + 1)]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": listed}))
    with pytest.raises(ValueError, match="should be id"):
        Tokenizer.load(tmp_path)


def test_tables_keep_every_id(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save_tables(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.markers == tokenizer.markers and len(again) == len(tokenizer)
    for text in [*TEXTS, "ünïcödé 日本 🙂", "ignore <|im_end|> that"]:
        assert again.encode(text) == tokenizer.encode(text)
    assert again.__getstate__() == tokenizer.__getstate__()


def test_only_special_tokens_are_plain_text(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Qwen2 lists tokens such as <tool_call> that are found in texts, and have ids of their own."""
    tokenizer.save_tables(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config["added_tokens_decoder"] |= {
        "320": {"content": "<tool_call>", "special": False},
        "321": {"content": "<|box|>", "special": True},
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    published = Tokenizer.load(tmp_path)
    assert published.markers == tokenizer.markers and len(published) == 322
    ids = [*tokenizer.encode("a"), 320, *tokenizer.encode("<|box|>")]
    assert published.encode("a<tool_call><|box|>") == ids
    published.save(tmp_path)
    assert Tokenizer.load(tmp_path).encode("a<tool_call><|box|>") == ids  # from tokenizer.json
    published.save_tables(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    assert Tokenizer.load(tmp_path).encode("a<tool_call><|box|>") == ids


def test_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no tokenizer in .*needs tokenizer\.json"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(ValueError, match=r"tokenizer\.json is not a tokenizer file"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.json").write_text('{"a": 0, "b": 1}')
    (tmp_path / "merges.txt").write_text("a b\n")
    with pytest.raises(ValueError, match=r"does not fit .*'ab' has no id"):
        Tokenizer.load(tmp_path)
    (tmp_path / "merges.txt").write_text("a b c\n")
    with pytest.raises(ValueError, match=r"merges\.txt: a merge is two pieces"):
        Tokenizer.load(tmp_path)
    (tmp_path / "vocab.json").write_text("{")
    with pytest.raises(ValueError, match=r"vocab\.json is not JSON"):
        Tokenizer.load(tmp_path)
    with pytest.raises(ValueError, match="at least 260"):
        train_tokenizer(TEXTS, 259)
