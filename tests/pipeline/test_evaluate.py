"""Stage evaluate and the page: a small model through both, and their files by themselves."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import evaluate as stage
from pipeline.artifacts import StageInputs, StageTimings, stage_spec, write_json
from pipeline.figures import figure
from pipeline.judging import Finished, Job, Piece, Worker, pieces_of
from pipeline.params import load_params
from pipeline.report import report
from pipeline.report.html import Markup, element, table, text
from pipeline.report.numbers import Measured, seconds, with_range
from pipeline.sheets import read_sheet, write_sheet
from unigendet.config import (
    AutoencoderConfig,
    ModelConfig,
    ResizeRule,
    TransformerConfig,
    VisionConfig,
)
from unigendet.data.answers import write_answers
from unigendet.data.prompts import prompt_corpus
from unigendet.data.shards import ShardWriter
from unigendet.data.tokenizer import train_tokenizer
from unigendet.evidence import measure
from unigendet.explanations import EVIDENCE_FILE, fit_explainer
from unigendet.metrics.bootstrap import Estimate
from unigendet.models.pretrained import save_pretrained
from unigendet.models.unified import UniGenDetModel
from unigendet.models.vae import LatentAutoencoder
from unigendet.types import Sample

ROOT = Path(__file__).parents[2]
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
            "distances": {"kd": kd, "fd": 3.0, "relative": 0.2, "above_floor": True},
            "flat": kd,
            "floor": 0.4,
            "fit_loss": 0.1,
            "fit_seconds": 3.0,
            "make_seconds": 1.0,
        }
        for family, role in (("flow", "train"), ("inpaint", "test"))
    ]
    write_json(outputs / "forged" / "quality.json", {"seed": 0, "families": families})
    audit = {"auroc": kd, "passed": True, "bytes_per_pixel": kd, "blockiness": kd}
    write_json(outputs / "forged" / "audit.json", {"test": audit})


def _write_models(outputs: Path) -> None:
    tokenizer = train_tokenizer([*prompt_corpus(), "a satellite image of desert, forest"], 300)
    config = ModelConfig(
        llm=TransformerConfig(len(tokenizer), 32, 48, 2, 4, 2),
        vit=VisionConfig(24, 32, 1, 2, image_size=SIDE, patch_size=8),
        vae=AutoencoderConfig(8, (1, 1, 2), 1, 4, norm_groups=4, mid_attention=False),
        vae_resize=ResizeRule(max_size=SIDE, min_size=SIDE, stride=8),
        vit_resize=ResizeRule(max_size=SIDE, min_size=SIDE, stride=8),
        max_latent_size=4,
    )
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
    figures = {"auroc": 0.9, "flow_loss": 0.5, "det_loss": 0.3, "text_loss": 1.0}
    phases = {"round1_gduf": figures, "round1_diga": figures}
    write_json(
        outputs / "model" / "summary.json",
        {"figures": figures, "phases": phases, "weights": weights},
    )
    good = {"number": 0, "weights": weights, "score": 0.1, "seconds": 3.0, "figures": figures}
    bad = {"number": 1, "weights": weights, "score": None, "seconds": 1.0, "figures": {}}
    trials = [{**good, "error": "", "trial_id": "a"}, {**bad, "error": "no <luck>"}]
    (outputs / "sweep").mkdir()
    write_json(outputs / "sweep" / "trials.json", {"rule": "highest wins", "trials": trials})
    (outputs / "detector").mkdir()


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


def _context(name: str, workspace: Path) -> Any:
    spec = stage_spec(name)
    params = load_params(ROOT / "profiles" / "smoke.yaml")
    out = workspace / "outputs" / spec.out
    out.mkdir()
    return SimpleNamespace(
        params=params,
        inputs=StageInputs(workspace, spec),
        out=out,
        run=_Run(),
        seed=0,
        device="cpu",
        fingerprint="f" * 16,
        workspace=workspace,
        log=lambda message: None,
        timed=lambda phase: nullcontext(),
        mark_started=lambda at=None: None,
        ray=lambda: nullcontext(),
    )


def _in_process(
    job: Job, pieces: Sequence[Piece], *, actors: int, gpus: float
) -> Iterator[Finished]:
    """What Ray Data does, in this process and in another order."""
    worker = Worker(job)
    for piece in reversed(pieces):
        row = {key: getattr(piece, key) for key in ("task", "about", "start", "stop")}
        yield Finished.unpack(worker(row)["packed"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with every out up to the report."""
    workspace = tmp_path_factory.mktemp("evaluated")
    outputs = workspace / "outputs"
    outputs.mkdir()
    shutil.copyfile(ROOT / "profiles" / "smoke.yaml", workspace / "params.yaml")
    _write_data(outputs)
    _write_models(outputs)
    _write_training(outputs)
    patch = pytest.MonkeyPatch()
    patch.setattr(stage, "run_pieces", _in_process)
    patch.setattr(stage, "actor_count", lambda gpu: 1)
    try:
        stage.evaluate(_context("evaluate", workspace))
    finally:
        patch.undo()
    for name in ("shards", "generator", "forged", "detector", "sweep", "model", "eval"):
        StageTimings(name, 2.0, 5.0, {"work": 3.0}, 1).save(outputs / name)
    report(_context("report", workspace))
    return workspace


def test_every_figure_has_its_n_interval_and_seed(finished: Path) -> None:
    metrics = json.loads((finished / "outputs" / "eval" / "metrics.json").read_text())
    seen = 0

    def look(value: Any) -> None:
        nonlocal seen
        if isinstance(value, dict) and "value" in value and "groups" not in value:
            seen += 1
            assert set(value) == {"value", "low", "high", "n", "n_total", "sources", "seed"}
            assert value["n"] <= value["n_total"] and value["sources"] <= value["n"]
        elif isinstance(value, dict):
            for inner in value.values():
                look(inner)

    look(metrics)
    assert seen > 100
    assert set(metrics["detection"]) == {"in_domain", "cross_generator", "cross_dataset"}
    assert set(metrics["detection"]["in_domain"]) == {"flow", "all"}
    assert metrics["detection"]["cross_generator"]["inpaint"]["fakes"] == COUNT
    sets = metrics["images"]["sets"]
    assert set(sets) == {
        "real", "reconstructed", "model", "pretrained", "untrained", "before_diga",
    }  # fmt: skip
    assert len(metrics["provenance"]["model_sha256"]) == 64


def test_no_image_is_dropped(finished: Path) -> None:
    lines = (finished / "outputs" / "eval" / "records.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    per_suite = {"in_domain": 2, "cross_generator": 2, "cross_dataset": 2}
    for suite, kinds in per_suite.items():
        keys = [record["key"] for record in records if record["suite"] == suite]
        assert len(keys) == len(set(keys)) == kinds * COUNT
    assert all(record["reference"] for record in records)


def test_summary_is_flat_and_in_the_metrics(finished: Path) -> None:
    summary = json.loads((finished / "outputs" / "eval" / "summary.json").read_text())
    assert all(isinstance(value, float) for value in summary.values())
    metrics = json.loads((finished / "outputs" / "eval" / "metrics.json").read_text())
    expected = metrics["detection"]["in_domain"]["all"]["figures"]["auroc"]["value"]
    assert summary["in_domain_auroc"] == expected


def test_arms_draw_the_same_noise_and_results_do_not_depend_on_the_order(finished: Path) -> None:
    outputs = finished / "outputs"
    job = Job(
        detector=str(outputs / "model"),
        sets={},
        arms={
            "model": stage.GeneratorArm(str(outputs / "model")),
            "again": stage.GeneratorArm(str(outputs / "model")),
            "untrained": stage.GeneratorArm(str(outputs / "model"), untrained=True),
        },
        prompts=("a desert",) * 4,
        size=(SIDE, SIDE),
        steps=2,
        guidance=2.0,
        timestep_shift=1.0,
        batch_size=2,
        use_vae=True,
        seed=0,
        device="cpu",
        threads=1,
    )
    worker = Worker(job)
    second = worker.run(Piece("generate", "model", 2, 4))
    first = worker.run(Piece("generate", "model", 0, 2))
    again = Worker(job).run(Piece("generate", "again", 0, 2))
    fresh = worker.run(Piece("generate", "untrained", 0, 2))
    np.testing.assert_array_equal(first.images, again.images)
    assert (first.images != second.images).any(), "other places, other noise"
    assert (first.images != fresh.images).any()
    state = torch.get_rng_state()
    Worker(job).run(Piece("generate", "untrained", 0, 2))
    assert torch.equal(state, torch.get_rng_state()), "fresh weights leave the generator alone"


def test_pieces_cover_every_image_once() -> None:
    pieces = pieces_of("judge", "x", 7, 3)
    assert [(p.start, p.stop) for p in pieces] == [(0, 3), (3, 6), (6, 7)]


class _Page(HTMLParser):
    """Notes what a browser would fetch, and that tags close in order."""

    VOID = frozenset({"meta", "img", "br", "path", "use", "rect", "line", "circle", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.open: list[str] = []
        self.anchors: set[str] = set()
        self.links: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in ("script", "link", "iframe"):
            self.fetched.append(tag)
        source = values.get("src") or ""
        if source and not source.startswith("data:"):
            self.fetched.append(source)
        if tag == "section":
            self.anchors.add(str(values["id"]))
        if tag == "a":
            self.links.add(str(values["href"]))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_is_whole_and_fetches_nothing(finished: Path) -> None:
    text_of_page = (finished / "outputs" / "report" / "index.html").read_text()
    page = _Page()
    page.feed(text_of_page)
    assert page.open == [] and page.fetched == []
    assert page.links == {f"#{anchor}" for anchor in page.anchors}
    assert "url(http" not in text_of_page and "@import" not in text_of_page
    for words in ("&lt;here&gt;", "no &lt;luck&gt;", "before the last DIGA", "reconstruct"):
        assert words in text_of_page
    assert "<here>" not in text_of_page, "captions are data and not markup"


def test_the_page_prints_the_figures_of_metrics_json(finished: Path) -> None:
    metrics = json.loads((finished / "outputs" / "eval" / "metrics.json").read_text())
    page = (finished / "outputs" / "report" / "index.html").read_text()
    plain = re.sub(r"<[^>]+>", " ", page)
    for raw in (
        metrics["detection"]["cross_generator"]["inpaint"]["figures"]["auroc"],
        metrics["images"]["sets"]["model"]["kd"],
    ):
        value, low, high = (
            f"{raw[key]:.3f}".replace("-", "\u2212") for key in ("value", "low", "high")
        )
        assert re.search(rf"{re.escape(value)}\s+{re.escape(f'[{low}, {high}]')}", plain)


def test_undefined_figures_are_null_and_said_so() -> None:
    nan = float("nan")
    raw = figure(Estimate(nan, nan, nan, 3, 3, 3), seed=1)
    assert raw["value"] is None and json.dumps(raw, allow_nan=False)
    assert with_range(Measured.read(raw)) == "undefined"


def test_text_is_escaped_and_markup_is_not() -> None:
    assert element("p", "a < b", Markup("<b>c</b>")) == "<p>a &lt; b<b>c</b></p>"
    assert Markup("<i>") + "<" == "<i>&lt;"
    assert text("&") == "&amp;"
    assert "<script>" not in table(["<script>"], [["<script>"]])
    assert element("i", style='a"b') == '<i style="a&quot;b"></i>'


def test_seconds_read_like_speech() -> None:
    assert [seconds(s) for s in (4.4, 200, 3900)] == ["4 s", "3 min 20 s", "1 h 5 min"]


def test_sheets_give_back_what_was_put_in(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (19, 8, 12, 3), dtype=np.uint8)
    write_sheet(tmp_path / "s.png", images)
    np.testing.assert_array_equal(read_sheet(tmp_path / "s.png", 19, (8, 12)), images)
    with pytest.raises(ValueError, match=r"s\.png does not hold"):
        read_sheet(tmp_path / "s.png", 40, (8, 12))
