"""What one of two ranks does in the test of the memory that loading a sharded model takes."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import distributed

from unigendet import parallel
from unigendet.config import OptimConfig
from unigendet.training.session import TrainingSession

OPTIM = OptimConfig(steps=1, lr=1e-3)


def memory(kind: str) -> int:
    """This process's memory in bytes: `VmRSS` now, `VmHWM` the most since the last reset."""
    found = re.search(kind + r":\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def load_main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    session = TrainingSession(folder / "session", sharding="fsdp")
    session.load(folder / "small", OPTIM)  # whatever the libraries take, they have taken
    parallel.wait_for_all()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = memory("VmRSS")
    session.load(folder / "wide", OPTIM)
    (folder / f"bytes{rank}").write_text(str(memory("VmHWM") - before))
    distributed.destroy_process_group()
