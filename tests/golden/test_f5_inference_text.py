"""F5: contexts in the cache, the verdict, greedy answers, and the same by the training forward."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.golden.fixtures import Case, close, exact, inference_items
from unigendet.data.packing import SamplePlan, TextItem, pack
from unigendet.data.tokenizer import Tokenizer
from unigendet.decoding import DecodingConfig, decode_answers
from unigendet.models.cache import KVCache
from unigendet.models.queries import step_query
from unigendet.models.unified import UniGenDetModel
from unigendet.models.vae import LatentAutoencoder
from unigendet.prefill import read_contexts

FIXTURE = "F5_*/*"


@pytest.fixture
def cache(
    case: Case,
    golden_model: UniGenDetModel,
    golden_vae: LatentAutoencoder,
    golden_tokenizer: Tokenizer,
) -> KVCache:
    items = inference_items(case, golden_model.config, golden_tokenizer)
    noise = list(case["in.vae_noise"]) if "in.vae_noise" in case else None
    return read_contexts(golden_model, golden_vae, golden_tokenizer.markers, [items], noise)


def test_prefill(case: Case, cache: KVCache) -> None:
    context = case.value("context")
    assert cache.lengths.tolist() == [context["kv_len"]]
    assert cache.next_position.tolist() == [context["rope"]]
    for name in case.names(r"kv\.key\.\d+"):
        layer = int(name.rsplit(".", 1)[1])
        keys, values = cache.content(layer, 0)
        close(keys, case[name], name)
        close(values, case[f"kv.value.{layer}"], f"kv.value.{layer}")


def test_tokens_are_the_stored_ones(case: Case, golden_tokenizer: Tokenizer) -> None:
    stored = [
        case[f"prefill.{place}.packed_text_ids"]
        for place, step in enumerate(case.value("prefill.steps"))
        if step["op"] == "text"
    ]
    texts = [item["text"] for item in case.value("inputs") if item["type"] == "text"]
    markers = golden_tokenizer.markers
    for text, ids in zip(texts, stored, strict=True):
        exact([markers.bos, *golden_tokenizer.encode(text), markers.eos], ids, text)


def test_every_step(case: Case, cache: KVCache, golden_model: UniGenDetModel) -> None:
    for step, token in enumerate(case["out.token_ids"]):
        hidden = golden_model.forward_cached(step_query(token[None]), cache).und
        close(hidden[0], case["out.hidden"][step], f"hidden state of step {step}")
        close(golden_model.text_logits(hidden)[0], case["out.logits"][step], f"logits {step}")
        if step == 0:
            close(golden_model.det_logits(hidden), case["out.cls_logits"], "verdict")


def test_greedy_answer(
    case: Case, cache: KVCache, golden_model: UniGenDetModel, golden_tokenizer: Tokenizer
) -> None:
    # The stored ids are bos and what followed: `max_length` counts bos too.
    config = DecodingConfig(max_tokens=case.document["max_length"] - 1)
    answers = decode_answers(golden_model, cache, golden_tokenizer.markers, config)
    close(answers.det_logits, case["out.cls_logits"], "verdict")
    close(answers.scores, case["out.cls_logits"].softmax(1)[:, 0], "P(fake)")
    exact([golden_tokenizer.markers.bos, *answers.ids[0]], case["out.token_ids"], "answer")
    assert golden_tokenizer.decode(answers.ids[0]) == case.value("decoded")


def test_training_forward_agrees(
    case: Case, golden_model: UniGenDetModel, golden_tokenizer: Tokenizer
) -> None:
    config, markers = golden_model.config, golden_tokenizer.markers
    items = inference_items(case, config, golden_tokenizer)
    answer = TextItem(case["out.token_ids"][1:].tolist(), loss=True)
    plan = SamplePlan([*items, answer], fake=True)
    batch = pack([plan], config, markers, torch.Generator().manual_seed(0))
    if "in.latent" in case:
        latents = case["in.latent"]
    else:
        latents = torch.zeros(0, config.vae.latent_channels, 0, 0)
    output = golden_model(batch, latents)
    close(output.ce_logits, case["out.teacher_forced_logits"], "logits")
    close(output.det_logits, case["out.teacher_forced_cls_logits"], "verdict")


def test_contexts_of_other_lengths_beside_it_change_nothing(
    case: Case,
    golden_model: UniGenDetModel,
    golden_vae: LatentAutoencoder,
    golden_tokenizer: Tokenizer,
) -> None:
    config, markers = golden_model.config, golden_tokenizer.markers
    items = inference_items(case, config, golden_tokenizer)
    noise = list(case["in.vae_noise"]) if "in.vae_noise" in case else []
    shifted = [replace(item, pixels=-item.pixels) for item in items if hasattr(item, "pixels")]
    contexts = [[TextItem([1, 2, 3])], items, [], [*shifted, TextItem([4])]]
    cache = read_contexts(golden_model, golden_vae, markers, contexts, [*noise, *noise])
    limit = DecodingConfig(max_tokens=case.document["max_length"] - 1)
    answers = decode_answers(golden_model, cache, markers, limit)
    close(answers.det_logits[1:2], case["out.cls_logits"], "verdict")
    exact([markers.bos, *answers.ids[1]], case["out.token_ids"], "answer")
