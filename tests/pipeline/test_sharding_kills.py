"""Sharding that is killed again and again ends with the bytes of an undisturbed run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.shard_parts import IMAGES_PER_PART
from tests.pipeline.sharding_in_process import ROOT, contents, save_pictures, shard_folder

PICTURES = 120
PARTS = 32
"""Of four images: 120 pictures and 8 everyday photographs."""
RAY_KILLS = int(os.environ.get("UNIGENDET_SHARDING_KILLS", "1"))
"""Each costs a start of Ray; UNIGENDET_SHARDING_KILLS=20 for the whole test."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """A folder of images with some bad ones, and what sharding makes of it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    images = folder / "images"
    save_pictures(images, PICTURES)
    (images / "train" / "0000.png").write_bytes(b"no image")
    (images / "train" / "0001.jpg").write_bytes((images / "test" / "0003.png").read_bytes())
    assert IMAGES_PER_PART > 4
    # Here in two large parts, below in many small ones.
    counts, ctx = shard_folder(images, folder)
    assert (counts.quarantined, counts.left_out) == (1, 1)
    return images, contents(ctx.out)


@pytest.mark.parametrize(
    ("how", "kills"),
    [
        pytest.param("alone", 4, id="alone"),
        pytest.param(
            "ray", RAY_KILLS, id="ray", marks=[pytest.mark.slow, pytest.mark.timeout(2400)]
        ),
    ],
)
def test_killed_at_random_moments(
    tmp_path: Path, undisturbed: tuple[Path, dict[str, bytes]], how: str, kills: int
) -> None:
    images, whole = undisturbed
    rng = np.random.default_rng(int(time.time()) if kills > 4 else 5)
    # After so many finished parts; the last ones fall into the copying, which has no parts.
    moments = np.sort(rng.integers(0, PARTS + 4, kills)).tolist()
    cut_short = 0
    for moment in moments:
        process = _start(images, tmp_path, how)
        while process.poll() is None and _parts(tmp_path) < min(moment, PARTS):
            time.sleep(0.002)
        time.sleep(float(rng.uniform(0, 0.5 if moment > PARTS else 0.05)))
        cut_short += process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert cut_short >= kills - 4, "the moments were to lie within the run"
    last = _start(images, tmp_path, how)
    assert last.wait() == 0
    assert contents(tmp_path / "out") == whole


def _start(images: Path, folder: Path, how: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.pipeline.sharding_in_process"]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [*command, str(images), str(folder), how],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _parts(folder: Path) -> int:
    return len(list((folder / "state" / "parts").glob("*.parquet")))
