"""A workspace that went through every stage, with a very small model that nobody trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import evaluate as stage
from pipeline import piecework
from pipeline.artifacts import StageInputs, StageTimings, stage_spec, write_json
from pipeline.heat_map import WHO_FOOLS_WHOM
from pipeline.judging import Finished, Job, Piece, Worker
from pipeline.loss_weights import AlignmentWeights
from pipeline.params import Params, load_params
from pipeline.report import report
from pipeline.sections.evaluate import EvaluateSection
from pipeline.sweep.front import RULE, Trial, noise_between_seeds
from tests.models.tiny import square_config
from unigendet.data.answers import write_answers
from unigendet.data.prompts import prompt_corpus
from unigendet.data.shards import ShardWriter
from unigendet.data.tokenizer import train_tokenizer
from unigendet.evidence import measure
from unigendet.explanations import EVIDENCE_FILE, fit_explainer
from unigendet.figures import Figure, figure
from unigendet.metrics.bootstrap import Estimate
from unigendet.models.pretrained import save_pretrained
from unigendet.models.unified import UniGenDetModel
from unigendet.models.vae import LatentAutoencoder
from unigendet.types import Sample

ROOT = Path(__file__).resolve().parents[2]
SIDE, COUNT = 32, 8


def _image(seed: int, noise: float) -> np.ndarray:
    generator = np.random.default_rng(seed)
    base = np.array([(190, 165, 115), (40, 70, 40)][seed % 2])
    image = base + generator.normal(0, noise, (SIDE, SIDE, 3))
    return np.clip(image, 0, 255).astype(np.uint8)


def _samples(name: str, families: Sequence[str]) -> tuple[list[Sample], list[Sample]]:
    """Real images of one set, and one fake of each by each family."""
    reals, fakes = [], []
    for place in range(COUNT):
        real = Sample(
            key=f"{name}-{place}",
            image=_image(place, 25.0),
            source_id=f"{name}/{place}",
            split="test" if name == "everyday" else name,
            domain="everyday" if name == "everyday" else "blue_marble",
            caption=f"a satellite image of {('desert', 'forest')[place % 2]} <here>",
            fake=False,
        )
        reals.append(real)
        for family in families:
            image = _image(place, 6.0)
            fakes.append(
                replace(
                    real,
                    key=f"{family}-{real.key}",
                    image=image,
                    fake=True,
                    generator=family,
                    explanation="This is a fake image. Edges are soft.",
                )
            )
    return reals, fakes


SETS = {
    "train": ("flow",),
    "val": ("flow",),
    "test": ("flow", "inpaint"),
    "everyday": ("inpaint",),
}


def _write_data(outputs: Path) -> None:
    answers, real_evidence, fake_evidence = {}, [], []
    for name, families in SETS.items():
        reals, fakes = _samples(name, families)
        for folder, samples in (("shards", reals), ("forged", fakes)):
            with ShardWriter(outputs / folder, name) as writer:
                for sample in samples:
                    writer.write(sample)
        answers[name] = {s.key: "This is a real image. Edges are crisp." for s in reals}
        real_evidence += [measure(sample.image) for sample in reals]
        fake_evidence += [measure(sample.image) for sample in fakes]
    write_answers(outputs / "forged", answers)
    explainer = fit_explainer(real_evidence, fake_evidence)
    (outputs / "forged" / EVIDENCE_FILE).write_text(explainer.to_json())
    kd = asdict(Estimate(0.1, 0.05, 0.15, COUNT, COUNT, COUNT))
    families = [
        {
            "family": family,
            "role": role,
            "aligned": True,
            "own_decoder": family == "flow",
            "evaluated_set": "test",
            "n_total": COUNT,
            "distances": {
                "kd": kd,
                "fd": 3.0,
                "relative": 0.2,
                "variety": 0.9,
                "above_floor": True,
            },
            "flat": kd,
            "floor": 0.4,
            "least_variety": 0.25,
            "fit_loss": 0.1,
            "fit_seconds": 3.0,
            "make_seconds": 1.0,
        }
        for family, role in (("flow", "train"), ("inpaint", "test"))
    ]
    write_json(outputs / "forged" / "quality.json", {"seed": 0, "families": families})
    audit = {"auroc": kd, "passed": True, "bytes_per_pixel": kd, "blockiness": kd}
    audit["shortcut"] = False
    write_json(
        outputs / "shards" / "audit.json", {"train": audit | {"passed": False, "shortcut": True}}
    )
    counts = {"planned": 35, "written": 32, "left_out": 1, "quarantined": 1, "not_downloaded": 1}
    counts |= {"linked": 0, "moved": 0, "kept_apart": 1}
    write_json(outputs / "shards" / "counts.json", counts)
    (outputs / "shards" / "quarantine.jsonl").write_text('{"reason": "not <one> image"}\n')
    write_json(outputs / "forged" / "audit.json", {"test": audit})


def _write_models(outputs: Path) -> None:
    tokenizer = train_tokenizer([*prompt_corpus(), "a satellite image of desert, forest"], 300)
    config = square_config(len(tokenizer))
    torch.manual_seed(0)
    vae = LatentAutoencoder(config.vae).eval()
    for name in ("generator", "model", "model/before_diga"):
        model = UniGenDetModel(config).eval()
        # Fresh output weights are zero; these three are to have learned something.
        torch.nn.init.normal_(model.llm2vae.weight, std=0.05)
        save_pretrained(outputs / name, model, vae, tokenizer)


def _write_training(outputs: Path) -> None:
    row = {"step": 5, "seconds": 1.0, "lr": 1e-3, "grad_norm": 1.0, "flow_loss": 0.5}
    for name, phases in {
        "generator": ["autoencoder", "flow"],
        "model": ["round1_gduf", "round1_diga"],
    }.items():
        lines = [json.dumps({**row, "phase": p, "step": s}) for p in phases for s in (5, 10)]
        (outputs / name / "history.jsonl").write_text("\n".join(lines) + "\n")
    weights = {f"{n}_weight": 0.5 for n in ("flow", "det", "text", "align")} | {"tap_layer": 1}
    figures = {"auroc": 0.9, "flow_loss": 0.5, "det_loss": 0.3, "text_loss": 1.0, "kd": 0.2}
    names = ["start", "round1_gduf", "round1_diga"]
    phases = dict.fromkeys(names, figures)
    write_json(outputs / "model" / WHO_FOOLS_WHOM, fooling_matrix(names))
    write_json(
        outputs / "model" / "summary.json",
        {"figures": figures, "phases": phases, "weights": weights},
    )
    good = Trial(
        number=0,
        weights=AlignmentWeights(**weights),
        repeat=0,
        status="finished",
        steps=4,
        progress=0.6,
        auroc=0.9,
        distance=0.1,
        seconds=3.0,
        figures=figures,
        trial_id="a",
        error="",
    )
    none: dict[str, Any] = {"auroc": None, "distance": None, "figures": {}}
    trials = [
        good,
        replace(good, number=1, status="failed", **none, error="no <luck>"),
        replace(good, number=2, status="stopped", steps=2, **none),
        replace(good, number=3, auroc=0.93, distance=0.12),
        replace(good, number=4, auroc=0.89, distance=0.13),
        replace(good, number=5, repeat=1, auroc=0.91, distance=0.105),
    ]
    found = {"rule": RULE, "measure": "kd", "noise": asdict(noise_between_seeds(trials))}
    found |= {"front": [0, 3], "best": 0, "trials": [asdict(trial) for trial in trials]}
    (outputs / "sweep").mkdir()
    write_json(outputs / "sweep" / "trials.json", found)
    (outputs / "detector").mkdir()


def fooling_matrix(names: Sequence[str]) -> dict[str, Any]:
    """who_fools_whom.json, made up: detectors see ever more, generators show ever less."""

    def about(value: float) -> Figure:
        return figure(Estimate(value, value - 0.05, value + 0.05, COUNT, COUNT, COUNT), seed=0)

    def cell(detector: int, generator: int) -> dict[str, Figure]:
        seen = 0.5 + 0.4 * (detector - generator) / len(names) + 0.001 * generator
        return {"auroc": about(seen), "mean_score": about(seen), "fooled": about(1 - seen)}

    places = dict(zip(names, range(len(names)), strict=True))
    return {
        "images": COUNT,
        "steps": 4,
        "guidance": 2.0,
        "half_rounds": list(names),
        "reals": {d: {"mean_score": about(0.2), "called_fake": about(0.1)} for d in names},
        "cells": {d: {g: cell(places[d], places[g]) for g in names} for d in names},
        "kd": {name: about(0.2) for name in names},
    }


class _Run:
    """Stands for an MLflow run; keeps what it is told."""

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.metrics |= metrics

    def log_figure(self, name: str, figure: Path) -> None:
        assert figure.is_file()

    def log_artifact(self, path: Path, folder: str = "") -> None:
        assert path.is_file()


def stage_context(name: str, workspace: Path) -> Any:
    spec = stage_spec(name)
    params = with_benchmarks(load_params(ROOT / "profiles" / "smoke.yaml"), workspace)
    out = workspace / "outputs" / spec.out
    out.mkdir()
    return SimpleNamespace(
        params=params,
        inputs=StageInputs(workspace, spec),
        out=out,
        state=workspace / "state" / name,
        run=_Run(),
        seed=0,
        device="cpu",
        fingerprint="f" * 16,
        workspace=workspace,
        log=lambda message: None,
        timed=lambda phase: nullcontext(),
        mark_started=lambda at=None: None,
        ray=lambda *ahead: nullcontext(),
    )


def with_benchmarks(params: Params, workspace: Path) -> Params:
    """Two sets to be judged on, one of fakes alone, and a perturbation."""
    sets = [
        {"name": "forensynths", "path": str(workspace / "CNN"), "split": None, "limit": 40},
        {"name": "synthscars", "path": str(workspace / "scars"), "split": None, "limit": None},
    ]
    changed = params.evaluate.model_dump() | {
        "benchmarks": sets,
        "allow_codec_shortcut": True,
        "perturbations": ["jpeg=50"],
    }
    return params.model_copy(update={"evaluate": EvaluateSection(**changed)})


def _write_benchmarks(workspace: Path) -> None:
    """Reals are JPEG and fakes PNG; one file is broken."""
    for name in ("CNN/biggan/0_real", "CNN/biggan/1_fake", "CNN/<b>/0_real", "CNN/<b>/1_fake"):
        _write_images(workspace / name, "jpg" if "real" in name else "png")
    _write_images(workspace / "scars" / "test" / "images", "png", count=4)
    (workspace / "scars" / "test" / "images" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno")


def _write_images(folder: Path, ending: str, count: int = 12) -> None:
    folder.mkdir(parents=True)
    for place in range(count):
        Image.fromarray(_image(place, 12.0)).save(folder / f"{place}.{ending}")


def in_process(
    job: Job, pieces: Sequence[Piece], *, actors: int, gpus: float
) -> Iterator[Finished]:
    """What Ray Data does, in this process and in another order."""
    worker = Worker(job)
    for piece in reversed(pieces):
        row = asdict(piece)
        yield Finished.unpack(worker(row)["packed"])


def evaluated_workspace(workspace: Path) -> Path:
    """`workspace` with small outs of every stage, the last two made by the stages themselves."""
    outputs = workspace / "outputs"
    outputs.mkdir()
    shutil.copyfile(ROOT / "profiles" / "smoke.yaml", workspace / "params.yaml")
    _write_data(outputs)
    _write_models(outputs)
    _write_training(outputs)
    _write_benchmarks(workspace)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(piecework, "run_pieces", in_process)
        patch.setattr(piecework, "actor_count", lambda gpu: 1)
        stage.evaluate(stage_context("evaluate", workspace))
    for name in ("shards", "generator", "forged", "detector", "sweep", "model", "eval"):
        StageTimings(name, 2.0, 5.0, {"work": 3.0}, 1).save(outputs / name)
    report(stage_context("report", workspace))
    return workspace
