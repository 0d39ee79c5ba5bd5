"""What a slice of BAGEL's width costs on one GPU: training step, detection, generation.

    python -m benchmarks.gpu_step [--layers N] [--tokens 16384] [--size 512] [--json]
        [--compile] [--recompute] [--attention buckets]
    python -m benchmarks.gpu_step --device cpu --smoke

Needs torch and this package alone: latents are drawn instead of encoded, so the autoencoder is
part of no figure. A step is forward and backward of `GdufObjective` without the optimizer, weights
in bfloat16 (`--autocast`: in float32 under autocast, as the training loop has them). MFU holds the
FLOPs of `benchmarks.flops` (active parameters, visible pairs, no credit for recomputation) against
the peak of the device. Images/s are those of the slice, which has fewer layers than the model.
"""

from __future__ import annotations

import argparse
import gc
import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from benchmarks.detection import detect
from benchmarks.flops import pack_work
from benchmarks.report import machine, show
from benchmarks.timing import seconds, taking_turns
from benchmarks.workload import ANSWER_WORDS, Samples, bagel_slice, markers, miniature
from unigendet.config import ModelConfig
from unigendet.data.packing import SamplePlan, pack
from unigendet.models.unified import UniGenDetModel
from unigendet.objectives import GdufObjective
from unigendet.planning.memory import Machine, TrainingPhase, plan_memory
from unigendet.planning.packs import shape_of
from unigendet.sampling import Guidance, SamplerConfig, flow_steps, guidance_contexts
from unigendet.types import PackedBatch

PEAKS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "RTX 4090": 165e12,
}
"""Dense bfloat16 FLOP/s by what a device's name holds, the first that fits."""
SPARE = 0.92
"""The share of the device's memory that layers may fill."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured; sizes in pixels a side."""

    config: ModelConfig
    device: torch.device
    tokens: int
    """Of a training pack, at most."""
    size: int
    images: int
    """Of a batch to detect, and to generate."""
    steps: int
    """Training steps to take the median of."""
    flow_steps: int
    """Euler steps of an image."""
    compiled: bool
    recompute: bool
    autocast: bool
    attention: Literal["auto", "buckets", "flex"]


class DrawnLatents:
    """In the autoencoder's place: latents that are noise."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config.vae

    def encode(self, pixels: Tensor, noise: Tensor | None = None) -> Tensor:
        """(n, z, H / downsample, W / downsample)."""
        if noise is not None:
            return noise
        sides = (side // self.config.downsample for side in pixels.shape[2:])
        return pixels.new_ones(pixels.shape[0], self.config.latent_channels, *sides)


def training_pack(setting: Setting) -> PackedBatch:
    """Generation and detection samples in turns, as many as fit."""
    generator = torch.Generator().manual_seed(0)
    samples = Samples(setting.config, setting.size, generator)
    kinds = itertools.cycle((samples.generation, samples.detection))
    plans: list[SamplePlan] = []
    while True:
        more = [*plans, next(kinds)()]
        batch = pack(more, setting.config, markers(setting.config), generator)
        if batch.sequence_length > setting.tokens and plans:
            break
        plans = more
    return pack(plans, setting.config, markers(setting.config), generator).to(setting.device)


def new_model(setting: Setting) -> UniGenDetModel:
    """Random weights, made on the device: a slice of several layers may not fit in host memory."""
    torch.manual_seed(0)
    with setting.device:
        model = UniGenDetModel(setting.config)
    model.attention = setting.attention
    if setting.recompute:
        model.recompute_activations()
    return model if setting.autocast else model.to(torch.bfloat16)


def training_figures(setting: Setting, peak: float | None) -> dict[str, object]:
    """A training step's time, rates and memory."""
    batch = training_pack(setting)
    model = new_model(setting)
    work = pack_work(model, batch)
    step = _step(setting, model, batch)
    if setting.compiled:
        for block in model.blocks():
            block.compile()
    _reset_peak_memory(setting.device)
    first = seconds(step, setting.device)
    took = taking_turns({"step": step}, setting.steps, setting.device)["step"]
    rate = work.training / took
    return {
        "layers": setting.config.llm.num_hidden_layers,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "pack tokens": batch.sequence_length,
        "compiled": setting.compiled,
        "recomputed": setting.recompute,
        "attention": setting.attention,
        "weights": "float32, autocast" if setting.autocast else "bfloat16",
        "first step seconds": first,
        "step seconds": took,
        "tokens/s": batch.sequence_length / took,
        "step TFLOP": work.training / 1e12,
        "TFLOP/s": rate / 1e12,
        "peak TFLOP/s": None if peak is None else peak / 1e12,
        "MFU": None if peak is None else rate / peak,
        "peak memory GiB": _peak_memory(setting.device),
        "planned memory GiB": planned_memory(setting, batch),
    }


def planned_memory(setting: Setting, batch: PackedBatch) -> float | None:
    """What `unigendet plan` would say of this step, for weights as the training loop has them."""
    if not setting.autocast:
        return None
    phase = TrainingPhase("step", setting.config, (".*",), "bf16", shape_of(batch))
    plan = plan_memory(phase, Machine(1, 2**40, "none", setting.recompute))
    absent = {"optimizer", "average", "autoencoder"}  # no optimizer, and latents are drawn
    return max(
        sum(size for part, size in plan.at(moment).items() if part not in absent) / 2**30
        for moment in ("turn", "backward")
    )


def inference_figures(setting: Setting, answer_tokens: int) -> dict[str, object]:
    """Images/s of detection, with and without explanation, and of generation with text guidance."""
    config, images = setting.config, setting.images
    model, vae, marks = new_model(setting).eval(), DrawnLatents(config), markers(config)
    samples = Samples(config, setting.size, torch.Generator().manual_seed(0))
    contexts = [samples.question() for _ in range(images)]
    captions = [[samples.caption()] for _ in range(images)]
    side = setting.size // samples.latent_patch
    values = config.latent_patch_size**2 * config.vae.latent_channels
    noise = torch.randn(images * side**2, values).to(setting.device)
    sampler = SamplerConfig(setting.flow_steps, guidance=Guidance(text_scale=4.0))

    def generate() -> None:
        with _precision(setting):
            read = guidance_contexts(model, vae, marks, captions)
            for _ in flow_steps(model, marks, read, noise, [(side, side)] * images, sampler):
                pass

    def judge(tokens: int) -> None:
        with _precision(setting):
            detect(model, vae, marks, contexts, tokens)

    _reset_peak_memory(setting.device)
    took = taking_turns(
        {
            "verdict": lambda: judge(0),
            "explained": lambda: judge(answer_tokens),
            "generated": generate,
        },
        3,
        setting.device,
    )
    return {
        "image pixels a side": setting.size,
        "images of a batch": images,
        "verdicts/s": images / took["verdict"],
        "tokens of an explanation": answer_tokens,
        "explained verdicts/s": images / took["explained"],
        "Euler steps, guided": setting.flow_steps,
        "generated images/s": images / took["generated"],
        "inference peak memory GiB": _peak_memory(setting.device),
    }


def fitting_layers(setting: Setting) -> int:
    """How many decoder layers fit: what one takes is the difference of two steps' peaks."""
    one, two = (_step_memory(replace(setting, config=bagel_slice(count))) for count in (1, 2))
    room = SPARE * torch.cuda.get_device_properties(setting.device).total_memory
    return 1 + max(0, int((room - one) // (two - one)))


def _step_memory(setting: Setting) -> int:
    _reset_peak_memory(setting.device)
    _step(setting, new_model(setting), training_pack(setting))()
    return torch.cuda.max_memory_allocated(setting.device)


def _step(setting: Setting, model: UniGenDetModel, batch: PackedBatch) -> Callable[[], None]:
    objective = GdufObjective(DrawnLatents(setting.config))

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with _precision(setting):
            losses = objective(model, batch)
        losses.total.backward()

    return step


def _precision(setting: Setting) -> AbstractContextManager[object]:
    if setting.autocast:
        return torch.autocast(setting.device.type, dtype=torch.bfloat16)
    return nullcontext()


def _reset_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _peak_memory(device: torch.device) -> float | None:
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None


def known_peak(device: torch.device) -> float | None:
    """The device's dense bfloat16 FLOP/s; None where the name is not known."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((peak for known, peak in PEAKS.items() if known in name), None)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda", type=torch.device)
    parser.add_argument("--layers", type=int, help="decoder layers (as many as fit)")
    parser.add_argument("--tokens", type=int, default=16384, help="of a training pack, at most")
    parser.add_argument("--size", type=int, default=512, help="pixels a side of an image")
    parser.add_argument("--images", type=int, default=16, help="of a batch to detect or generate")
    parser.add_argument("--steps", type=int, default=10, help="steps to take the median of")
    parser.add_argument("--flow-steps", type=int, default=20, help="Euler steps of an image")
    parser.add_argument("--compile", action="store_true", help="compile the model for training")
    parser.add_argument("--recompute", action="store_true", help="keep the inputs of layers alone")
    parser.add_argument("--attention", default="auto", choices=("auto", "buckets", "flex"))
    parser.add_argument("--autocast", action="store_true", help="float32 weights under autocast")
    parser.add_argument("--peak", type=float, help="the device's dense bfloat16 FLOP/s")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--smoke", action="store_true", help="a miniature: shows that it runs")
    options = parser.parse_args(arguments)
    setting = Setting(
        config=miniature() if options.smoke else bagel_slice(options.layers or 1),
        device=options.device,
        tokens=400 if options.smoke else options.tokens,
        size=64 if options.smoke else options.size,
        images=2 if options.smoke else options.images,
        steps=1 if options.smoke else options.steps,
        flow_steps=2 if options.smoke else options.flow_steps,
        compiled=options.compile,
        recompute=options.recompute,
        autocast=options.autocast,
        attention=options.attention,
    )
    if options.layers is None and not options.smoke:
        if setting.device.type != "cuda":
            parser.error("say how many --layers: only a GPU's memory is measured")
        setting = replace(setting, config=bagel_slice(fitting_layers(setting)))
    peak = options.peak or known_peak(setting.device)
    figures = {
        **machine(setting.device),
        **training_figures(setting, peak),
        **inference_figures(setting, 3 if options.smoke else ANSWER_WORDS),
    }
    show(figures, as_json=options.json)


if __name__ == "__main__":
    main()
