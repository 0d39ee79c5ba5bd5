"""Detection of many images at once on a CPU: the verdict alone, and with an explanation.

    python -m benchmarks.detection [--images 64] [--tokens 60] [--rounds 5] [--threads 2] [--json]

The model has the sizes of profile `tiny` and random weights; every explanation is made to last
`--tokens` tokens. Timed from pixel tensors to scores and token ids: autoencoder, image encoder,
prefill, decoding. `ratio` holds images/s against what the machine's own matrix product (float32,
measured in turns with it) would allow for the FLOPs of the tokens; the autoencoder's time counts,
its FLOPs do not.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

import torch

from benchmarks.flops import Work, autoencoder_flops, model_work
from benchmarks.report import machine, show
from benchmarks.timing import Matmul, taking_turns
from benchmarks.workload import QUESTION_WORDS, Samples, markers, miniature, tiny
from unigendet.config import ModelConfig
from unigendet.decoding import Answers, DecodingConfig, decode_answers
from unigendet.models.unified import UniGenDetModel
from unigendet.models.vae import LatentAutoencoder
from unigendet.prefill import Item, read_contexts
from unigendet.types import Encoder, Markers, Split

CPU = torch.device("cpu")
SIZE = 64
"""Pixels a side."""


def detect(
    model: UniGenDetModel,
    vae: Encoder,
    marks: Markers,
    contexts: Sequence[Sequence[Item]],
    tokens: int,
) -> Answers:
    """Judge the contexts' images and explain each verdict in exactly `tokens` tokens."""
    cache = read_contexts(model, vae, marks, contexts, room=max(1, tokens))
    endless = replace(marks, eos=-1)  # no token has this id, so no answer ends early
    return decode_answers(model, cache, endless, DecodingConfig(max_tokens=tokens))


def detection_work(model: UniGenDetModel, size: int, images: int, tokens: int) -> Work:
    """The work of `detect`: an answer reads bos and all its words but the last.

    Image and question are read for their keys and values, without the rest of the last layer.
    """
    config = model.config
    latents = (size // (config.vae.downsample * config.latent_patch_size)) ** 2
    patches = size // config.vit.patch_size
    blocks = (
        Split(latents + 2, "full"),
        Split(patches**2 + 2, "full"),
        Split(QUESTION_WORDS + 2, "causal"),
        Split(max(1, tokens), "causal"),
    )
    return model_work(
        model,
        [blocks] * images,
        [(patches, patches)] * images,
        latents=latents * images,
        images=images,
        logits=tokens * images,
        verdicts=images,
        only_read=3,
    )


def measure(
    config: ModelConfig, *, images: int, alone: int, tokens: int, rounds: int
) -> dict[str, object]:
    """Figures of judging `images` images in one batch, and `alone` of them one at a time."""
    torch.manual_seed(0)
    model = UniGenDetModel(config).eval()
    vae = LatentAutoencoder(config.vae).eval()
    marks = markers(config)
    samples = Samples(config, SIZE, torch.Generator().manual_seed(0))
    contexts = [samples.question() for _ in range(images)]
    matmul = Matmul(torch.float32, CPU)

    def one_by_one(tokens: int) -> None:
        for context in contexts[:alone]:
            detect(model, vae, marks, [context], tokens)

    took = taking_turns(
        {
            "matmul": matmul,
            "verdict": lambda: detect(model, vae, marks, contexts, 0),
            "verdict alone": lambda: one_by_one(0),
            "explained": lambda: detect(model, vae, marks, contexts, tokens),
            "explained alone": lambda: one_by_one(tokens),
        },
        rounds,
        CPU,
    )
    rate = matmul.flops / took["matmul"]
    encoding = autoencoder_flops(vae, torch.zeros(images, 3, SIZE, SIZE))
    figures: dict[str, object] = {
        "images": images,
        "tokens of an explanation": tokens,
        "matmul GFLOP/s": rate / 1e9,
        "autoencoder GFLOP": encoding / 1e9,
    }
    for name, length in (("verdict", 0), ("explained", tokens)):
        flops = detection_work(model, SIZE, images, length).forward
        figures |= {
            f"{name}: GFLOP": flops / 1e9,
            f"{name}: images/s": images / took[name],
            f"{name}: images/s one at a time": alone / took[f"{name} alone"],
            f"{name}: ratio": flops / took[name] / rate,
            f"{name}: ratio, autoencoder counted": (flops + encoding) / took[name] / rate,
        }
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=64, help="images of the batch")
    parser.add_argument("--tokens", type=int, default=60, help="length of an explanation")
    parser.add_argument("--rounds", type=int, default=5, help="runs to take the median of")
    parser.add_argument("--threads", type=int, help="threads of torch (its own choice)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--smoke", action="store_true", help="a miniature: shows that it runs")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    figures = measure(
        miniature() if options.smoke else tiny(),
        images=options.images,
        alone=min(options.images, 8),
        tokens=options.tokens,
        rounds=options.rounds,
    )
    show({**machine(CPU), **figures}, as_json=options.json)


if __name__ == "__main__":
    main()
