"""Byte-level BPE with Qwen2's rules, and the four marker tokens (specification 2)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unigendet.data.packing import Markers

if TYPE_CHECKING:
    import tokenizers

MARKER_NAMES = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")
"""bos, eos, vision_start, vision_end."""

_END_OF_TEXT = "<|endoftext|>"
_BYTES = 256
_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen2's pre-tokenisation: contractions, words with a leading sign, digits, signs, spaces."""


class Tokenizer:
    """Text to ids and back. Markers are the last ids unless the loaded folder places them itself.

    Any text can be encoded. A marker's name inside a text is encoded as plain characters, so that
    no caption or question can forge the structure of a sample.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        backend.add_special_tokens([_special(name) for name in MARKER_NAMES])
        backend.encode_special_tokens = True
        backend.no_padding()
        backend.no_truncation()
        self._backend = backend
        ids = backend.get_vocab(with_added_tokens=True)
        bos, eos, vision_start, vision_end = (ids[name] for name in MARKER_NAMES)
        self.markers = Markers(bos=bos, eos=eos, vision_start=vision_start, vision_end=vision_end)

    def __len__(self) -> int:
        """One more than the highest id: the size that the model's vocabulary needs."""
        return max(self._backend.get_vocab(with_added_tokens=True).values()) + 1

    def encode(self, text: str) -> list[int]:
        """The words' ids alone; packing adds the markers."""
        return list(self._backend.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int], *, keep_markers: bool = False) -> str:
        """The text of `ids`. What is no UTF-8 becomes U+FFFD; ids past the vocabulary vanish."""
        markers = self.markers
        hidden = {markers.bos, markers.eos, markers.vision_start, markers.vision_end}
        shown = [int(i) for i in ids if keep_markers or int(i) not in hidden]
        text: str = self._backend.decode(shown, skip_special_tokens=False)
        return text

    def save(self, folder: str | Path) -> None:
        """Write `folder/tokenizer.json`."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / "tokenizer.json").write_text(
            self._backend.to_str(pretty=False), encoding="utf-8"
        )

    def save_tables(self, folder: str | Path) -> None:
        """Write Qwen2's own files: `vocab.json`, `merges.txt` and `tokenizer_config.json`.

        `load` reads them back where there is no `tokenizer.json`, with the same ids. Raises
        ValueError for a tokenizer that is no byte-level BPE, which these files cannot hold.
        """
        content = json.loads(self._backend.to_str())
        model = content["model"]
        if model["type"] != "BPE":
            raise ValueError(f"a {model['type']} tokenizer cannot be written as vocab and merges")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        merges = "".join(f"{first} {second}\n" for first, second in model["merges"])
        added = {str(token.pop("id")): token for token in content["added_tokens"]}
        config = {
            "tokenizer_class": "Qwen2Tokenizer",
            "added_tokens_decoder": added,
            "additional_special_tokens": list(MARKER_NAMES),
        }
        (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}", encoding="utf-8")
        for name, table in (("vocab.json", model["vocab"]), ("tokenizer_config.json", config)):
            (folder / name).write_text(json.dumps(table, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> Tokenizer:
        """Read `tokenizer.json`, or else `vocab.json` and `merges.txt`, of a folder.

        Raises ValueError naming the file that is missing or cannot be used.
        """
        import tokenizers

        folder = Path(folder)
        whole, vocab, merges = (
            folder / name for name in ("tokenizer.json", "vocab.json", "merges.txt")
        )
        if whole.is_file():
            try:
                backend = tokenizers.Tokenizer.from_str(whole.read_text(encoding="utf-8"))
            except Exception as error:  # tokenizers raises bare Exception for a malformed file
                raise ValueError(f"{whole} is not a tokenizer file: {error}") from error
            return cls(backend)
        if vocab.is_file() and merges.is_file():
            return cls(_from_tables(vocab, merges, folder / "tokenizer_config.json"))
        raise ValueError(
            f"no tokenizer in {folder}: it needs tokenizer.json, or vocab.json and merges.txt"
        )

    def __getstate__(self) -> str:
        return str(self._backend.to_str())

    def __setstate__(self, state: str) -> None:
        import tokenizers

        Tokenizer.__init__(self, tokenizers.Tokenizer.from_str(state))


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learn merges from `texts` until there are `vocab_size` ids, the four markers included.

    Few or short texts may run out of pairs before that, so read the size with `len`.
    Raises ValueError where `vocab_size` cannot hold all bytes and markers.
    """
    from tokenizers import models, pre_tokenizers, trainers

    if vocab_size < _BYTES + len(MARKER_NAMES):
        raise ValueError(
            f"vocab_size must be at least {_BYTES + len(MARKER_NAMES)} "
            f"(all bytes and the markers), got {vocab_size}"
        )
    backend = _backend(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(MARKER_NAMES),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return Tokenizer(backend)


def _backend(model: Any) -> tokenizers.Tokenizer:
    import tokenizers
    from tokenizers import Regex, decoders, normalizers, pre_tokenizers

    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def _from_tables(vocab: Path, merges: Path, config: Path) -> tokenizers.Tokenizer:
    """A tokenizer from Qwen2's files; `config`, where it exists, lists the tokens added to them."""
    from tokenizers import models

    table = _read_json(vocab)
    lines = merges.read_text(encoding="utf-8").splitlines()
    pairs: list[tuple[str, str]] = []
    for line in lines:
        if not line or line.startswith("#version"):
            continue
        pieces = line.split(" ")
        if len(pieces) != 2:
            raise ValueError(f"{merges}: a merge is two pieces with a space between, got {line!r}")
        # Checked here because tokenizers panics, past any `except Exception`, where one is missing.
        for piece in (*pieces, "".join(pieces)):
            if piece not in table:
                raise ValueError(f"{merges} does not fit {vocab}: {piece!r} has no id there")
        pairs.append((pieces[0], pieces[1]))
    backend = _backend(models.BPE(vocab=table, merges=pairs))
    added = {len(table): _special(_END_OF_TEXT)} if _END_OF_TEXT not in table else {}
    if config.is_file():
        listed = _read_json(config).get("added_tokens_decoder", {})
        added |= {int(number): _added_token(entry) for number, entry in listed.items()}
    for number, token in sorted(added.items()):
        (backend.add_special_tokens if token.special else backend.add_tokens)([token])
        if backend.token_to_id(token.content) != number:
            raise ValueError(
                f"{config}: {token.content} should be id {number}, comes out as "
                f"{backend.token_to_id(token.content)}"
            )
    return backend


def _special(name: str) -> tokenizers.AddedToken:
    from tokenizers import AddedToken

    return AddedToken(name, special=True, normalized=False)


def _added_token(entry: dict[str, Any]) -> tokenizers.AddedToken:
    """A token as tokenizer_config.json lists it: one that is not special is found in texts."""
    from tokenizers import AddedToken

    return AddedToken(
        entry["content"],
        special=entry.get("special", True),
        normalized=entry.get("normalized", False),
        lstrip=entry.get("lstrip", False),
        rstrip=entry.get("rstrip", False),
        single_word=entry.get("single_word", False),
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object")
    return content
