"""A rank that loads a model to share it holds its own part, never the model."""

from __future__ import annotations

from pathlib import Path

from torch import multiprocessing

from tests.models.published import small_config, small_parts, wide_config
from tests.training.load_process import load_main
from unigendet.models.pretrained import save_pretrained


def test_host_memory_of_a_rank_is_its_part_and_one_tensor(tmp_path: Path) -> None:
    save_pretrained(tmp_path / "small", *small_parts(small_config()))
    save_pretrained(tmp_path / "wide", *small_parts(wide_config()))
    multiprocessing.spawn(load_main, args=(tmp_path,), nprocs=2)
    whole = (tmp_path / "wide" / "model.safetensors").stat().st_size
    assert whole > 80e6
    for rank in (0, 1):
        taken = int((tmp_path / f"bytes{rank}").read_text())
        assert 0.4 * whole < taken < 0.5 * whole + 16 * 2**20, f"{taken / whole:.2f} of the model"
