"""The benchmark scripts, in miniature: that they run and what their figures are."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import cpu_step, detection, gpu_step, loader
from benchmarks.flops import pack_work
from benchmarks.workload import Samples, markers, tiny
from unigendet.data.packing import pack
from unigendet.models.unified import UniGenDetModel


def test_cpu_step(capsys: pytest.CaptureFixture[str]) -> None:
    cpu_step.main(["--smoke", "--steps", "1", "--json"])
    figures = json.loads(capsys.readouterr().out)
    assert figures["tokens"] == 88 + 216
    assert figures["torch"] == torch.__version__
    assert 0 < figures["ratio"] < figures["ratio, autoencoder counted"]


def test_detection(capsys: pytest.CaptureFixture[str]) -> None:
    detection.main(["--smoke", "--images", "2", "--tokens", "3", "--rounds", "1", "--json"])
    figures = json.loads(capsys.readouterr().out)
    assert figures["verdict: GFLOP"] < figures["explained: GFLOP"]
    for name in ("verdict", "explained"):
        assert figures[f"{name}: images/s"] > 0 and figures[f"{name}: ratio"] > 0


@pytest.mark.parametrize("more", [[], ["--autocast", "--peak", "1e12"]])
def test_gpu_step(more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    gpu_step.main(["--device", "cpu", "--smoke", "--json", *more])
    figures = json.loads(capsys.readouterr().out)
    assert figures["pack tokens"] == 88 + 216 + 88
    assert figures["generated images/s"] > 0
    if more:
        assert figures["MFU"] == pytest.approx(figures["TFLOP/s"])
        assert 4 * 2 * figures["parameters"] / 2**30 < figures["planned memory GiB"]
    else:
        assert figures["MFU"] is None and figures["peak memory GiB"] is None


def test_the_gpu_steps_plan_recomputes_where_the_step_does(
    capsys: pytest.CaptureFixture[str],
) -> None:
    planned = []
    for more in ([], ["--recompute"]):
        gpu_step.main(["--device", "cpu", "--smoke", "--json", "--autocast", *more])
        planned.append(json.loads(capsys.readouterr().out)["planned memory GiB"])
    assert planned[1] < planned[0]


def test_gpu_step_needs_layers_where_memory_is_not_known(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        gpu_step.main(["--device", "cpu"])
    assert "--layers" in capsys.readouterr().err


def test_the_bar_of_the_cpu_step() -> None:
    """The pack and the active parameters that the bar is stated for."""
    config = tiny()
    generator = torch.Generator().manual_seed(0)
    samples = Samples(config, 64, generator)
    plans = [*(samples.generation() for _ in range(8)), *(samples.detection() for _ in range(8))]
    batch = pack(plans, config, markers(config), generator)
    work = pack_work(UniGenDetModel(config), batch)
    layer = 192 * (192 + 64 + 64 + 192) + 3 * 192 * 768
    assert batch.sequence_length == 8 * (22 + 66) + 8 * (66 + 66 + 22 + 62)
    assert work.parts["understanding expert"].active == 6 * layer
    assert work.parts["generation expert"].active == 6 * layer
    assert work.parts["generation expert"].tokens == 16 * 64


def test_loader(capsys: pytest.CaptureFixture[str]) -> None:
    loader.main(["--images", "6", "--rounds", "1", "--json"])
    figures = json.loads(capsys.readouterr().out)
    assert figures["stream samples/s"] > 0 and figures["ratio"] > 0
