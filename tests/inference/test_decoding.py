"""Choosing tokens, ending answers, and that neighbours in a batch change nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unigendet import prefill
from unigendet.data.packing import ImageItem, TextItem
from unigendet.data.prompts import detection_context
from unigendet.decoding import DecodingConfig, choose_tokens, decode_answers, penalised
from unigendet.inference import UniGenDet
from unigendet.models.queries import step_query
from unigendet.prefill import read_contexts


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_greedy_takes_the_likeliest() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    assert choose_tokens(logits, DecodingConfig(), None).tolist() == [1, 0]


def test_draws_follow_the_probabilities() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.2])
    logits = (probabilities.log() * 2).expand(20_000, 3)  # temperature 2 undoes the factor
    drawn = choose_tokens(logits, DecodingConfig(temperature=2.0), _generator())
    shares = torch.bincount(drawn, minlength=3) / 20_000
    torch.testing.assert_close(shares, probabilities, atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("config", "allowed"),
    [
        (DecodingConfig(temperature=1.0, top_k=2), {0, 1}),
        (DecodingConfig(temperature=1.0, top_k=99), {0, 1, 2, 3}),
        (DecodingConfig(temperature=1.0, top_p=0.4), {0}),
        (DecodingConfig(temperature=1.0, top_p=0.6), {0, 1}),
        (DecodingConfig(temperature=1.0, top_p=1.0), {0, 1, 2, 3}),
    ],
)
def test_draws_stay_among_the_likeliest(config: DecodingConfig, allowed: set[int]) -> None:
    logits = torch.tensor([0.45, 0.25, 0.2, 0.1]).log().expand(2000, 4)
    assert set(choose_tokens(logits, config, _generator()).tolist()) == allowed


def test_said_tokens_are_less_likely_whatever_their_sign() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5], [2.0, -1.0, 0.5]])
    expected = torch.tensor([[1.0, -2.0, 0.5], [2.0, -1.0, 0.25]])
    assert torch.equal(penalised(logits, [[0, 1, 0], [2]], 2.0), expected)
    assert torch.equal(penalised(logits, [[], []], 2.0), logits)


def test_a_strong_penalty_repeats_no_word(small: UniGenDet, pictures: list[np.ndarray]) -> None:
    context = detection_context(pictures[0], small.tokenizer, small.config)

    def words(penalty: float) -> tuple[int, ...]:
        cache = read_contexts(small.model, small.vae, small.tokenizer.markers, [context])
        config = DecodingConfig(max_tokens=12, repetition_penalty=penalty)
        return decode_answers(small.model, cache, small.tokenizer.markers, config).ids[0]

    plain, varied = words(1.0), words(1e6)
    assert len(set(varied)) == len(varied)
    assert plain[:1] == varied[:1]  # nothing was said before the first


def test_an_answer_is_what_stepwise_greedy_reading_gives(
    small: UniGenDet, pictures: list[np.ndarray]
) -> None:
    markers = small.tokenizer.markers
    context = detection_context(pictures[0], small.tokenizer, small.config)
    cache = read_contexts(small.model, small.vae, markers, [context])
    token, words = markers.bos, []
    for _ in range(12):
        hidden = small.model.forward_cached(step_query(torch.tensor([token])), cache).und
        token = int(small.model.text_logits(hidden).argmax())
        if token == markers.eos:
            break
        words.append(token)
    cache = read_contexts(small.model, small.vae, markers, [context])
    answers = decode_answers(small.model, cache, markers, DecodingConfig(max_tokens=12))
    assert list(answers.ids[0]) == words


def test_images_encoded_in_groups_keep_their_own_draws(
    small: UniGenDet, pictures: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five images of one size, two at a time: as if each had been alone."""
    markers, generator = small.tokenizer.markers, _generator()
    contexts = [
        detection_context(np.roll(pictures[0], 3 * shift, axis=1), small.tokenizer, small.config)
        for shift in range(5)
    ]
    (item,) = (item for item in contexts[0] if isinstance(item, ImageItem) and item.kind == "vae")
    latent = small.vae.encode(item.pixels[None]).shape[1:]
    noise = [torch.randn(latent, generator=generator) for _ in contexts]
    monkeypatch.setattr(prefill, "_ENCODED_TOGETHER", 2)
    together = read_contexts(small.model, small.vae, markers, contexts, noise)
    for index, context in enumerate(contexts):
        alone = read_contexts(small.model, small.vae, markers, [context], [noise[index]])
        for found, expected in zip(together.content(1, index), alone.content(1, 0), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_answers_end_at_eos_one_by_one(small: UniGenDet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contexts end at different steps, rows are dropped on the way, each keeps its own answer."""
    markers, vocabulary = small.tokenizer.markers, small.config.llm.vocab_size
    lengths = [5, 1, 0, 9, 3, 2]
    contexts = [[TextItem([10 + index])] for index in range(len(lengths))]
    cache = read_contexts(small.model, small.vae, markers, contexts)
    start = cache.next_position.clone()
    sizes = []

    def scripted(hidden: torch.Tensor) -> torch.Tensor:
        """Every answer repeats a token that tells its context, and ends at its length."""
        logits = torch.zeros(hidden.shape[0], vocabulary)
        sizes.append(hidden.shape[0])
        step = len(sizes) - 1
        rows = [i for i in range(len(lengths)) if i in alive[-1]]
        for row, context in enumerate(rows):
            ended = step >= lengths[context]
            logits[row, markers.eos if ended else 100 + context] = 1
        left = [i for i in rows if step < lengths[i]]
        alive.append(left if len(left) <= len(rows) // 2 else rows)
        return logits

    alive = [list(range(len(lengths)))]
    monkeypatch.setattr(small.model, "text_logits", scripted)
    answers = decode_answers(small.model, cache, markers, DecodingConfig(max_tokens=7))
    expected = [(100 + i,) * min(length, 7) for i, length in enumerate(lengths)]
    assert list(answers.ids) == expected
    assert sizes[0] == 6 and sizes[-1] < 3
    assert bool((cache.next_position >= start).all())


def test_no_tokens_gives_the_verdict_alone(small: UniGenDet) -> None:
    markers = small.tokenizer.markers
    read = [[TextItem([1, 2])], [TextItem([3])]]
    full, verdicts = (
        decode_answers(
            small.model,
            read_contexts(small.model, small.vae, markers, read),
            markers,
            DecodingConfig(max_tokens=count),
        )
        for count in (4, 0)
    )
    assert verdicts.ids == ((), ())
    torch.testing.assert_close(verdicts.det_logits, full.det_logits)
    torch.testing.assert_close(verdicts.scores, verdicts.det_logits.softmax(1)[:, 0])


def test_draws_repeat_with_their_generator(small: UniGenDet) -> None:
    markers = small.tokenizer.markers
    config = DecodingConfig(max_tokens=10, temperature=5.0)

    def drawn(seed: int) -> tuple[tuple[int, ...], ...]:
        cache = read_contexts(small.model, small.vae, markers, [[TextItem([5])]] * 3)
        generator = torch.Generator().manual_seed(seed)
        return decode_answers(small.model, cache, markers, config, generator).ids

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_wrong_settings_are_refused(small: UniGenDet) -> None:
    with pytest.raises(ValueError, match="negative"):
        DecodingConfig(temperature=-1)
    with pytest.raises(ValueError, match="top_p"):
        DecodingConfig(top_p=0)
    cache = read_contexts(small.model, small.vae, small.tokenizer.markers, [[TextItem([5])]])
    with pytest.raises(ValueError, match="needs a generator"):
        decode_answers(small.model, cache, small.tokenizer.markers, DecodingConfig(temperature=1))
