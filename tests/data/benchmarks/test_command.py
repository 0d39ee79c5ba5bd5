"""`unigendet datasets`: the list, the table, exit codes."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.data.benchmarks.miniature import check, put, run, write
from unigendet.data.benchmarks.registry import BENCHMARKS, find_benchmark

NAMES = """fakeclue dmimage arforensics genimage forensynths aigcdetectbenchmark universalfakedetect
chameleon loki synthbuster community_forensics openfake drct2m sid_set synthscars opensdi manifest
folder parquet laion unbiased_genimage"""


def test_every_set_is_listed_and_documented() -> None:
    assert set(BENCHMARKS) == set(NAMES.split())
    result = run()
    assert result.exit_code == 0
    page = (Path(__file__).parents[3] / "docs" / "datasets.md").read_text()
    for name, row in BENCHMARKS.items():
        assert re.search(rf"^{name} ", result.stdout, re.MULTILINE) and f"| `{name}` |" in page
        assert row.paper in result.stdout and row.licence in result.stdout


@pytest.mark.parametrize(
    ("name", "near"), [("gen_image", "genimage"), ("SID-Set", "sid_set"), ("loky", "loki")]
)
def test_an_unknown_name_is_told_its_neighbours(tmp_path: Path, name: str, near: str) -> None:
    result = run("check", name, tmp_path)
    assert result.exit_code == 1 and f"did you mean {near}" in result.stderr
    assert "known are fakeclue" in result.stderr
    assert find_benchmark(near).name == near


def test_places_that_cannot_be_read(tmp_path: Path) -> None:
    absent = run("check", "genimage", tmp_path / "absent", "--json")
    assert absent.exit_code == 1 and "no such file or folder" in absent.stderr
    assert absent.stdout == ""
    a_file = run("check", "genimage", write(tmp_path, "x.zip", b"PK"))
    assert a_file.exit_code == 1 and "is a file" in a_file.stderr
    with zipfile.ZipFile(tmp_path / "ADM.zip", "w") as archive:
        archive.writestr("a", "b")
    packed = run("check", "genimage", tmp_path)
    assert packed.exit_code == 1 and "unpack them first" in packed.stderr
    (tmp_path / "empty").mkdir()
    for name in BENCHMARKS:
        result = run("check", name, tmp_path / "empty")
        assert result.exit_code == 1 and result.stderr.startswith("error: "), name
        assert len(result.stderr.splitlines()) == 1, name


def test_the_table_counts_by_generator_class_format_and_size(tmp_path: Path) -> None:
    put(tmp_path, "test/san/0_real/a.png", "test/san/1_fake/a.jpg", "test/san/1_fake/b.jpg")
    for n in range(30):
        write(tmp_path, f"test/san/1_fake/empty{n}.jpg", b"")
    result = run("check", "forensynths", tmp_path)
    assert result.exit_code == 0
    rows = [
        re.split(r"\s*│\s*", line)[1:6] for line in result.stdout.splitlines() if "san " in line
    ]
    assert ["san", "fake", "JPEG", "2", "8x8: 2"] in rows
    assert ["san", "real", "PNG", "1", "8x8: 1"] in rows
    assert "forensynths: 1 real, 2 fake (test: 3)" in result.stdout
    assert "left out: 30" in result.stdout and "and 10 more" in result.stdout
    assert "not here, of the published set: progan" in result.stdout


def test_a_limit_is_a_first_look(tmp_path: Path) -> None:
    put(tmp_path, *(f"{c}/{n}.png" for c in ("0_real", "1_fake") for n in range(5)))
    result = run("check", "folder", tmp_path, "--limit", 3)
    assert result.exit_code == 0 and "stopped at the limit" in result.stdout
    assert "folder: 3 real, 0 fake" in result.stdout
    assert run("check", "folder", tmp_path, "--limit", 0).exit_code == 2
    assert check("folder", tmp_path)["n_fake"] == 5


def test_a_check_needs_no_torch(tmp_path: Path) -> None:
    put(tmp_path, "0_real/a.png", "1_fake/b.jpg", "1_fake/c.webp")
    code = (
        "import sys\nfrom unigendet.data.benchmarks.check import check\n"
        "from unigendet.data.benchmarks.registry import find_benchmark\n"
        f"assert check(find_benchmark('folder'), {str(tmp_path)!r}).count(True) == 2\n"
        "heavy = {'torch', 'pyarrow', 'fsspec', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
