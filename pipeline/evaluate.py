"""Stage evaluate: the co-evolved model judged on held-out images, with intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts import METRICS, SUMMARY, file_hash, read_json, write_json
from pipeline.benchmarks import (
    audit_benchmarks,
    benchmark_metrics,
    benchmark_pieces,
    select_benchmarks,
)
from pipeline.evaluation_files import ROC, write_roc, write_sheets
from pipeline.figures import explanation_figures, image_figures, summary_of
from pipeline.judging import GeneratorArm, Job, StoredSet, pieces_of
from pipeline.piecework import Results, run_all
from pipeline.stage import StageContext
from unigendet import image_evaluation as sets
from unigendet.benchmarking.perturbations import parse_all
from unigendet.benchmarking.result import provenance, robustness
from unigendet.benchmarking.selection import Selection
from unigendet.data.answers import read_answers
from unigendet.data.manifest import read_set
from unigendet.data.shards import ShardDataset
from unigendet.evaluation import SUITES, detection_figures, detection_table, records_of, suites_of
from unigendet.evidence import measure
from unigendet.explanation_evaluation import Checked, explanation_table
from unigendet.explanations import EVIDENCE_FILE, Explainer
from unigendet.image_evaluation import ImageSet, evaluate_images
from unigendet.models.pretrained import weights_sha256
from unigendet.records import RECORDS, write_records
from unigendet.types import EvalRecord, Sample

EVERYDAY = "everyday"
SETS = ("train", "val", "test", EVERYDAY)


@dataclass(frozen=True, slots=True)
class _JudgedSet:
    """Images of one class of a stored set, which the detector judges."""

    name: str
    data: ShardDataset
    home: bool
    fake: bool


def evaluate(ctx: StageContext) -> None:
    """Judge, generate and compare; write metrics.json, records.jsonl and pictures to `ctx.out`."""
    params = ctx.params.evaluate
    selections = select_benchmarks(ctx)
    benchmark_audits = audit_benchmarks(ctx, selections)
    given = {name: ShardDataset(ctx.inputs["shard"], name) for name in SETS}
    real = {name: data.only(fake=False) for name, data in given.items()}
    judged = []
    for name in ("test", EVERYDAY):
        home = name != EVERYDAY
        judged.append(_JudgedSet(f"real/{name}", real[name], home, fake=False))
        forged = ShardDataset(ctx.inputs["forge"], name)
        judged.append(_JudgedSet(f"fake/{name}", forged, home, fake=True))
        if own := given[name].only(fake=True):
            judged.append(_JudgedSet(f"given/{name}", own, home, fake=True))
    families = read_json(ctx.inputs["forge"] / "quality.json")["families"]
    arms = _arms(ctx)
    test = list(real["test"])
    asked = [test[index % len(test)] for index in range(params.generated)]
    job = _job(ctx, judged, arms, real["val"], asked, selections)
    pieces = [
        *(p for arm in arms for p in pieces_of("generate", arm, len(asked), params.batch_size)),
        *(p for s in judged for p in pieces_of("judge", s.name, len(s.data), params.batch_size)),
        *benchmark_pieces(ctx, selections),
        *pieces_of("reconstruct", "real/test", len(test), params.batch_size),
        *pieces_of("measure", "real/test", len(test), params.batch_size),
        *pieces_of("measure", "real/val", len(real["val"]), params.batch_size),
    ]
    results = run_all(ctx, job, pieces)

    with ctx.timed("detection"):
        samples, records, perturbed = _records(ctx, judged, results)
        checked = _checked(ctx, samples)
        draws, seed = params.bootstrap, ctx.seed
        poor = [one["family"] for one in families if not one["distances"]["above_floor"]]
        detection = detection_table(records, uncounted=poor, draws=draws, seed=seed)
        explanations = explanation_table(records, checked, draws=draws, seed=seed)
        curves = _robustness(ctx, records, perturbed)
    with ctx.timed("benchmarks"):
        benchmarks, benchmark_records = benchmark_metrics(
            ctx, selections, benchmark_audits, results
        )
    with ctx.timed("images"):
        reference = _stored_set(test, results.features("measure", "real/test"))
        made = {
            sets.FLOOR: _stored_set(list(real["val"]), results.features("measure", "real/val")),
            sets.RECONSTRUCTED: _made_set(test, results, "reconstruct", "real/test"),
            **{arm: _made_set(asked, results, "generate", arm) for arm in arms},
        }
        training = _stored_set(list(real["train"]), np.zeros((0, 0), np.float32))
        images = evaluate_images(
            reference, made, training, grounds=params.grounds, draws=draws, seed=seed
        )
    metrics = {
        "provenance": _provenance(ctx, selections),
        "counts": {name: _counts(real[name]) for name in ("train", "val", "test")}
        | {s.name: _counts(s.data) for s in judged},
        "detection": detection_figures(detection, seed),
        "robustness": curves,
        "benchmarks": benchmarks,
        "explanations": explanation_figures(explanations, seed),
        "images": image_figures(images, seed),
        "families": families,
        "audit": read_json(ctx.inputs["forge"] / "audit.json"),
    }
    summary = summary_of(metrics)
    write_json(ctx.out / METRICS, metrics)
    write_json(ctx.out / SUMMARY, summary)
    write_records(ctx.out / RECORDS, [*records, *benchmark_records])
    write_roc(ctx.out / ROC, records)
    for sheet in write_sheets(ctx.out, made, images.nearest, training):
        ctx.run.log_figure(sheet.stem, sheet)
    ctx.run.log_metrics(summary, step=0)
    ctx.run.log_artifact(ctx.out / METRICS)
    for line in _headline(summary):
        ctx.log(line)


def _arms(ctx: StageContext) -> dict[str, GeneratorArm]:
    """Who generates. The state before DIGA is compared where the co-evolution kept it."""
    model = ctx.inputs["coevolve"]
    arms = {
        sets.MODEL: GeneratorArm(str(model)),
        sets.PRETRAINED: GeneratorArm(str(ctx.inputs["pretrain_generator"])),
        sets.UNTRAINED: GeneratorArm(str(model), untrained=True),
    }
    before = model / "before_diga"
    if (before / "config.json").is_file():
        arms[sets.BEFORE_DIGA] = GeneratorArm(str(before))
    return arms


def _job(
    ctx: StageContext,
    judged: Sequence[_JudgedSet],
    arms: dict[str, GeneratorArm],
    val: ShardDataset,
    asked: Sequence[Sample],
    selections: Mapping[str, Selection],
) -> Job:
    params = ctx.params.evaluate
    stored = {s.name: StoredSet(str(s.data.folder), s.data.name, s.fake) for s in judged}
    return Job(
        detector=str(ctx.inputs["coevolve"]),
        sets={**stored, "real/val": StoredSet(str(val.folder), val.name, False)},
        benchmarks={label: one.items for label, one in selections.items()},
        perturbations=params.perturbations,
        arms=arms,
        prompts=tuple(sample.caption for sample in asked),
        size=(asked[0].image.shape[0], asked[0].image.shape[1]),
        steps=params.steps,
        guidance=params.guidance,
        timestep_shift=params.timestep_shift,
        batch_size=params.batch_size,
        seed=ctx.seed,
        device=ctx.device,
        threads=1,
    )


def _records(
    ctx: StageContext, judged: Sequence[_JudgedSet], results: Results
) -> tuple[list[Sample], list[EvalRecord], list[tuple[float, ...]]]:
    """Every judged sample with its reference answer, its records, and their perturbed scores."""
    learnt = (read_set(ctx.inputs[stage], "train").generators for stage in ("shard", "forge"))
    trained_on = frozenset(name for names in learnt for name in names) - {"real"}
    samples: list[Sample] = []
    records: list[EvalRecord] = []
    perturbed: list[tuple[float, ...]] = []
    for one in judged:
        found = results.outcomes("judge", one.name)
        references = read_answers(ctx.inputs["forge"], one.data.name)
        for stored, outcome in zip(one.data, found, strict=True):
            # What came without an answer, most real images, has it in a file of its own.
            answer_known = stored.explanation or references.get(stored.key, "")
            sample = dataclasses.replace(stored, explanation=answer_known)
            suites = suites_of(sample.generator, trained_on, home=one.home)
            records.extend(records_of(sample, suites, outcome.score, outcome.answer))
            perturbed.extend([outcome.perturbed] * len(suites))
            samples.append(sample)
    return samples, records, perturbed


def _robustness(
    ctx: StageContext, records: Sequence[EvalRecord], perturbed: Sequence[tuple[float, ...]]
) -> dict[str, list[dict[str, Any]]]:
    """suite -> the curve of its AUROC; empty where nothing is perturbed."""
    kinds = parse_all(ctx.params.evaluate.perturbations)
    curves = {}
    for suite in SUITES if kinds else ():
        rows = [at for at, record in enumerate(records) if record.suite == suite]
        scores = {kind: [perturbed[at][n] for at in rows] for n, kind in enumerate(kinds)}
        own = [records[at] for at in rows]
        curves[suite] = robustness(own, scores, draws=ctx.params.evaluate.bootstrap, seed=ctx.seed)
    return curves


def _checked(ctx: StageContext, samples: Sequence[Sample]) -> Checked:
    text = (ctx.inputs["forge"] / EVIDENCE_FILE).read_text(encoding="utf-8")
    evidence = {sample.key: measure(sample.image) for sample in samples}
    return Checked(Explainer.from_json(text), evidence)


def _stored_set(samples: Sequence[Sample], features: NDArray[np.float32]) -> ImageSet:
    return ImageSet(
        images=np.stack([sample.image for sample in samples]),
        features=features,
        captions=tuple(sample.caption for sample in samples),
        groups=tuple(sample.source_id for sample in samples),
    )


def _made_set(asked: Sequence[Sample], results: Results, task: str, about: str) -> ImageSet:
    """Images made for the captions (or of the images) of `asked`."""
    return ImageSet(
        images=results.images(task, about),
        features=results.features(task, about),
        captions=tuple(sample.caption for sample in asked),
        groups=tuple(sample.source_id for sample in asked),
    )


def _provenance(ctx: StageContext, selections: Mapping[str, Selection]) -> dict[str, object]:
    given = ctx.params.evaluate.labelled()
    return {
        "command": "dvc repro evaluate",
        "stage_fingerprint": ctx.fingerprint,
        "params_fingerprint": ctx.params.fingerprint(),
        "model_sha256": weights_sha256(ctx.inputs["coevolve"]),
        "autoencoder_sha256": file_hash(ctx.inputs["coevolve"] / "vae.safetensors"),
        "seed": ctx.seed,
        "bootstrap_draws": ctx.params.evaluate.bootstrap,
        "interval": "95 %, percentiles of a bootstrap over sources; FD: jackknife over sources",
        "benchmarks": {
            label: provenance(one, given[label].limit) for label, one in selections.items()
        },
        "features": "EfficientNet-Lite0 (ImageNet), 224 px, 1280 numbers",
    }


def _counts(data: ShardDataset) -> dict[str, object]:
    entries = data.entries
    generators = sorted({entry.generator for entry in entries})
    return {
        "images": len(entries),
        "sources": len({entry.source_id for entry in entries}),
        "generators": {g: sum(entry.generator == g for entry in entries) for g in generators},
    }


def _headline(summary: dict[str, float]) -> list[str]:
    names = [name for name in summary if name.endswith(("auroc", "balanced_accuracy"))]
    names += ["autoencoder_psnr_db", "kd_model", "kd_reconstructed", "kd_untrained", "kd_real"]
    return [f"{name:<36} {summary[name]:.4g}" for name in names if name in summary]
