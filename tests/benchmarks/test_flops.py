"""The counted arithmetic against what torch counts where it runs."""

from __future__ import annotations

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.detection import detect, detection_work
from benchmarks.flops import model_work, pack_work
from benchmarks.workload import Samples, markers, miniature
from tests.models.tiny import NoiseLatents, mixed_plans, tiny_config, tiny_model, tiny_pack
from unigendet.models.attention import PackAttention, plan_images
from unigendet.models.vae import LatentAutoencoder
from unigendet.objectives import GdufObjective
from unigendet.types import Split


def test_linear_layers_of_a_training_step() -> None:
    """torch leaves out the fused attention; inputs that are data need no gradient."""
    model, batch = tiny_model(), tiny_pack(mixed_plans())
    work = pack_work(model, batch)
    linear = work.forward - work.attention
    with FlopCounterMode(display=False) as forward:
        losses = GdufObjective(NoiseLatents())(model, batch)
    assert forward.get_total_flops() == linear
    with FlopCounterMode(display=False) as backward:
        losses.total.backward()
    embedding = model.vit_model.vision_model.embeddings.patch_embedding.weight
    timestep = model.time_embedder.mlp[0].weight
    data = [
        (embedding, batch.vit_tokens),
        (model.vae2llm.weight, batch.latent_indexes),
        (timestep, batch.raw_timesteps),
    ]
    spared = sum(2 * weight.numel() * len(tokens) for weight, tokens in data)
    assert backward.get_total_flops() == 2 * linear - spared
    assert work.training == 3 * (linear + work.attention)


def test_attention_without_masks() -> None:
    """Whole images see all of themselves, so torch's dense count is the count of visible pairs."""
    config = tiny_config().vit
    shapes = [(4, 5), (6, 6)]
    samples = [(Split(rows * columns, "full"),) for rows, columns in shapes]
    work = model_work(tiny_model(), [], shapes, latents=0, images=0)
    heads, width = config.num_attention_heads, config.hidden_size
    q, k, v = torch.randn(3, sum(s[0].length for s in samples), heads, width // heads)
    attend = PackAttention(plan_images(shapes), torch.float32)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        attend(q, k, v, 0)
    assert work.attention == config.num_hidden_layers * counter.get_total_flops()


def test_only_visible_pairs_count() -> None:
    """Text sees backwards; nobody but itself sees a noised image."""
    model = tiny_model()
    config = model.config.llm
    per_pair = 4 * config.hidden_size * config.num_hidden_layers
    sample = (Split(3, "causal"), Split(4, "noise"), Split(2, "causal"))
    work = model_work(model, [sample] * 5, [], latents=10, images=5)
    assert work.attention == 5 * (6 + 4 * 7 + (3 + 1) + (3 + 2)) * per_pair


def test_pairs_of_what_is_only_read() -> None:
    """In the last layer only the answer's tokens ask."""
    model = tiny_model()
    config = model.config.llm
    sample = (Split(4, "full"), Split(2, "causal"), Split(3, "causal"))
    asked = (16 + (5 + 6), 7 + 8 + 9)
    work = model_work(model, [sample] * 5, [], latents=10, images=5, only_read=2)
    pairs = (config.num_hidden_layers - 1) * sum(asked) + asked[1]
    assert work.attention == 5 * pairs * 4 * config.hidden_size


def test_linear_layers_of_detection() -> None:
    """Read block by block through a cache, with an explanation of a given length."""
    model = tiny_model(miniature())
    vae, marks = LatentAutoencoder(model.config.vae).eval(), markers(model.config)
    samples = Samples(model.config, 64, torch.Generator().manual_seed(0))
    contexts = [samples.question() for _ in range(2)]
    for tokens in (0, 5):
        with FlopCounterMode(display=False) as counter:
            answers = detect(model, vae, marks, contexts, tokens)
        counted = {str(op): flops for op, flops in counter.get_flop_counts()["Global"].items()}
        work = detection_work(model, 64, 2, tokens)
        assert counted["aten.mm"] + counted["aten.addmm"] == work.forward - work.attention
        assert [len(ids) for ids in answers.ids] == [tokens] * 2
