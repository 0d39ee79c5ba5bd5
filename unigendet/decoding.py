"""Answers, token by token, and the verdict read at the first one (specification 8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unigendet.models.cache import KVCache
from unigendet.models.queries import step_query
from unigendet.models.unified import UniGenDetModel
from unigendet.types import Markers

FAKE_LOGIT = 0
"""The published verdict head orders its logits [fake, real]."""


@dataclass(frozen=True, slots=True)
class DecodingConfig:
    """How an answer is chosen. Temperature 0 is greedy; otherwise one draw per token."""

    max_tokens: int = 128
    """Words of the answer at most, the end marker not counted."""
    temperature: float = 0.0
    top_k: int = 0
    """Draw among so many of the likeliest tokens only; 0 for all."""
    top_p: float = 1.0
    """Draw among the fewest tokens that hold this much probability."""
    repetition_penalty: float = 1.0
    """Above 1, words that the answer has already are less likely: a positive logit is divided by
    it, a negative one multiplied. 1 is off."""

    def __post_init__(self) -> None:
        if self.max_tokens < 0 or self.temperature < 0 or self.top_k < 0:
            raise ValueError("max_tokens, temperature and top_k must not be negative")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")
        if not self.repetition_penalty > 0:
            raise ValueError(
                f"repetition_penalty must be above 0 (1 is off), got {self.repetition_penalty}"
            )


@dataclass(frozen=True, slots=True)
class Answers:
    """What B contexts were answered."""

    ids: tuple[tuple[int, ...], ...]
    """The words of each answer, without markers."""
    det_logits: Tensor
    """(B, 2): the verdict head at bos, class 0 = fake, 1 = real."""

    @property
    def scores(self) -> Tensor:
        """(B,): P(fake) in [0, 1]."""
        return self.det_logits.float().softmax(dim=1)[:, FAKE_LOGIT]


@torch.no_grad()
def decode_answers(
    model: UniGenDetModel,
    cache: KVCache,
    markers: Markers,
    config: DecodingConfig,
    generator: torch.Generator | None = None,
) -> Answers:
    """Verdicts and answers of all contexts of `cache`, which has read image and question.

    With `max_tokens` 0 the verdict alone is read. An answer ends at its eos, or at `max_tokens`.
    The cache is used up. `generator` is needed where the temperature is above 0.
    """
    if config.temperature > 0 and generator is None:
        raise ValueError("sampled decoding (temperature above 0) needs a generator")
    words: list[list[int]] = [[] for _ in range(cache.batch_size)]
    contexts = list(range(cache.batch_size))  # whose answers the cache's rows are
    finished = [False] * cache.batch_size
    ids = torch.full((cache.batch_size,), markers.bos, device=cache.valid.device)
    hidden = model.forward_cached(step_query(ids), cache).und  # (B, hidden)
    det_logits = model.det_logits(hidden)
    for count in range(1, config.max_tokens + 1):
        logits = model.text_logits(hidden)
        if config.repetition_penalty != 1:
            said = [words[context] for context in contexts]
            logits = penalised(logits, said, config.repetition_penalty)
        ids = choose_tokens(logits, config, generator)
        for context, token in zip(contexts, ids.tolist(), strict=True):
            finished[context] = finished[context] or token == markers.eos
            if not finished[context]:
                words[context].append(token)
        rows = [row for row, context in enumerate(contexts) if not finished[context]]
        if not rows or count == config.max_tokens:
            break
        if len(rows) <= len(contexts) // 2:  # a copy of the cache costs less than idle rows
            kept = torch.tensor(rows, device=ids.device)
            cache, ids, contexts = cache.select(kept), ids[kept], [contexts[row] for row in rows]
        hidden = model.forward_cached(step_query(ids), cache).und
    return Answers(tuple(tuple(answer) for answer in words), det_logits)


def penalised(logits: Tensor, said: Sequence[Sequence[int]], penalty: float) -> Tensor:
    """Logits (B, vocabulary) with the tokens of `said[i]` made less likely in row i."""
    rows = [row for row, tokens in enumerate(said) for _ in set(tokens)]
    columns = [token for tokens in said for token in set(tokens)]
    changed = logits.clone()
    found = logits[rows, columns]
    changed[rows, columns] = torch.where(found > 0, found / penalty, found * penalty)
    return changed


def choose_tokens(
    logits: Tensor, config: DecodingConfig, generator: torch.Generator | None
) -> Tensor:
    """(B,) int64 ids from next-token logits (B, vocabulary), greedily or drawn with `generator`."""
    if config.temperature == 0:
        return logits.argmax(dim=1)
    logits = logits.float() / config.temperature
    if config.top_k:
        least = logits.topk(min(config.top_k, logits.shape[1]), dim=1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    probabilities = logits.softmax(dim=1)
    if config.top_p < 1:
        falling, order = probabilities.sort(dim=1, descending=True)
        # A token stays where those before it hold less than top_p: at least the first one.
        falling = falling.masked_fill(falling.cumsum(1) - falling >= config.top_p, 0.0)
        probabilities = torch.zeros_like(probabilities).scatter_(1, order, falling)
    return torch.multinomial(probabilities, 1, generator=generator).flatten()
