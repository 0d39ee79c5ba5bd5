"""A GDUF training step in float32 on a CPU against the machine's own matrix product.

    python -m benchmarks.cpu_step [--compile] [--steps 20] [--threads 2] [--json]

The model has the sizes of profile `tiny`; the pack holds 8 generation samples (22 text and 64
latent tokens) and 8 detection samples (64 latent and 64 ViT tokens, question of 22, answer of 62),
markers around images apart: 2,432 tokens. A step is forward and backward of `GdufObjective`, the
frozen autoencoder's encoding included. Its time counts in `ratio`; its FLOPs do not.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import torch

from benchmarks.flops import autoencoder_flops, pack_work
from benchmarks.report import machine, show
from benchmarks.timing import Matmul, taking_turns
from benchmarks.workload import Samples, markers, miniature, tiny
from unigendet.config import ModelConfig
from unigendet.data.packing import pack
from unigendet.models.unified import UniGenDetModel
from unigendet.models.vae import LatentAutoencoder
from unigendet.objectives import GdufObjective

CPU = torch.device("cpu")


def measure(config: ModelConfig, *, pairs: int, steps: int, compiled: bool) -> dict[str, object]:
    """Figures of a step on a pack of `pairs` generation and as many detection samples."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    samples = Samples(config, 64, generator)
    plans = [plan for _ in range(pairs) for plan in (samples.generation(), samples.detection())]
    batch = pack(plans, config, markers(config), generator)
    model = UniGenDetModel(config)
    vae = LatentAutoencoder(config.vae).eval().requires_grad_(False)
    objective = GdufObjective(vae)
    work = pack_work(model, batch)
    encoding = autoencoder_flops(vae, batch.pixels)
    if compiled:
        for block in model.blocks():
            block.compile()

    def step() -> None:
        model.zero_grad(set_to_none=True)
        objective(model, batch).total.backward()

    began = time.perf_counter()
    step()
    first = time.perf_counter() - began
    matmul = Matmul(torch.float32, CPU)
    took = taking_turns({"step": step, "matmul": matmul}, steps, CPU)
    rate = matmul.flops / took["matmul"]
    return {
        "tokens": batch.sequence_length,
        "active parameters": {name: part.active for name, part in work.parts.items()},
        "tokens by part": {name: part.tokens for name, part in work.parts.items()},
        "attention GFLOP": 3 * work.attention / 1e9,
        "step GFLOP": work.training / 1e9,
        "autoencoder GFLOP": encoding / 1e9,
        "compiled": compiled,
        "first step seconds": first,
        "step seconds": took["step"],
        "step GFLOP/s": work.training / took["step"] / 1e9,
        "matmul GFLOP/s": rate / 1e9,
        "ratio": work.training / took["step"] / rate,
        "ratio, autoencoder counted": (work.training + encoding) / took["step"] / rate,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--compile", action="store_true", help="compile the model first")
    parser.add_argument("--steps", type=int, default=20, help="steps to take the median of")
    parser.add_argument("--threads", type=int, help="threads of torch (its own choice)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--smoke", action="store_true", help="a miniature: shows that it runs")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    figures = measure(
        miniature() if options.smoke else tiny(),
        pairs=1 if options.smoke else 8,
        steps=options.steps,
        compiled=options.compile,
    )
    show({**machine(CPU), **figures}, as_json=options.json)


if __name__ == "__main__":
    main()
