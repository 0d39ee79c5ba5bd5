"""Images that others name as their source."""

from __future__ import annotations

from unigendet.benchmarking.headers import source_of
from unigendet.data.benchmarks.base import BenchmarkItem
from unigendet.data.benchmarks.containers import ParquetCell
from unigendet.data.source_ids import with_sources


def item(name: str, source_id: str = "", row: int | None = None) -> BenchmarkItem:
    cell = None if row is None else ParquetCell(0, row, "image")
    return BenchmarkItem("/set", name, bool(source_id), "g", "train", "", cell, "", "", source_id)


def sources(*items: BenchmarkItem) -> list[str]:
    return [one.source_id for one in with_sources(items)]


def test_what_is_named_belongs_to_that_source() -> None:
    given = (item("r0.png"), item("fake.png", "r0.png"), item("r1.png"))
    assert sources(*given) == ["r0.png", "r0.png", ""]
    assert [source_of(one) for one in with_sources(given)] == ["r0.png", "r0.png", "r1.png"]


def test_names_lead_on_to_the_first() -> None:
    assert sources(item("a", "scene"), item("b", "a"), item("c", "b")) == ["scene"] * 3
    assert sources(item("a", "a"), item("b", "a")) == ["a", "a"]
    assert sources(item("c", "b"), item("b", "a"), item("a", "b")) == ["a"] * 3


def test_rows_are_called_by_their_key_not_by_their_number() -> None:
    rows = [item("t.parquet#0.0:r0", row=0), item("t.parquet#0.1:f", "r0", row=1)]
    rows += [item("t.parquet#0.2:2", row=2), item("t.parquet#0.3:g", "2", row=3)]
    assert sources(*rows) == ["r0", "r0", "", "2"]
