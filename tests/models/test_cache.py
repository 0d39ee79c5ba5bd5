"""Cached inference: many contexts at once equal one at a time, and equal the training forward."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.models.tiny import MARKERS, image, tiny_config, tiny_model, tiny_pack, words
from unigendet.data.packing import ImageItem, SamplePlan, TextItem
from unigendet.flow import patchify_latents
from unigendet.models.cache import KVCache
from unigendet.models.queries import latent_query, step_query, text_query, vit_query
from unigendet.models.unified import UniGenDetModel

CONFIG = tiny_config()
LATENT, VIT = 4, 6


def _texts(*counts: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    return [[MARKERS.bos, *words(generator, count), MARKERS.eos] for count in counts]


def _pictures(*sizes: tuple[int, int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(4)
    return [image(generator, *size) for size in sizes]


def _latent_tokens(pictures: list[Tensor]) -> tuple[list[Tensor], list[tuple[int, int]]]:
    generator = torch.Generator().manual_seed(5)
    shapes = [(p.shape[1] // LATENT, p.shape[2] // LATENT) for p in pictures]
    return [torch.randn(h * w, 12, generator=generator) for h, w in shapes], shapes


def _read(model: UniGenDetModel, contexts: list[int]) -> KVCache:
    """Contexts out of three: latents, ViT image, question; sizes and lengths differ."""
    pictures = _pictures((12, 12), (24, 12), (12, 36))
    tokens, shapes = _latent_tokens(pictures)
    questions = _texts(3, 9, 1)
    cache = model.new_cache(len(contexts))
    chosen = torch.cat([tokens[i] for i in contexts])
    model.read(latent_query(chosen, [shapes[i] for i in contexts], CONFIG, MARKERS), cache)
    model.read(vit_query([pictures[i] for i in contexts], CONFIG, MARKERS), cache)
    model.read(text_query([questions[i] for i in contexts]), cache)
    return cache


def _decode(model: UniGenDetModel, cache: KVCache, answers: list[list[int]]) -> Tensor:
    """Hidden states (B, steps, hidden) of given answers, a token of every context per step."""
    steps = [
        model.forward_cached(step_query(torch.tensor(ids)), cache).und
        for ids in zip(*answers, strict=True)
    ]
    return torch.stack(steps, dim=1)


def test_batched_ragged_equals_one_by_one() -> None:
    model = tiny_model(CONFIG)
    answers = [text[:5] for text in _texts(7, 8, 9)]
    together = _read(model, [0, 1, 2])
    assert together.lengths.tolist() == [11 + 6 + 5, 20 + 10 + 11, 29 + 14 + 3]
    assert together.next_position.tolist() == [2 + 5, 2 + 11, 2 + 3]
    hidden = _decode(model, together, answers)
    for index in range(3):
        alone = _read(model, [index])
        expected = _decode(model, alone, answers[index : index + 1])
        torch.testing.assert_close(hidden[index], expected[0], atol=1e-5, rtol=1e-4)
        for layer in range(CONFIG.llm.num_hidden_layers):
            for part, wanted in zip(
                together.content(layer, index), alone.content(layer, 0), strict=True
            ):
                torch.testing.assert_close(part, wanted, atol=1e-5, rtol=1e-4)


def test_reading_leaves_what_a_forward_leaves() -> None:
    """Without the hidden states, all layers' keys and values are the same bits."""
    model = tiny_model(CONFIG)
    pictures = _pictures((12, 12), (24, 12))
    tokens, shapes = _latent_tokens(pictures)
    queries = [
        latent_query(torch.cat(tokens), shapes, CONFIG, MARKERS),
        vit_query(pictures, CONFIG, MARKERS),
        text_query(_texts(3, 9)),
    ]
    read, computed = model.new_cache(2), model.new_cache(2)
    for query in queries:
        model.read(query, read)
        model.forward_cached(query, computed)
    assert read.lengths.tolist() == computed.lengths.tolist()
    assert read.next_position.tolist() == computed.next_position.tolist()
    for mine, wanted in zip(read.keys + read.values, computed.keys + computed.values, strict=True):
        assert torch.equal(mine[:, :, : read.length], wanted[:, :, : read.length])


def test_equals_training_forward() -> None:
    """Reading, then decoding given words, gives the logits and verdicts of one training forward."""
    model = tiny_model(CONFIG)
    answers = [text[:5] for text in _texts(7, 8, 9)]
    hidden = _decode(model, _read(model, [0, 1, 2]), answers)
    pictures = _pictures((12, 12), (24, 12), (12, 36))
    tokens, _ = _latent_tokens(pictures)
    plans = [
        SamplePlan(
            [
                ImageItem("vae", picture),
                ImageItem("vit", picture),
                TextItem(question[1:-1]),
                TextItem(answer[1:], loss=True),
            ],
            fake=True,
        )
        for picture, question, answer in zip(pictures, _texts(3, 9, 1), answers, strict=True)
    ]
    batch = tiny_pack(plans, CONFIG)
    # Put the same latents in: patchify what the noise of the posterior would be.
    latents = batch.posterior_noise.clone()
    for image_latent, own, (h, w) in zip(latents, tokens, batch.latent_shapes, strict=True):
        cells = own.reshape(h, w, 2, 2, 3).permute(4, 0, 2, 1, 3).reshape(3, 2 * h, 2 * w)
        image_latent[:, : 2 * h, : 2 * w] = cells
    torch.testing.assert_close(patchify_latents(latents, batch.latent_shapes, 2), torch.cat(tokens))
    output = model(batch, latents)
    torch.testing.assert_close(
        model.text_logits(hidden).flatten(0, 1), output.ce_logits, atol=2e-5, rtol=1e-4
    )
    torch.testing.assert_close(
        model.det_logits(hidden[:, 0]), output.det_logits, atol=2e-5, rtol=1e-4
    )


def test_velocity_equals_training_forward_and_leaves_the_cache_alone() -> None:
    model = tiny_model(CONFIG)
    texts, pictures = _texts(2, 6), _pictures((12, 24), (12, 12))
    plans = [
        SamplePlan([TextItem(text[1:-1]), ImageItem("vae", picture, loss=True)])
        for text, picture in zip(texts, pictures, strict=True)
    ]
    batch = tiny_pack(plans, CONFIG)
    expected = model(batch, batch.posterior_noise)
    cache = model.new_cache(2)
    model.forward_cached(text_query(texts), cache)
    before = [cache.content(layer, 1)[0].clone() for layer in range(3)]
    query = latent_query(torch.zeros_like(expected.x_t), batch.latent_shapes, CONFIG, MARKERS)
    query = query.at(expected.x_t, expected.timesteps)
    for _ in range(2):
        hidden = model.forward_cached(query, cache, store=False)
        velocity = model.velocity(hidden.gen)
        torch.testing.assert_close(velocity, expected.velocity, atol=2e-5, rtol=1e-4)
    assert cache.lengths.tolist() == [4, 8] and cache.next_position.tolist() == [4, 8]
    for layer, key in enumerate(before):
        assert torch.equal(cache.content(layer, 1)[0], key)


def test_contexts_without_a_block_read_nothing() -> None:
    """Reading a block in one context only equals never having offered it to the others."""
    model = tiny_model(CONFIG)
    texts = _texts(4, 4)
    cache = model.new_cache(2)
    model.forward_cached(text_query([texts[0], None]), cache)
    (picture,) = _pictures((12, 12))
    model.forward_cached(vit_query([None, picture], CONFIG, MARKERS), cache)
    assert cache.lengths.tolist() == [6, 6] and cache.next_position.tolist() == [6, 1]
    step = model.forward_cached(step_query(torch.tensor([60, 60])), cache).und
    alone = model.new_cache(1)
    model.forward_cached(vit_query([picture], CONFIG, MARKERS), alone)
    expected = model.forward_cached(step_query(torch.tensor([60])), alone).und
    torch.testing.assert_close(step[1], expected[0], atol=1e-5, rtol=1e-4)


def test_an_empty_context_is_no_context() -> None:
    """The unconditional branch of guidance: finite, and equal to a pack without text."""
    model = tiny_model(CONFIG)
    (picture,) = _pictures((12, 12))
    batch = tiny_pack([SamplePlan([ImageItem("vae", picture, loss=True)])], CONFIG)
    expected = model(batch, batch.posterior_noise)
    query = latent_query(expected.x_t, batch.latent_shapes, CONFIG, MARKERS, expected.timesteps)
    hidden = model.forward_cached(query, model.new_cache(1), store=False)
    torch.testing.assert_close(model.velocity(hidden.gen), expected.velocity, atol=2e-5, rtol=1e-4)


def test_copies_select_and_join() -> None:
    model = tiny_model(CONFIG)
    cache = _read(model, [0, 1, 2])
    copy = cache.clone()
    ids = torch.tensor([5, 6, 7])
    after = model.forward_cached(step_query(ids), cache).und
    assert copy.lengths.tolist() == (cache.lengths - 1).tolist()
    chosen = torch.tensor([2, 0, 2])
    part = copy.select(chosen)
    again = model.forward_cached(step_query(ids[chosen]), part).und
    torch.testing.assert_close(again, after[chosen], atol=1e-5, rtol=1e-4)
    both = KVCache.join([model.new_cache(1), copy])
    joined = model.forward_cached(step_query(torch.tensor([9, 5, 6, 7])), both).und
    torch.testing.assert_close(joined[1:], after, atol=1e-5, rtol=1e-4)
    empty = model.forward_cached(step_query(torch.tensor([9])), model.new_cache(1)).und
    torch.testing.assert_close(joined[0], empty[0], atol=1e-5, rtol=1e-4)


def test_query_and_cache_must_agree() -> None:
    model = tiny_model(CONFIG)
    with pytest.raises(ValueError, match="2 contexts, the cache holds 1"):
        model.forward_cached(text_query(_texts(1, 2)), model.new_cache(1))
    with pytest.raises(ValueError, match="2 contexts, the cache holds 1"):
        model.read(text_query(_texts(1, 2)), model.new_cache(1))


def test_interpolated_positions_reach_inference() -> None:
    config = replace(CONFIG, interpolate_pos=True)
    plain = vit_query(_pictures((12, 12)), CONFIG, MARKERS).vit_position_ids
    stretched = vit_query(_pictures((12, 12)), config, MARKERS).vit_position_ids
    assert plain.tolist() == [0, 1, 6, 7] and stretched.tolist() == [0, 3, 18, 21]
