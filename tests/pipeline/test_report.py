"""The page: whole, self-contained, escaped, and true to metrics.json."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.report.html import Markup, element, table, text
from pipeline.report.inputs import ReportInputs
from pipeline.report.numbers import Measured, seconds, with_range
from unigendet.data.shards import ShardDataset, ShardWriter
from unigendet.figures import figure
from unigendet.metrics.bootstrap import Estimate
from unigendet.types import EvalRecord, Sample


def test_the_examples_alone_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for stage in ("shard", "forge"):
        for name in ("train", "val", "test", "everyday"):
            with ShardWriter(tmp_path / stage, name) as writer:
                for at in range(3):
                    image = np.full((8, 8, 3), at, np.uint8)
                    key, fake = f"{stage}-{name}-{at}", stage == "forge"
                    writer.write(
                        Sample(
                            key=key, image=image, source_id=key, split="test", domain="d",
                            caption="c", fake=fake, generator="gan" if fake else "real",
                            explanation="",
                        )
                    )  # fmt: skip
    read: list[int] = []
    image_file = ShardDataset.image_file
    monkeypatch.setattr(
        ShardDataset, "image_file", lambda data, at: read.append(at) or image_file(data, at)
    )
    folders: Any = {stage: tmp_path / stage for stage in ("shard", "forge")}
    params: Any = None
    inputs = ReportInputs(folders, params, "revision")
    record = EvalRecord("forge-everyday-2", "s", "cross_dataset", "gan", True, 0.5, "", "", None)
    sample = inputs.judged(record)
    assert sample.key == record.key and (sample.image == 2).all() and read == [2]


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
    for words in (
        "&lt;here&gt;",
        "no &lt;luck&gt;",
        "not &lt;one&gt; image",
        "before the last DIGA",
        "reconstruct",
    ):
        assert words in text_of_page
    assert "not &lt;one&gt; image" in text_of_page
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


def test_an_allowed_shortcut_is_shown_in_red(finished: Path) -> None:
    page = (finished / "outputs" / "report" / "index.html").read_text()
    assert '<p class="alarm">shard.allow_codec_shortcut is set' in page
    # Of the files as given, and of a benchmark.
    assert page.count('<span class="alarm">gives fakes away</span>') == 2
    assert "train, files as given" in page and "1 of 2 sets pass" in page
    assert ".alarm { color: #b3261e" in page


def test_benchmarks_have_a_section_with_the_gate_and_what_could_not_be_read(finished: Path) -> None:
    page = (finished / "outputs" / "report" / "index.html").read_text()
    start = page.index('<section id="benchmarks">')
    shown = page[start : page.index("</section>", start)]
    for words in (
        '<p class="alarm">evaluate.allow_codec_shortcut is set',
        "forensynths (ForenSynths",
        "&lt;b&gt;",
        "mean over generators",
        "broken.png",
        "recall only: all 5 images are fake",
        "AUROC under jpeg",
        "jpeg, untouched",
    ):
        assert words in shown, words
