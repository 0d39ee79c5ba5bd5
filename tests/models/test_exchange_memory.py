"""Import and export take the memory of a tensor, whatever the size of the model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.models.published import assert_same, small_config, small_parts, wide_config
from unigendet.models.exchange import export_weights
from unigendet.models.pretrained import save_pretrained
from unigendet.models.weight_specs import spec_of
from unigendet.models.weight_writer import write_weights

MEASURED = """
import re, sys
from pathlib import Path
from unigendet.models.exchange import export_weights, import_weights

def memory(kind):
    return int(re.search(kind + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

source, model, again, first = sys.argv[1:]
import_weights(source, first)  # whatever the libraries take, they have taken
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = memory("VmRSS")
import_weights(source + "-wide", model, shard_bytes=16 * 2**20)
export_weights(model, again)
print(memory("VmHWM") - before)
"""


@pytest.mark.parametrize("sharded", [True, False])
def test_memory_is_bounded_by_the_largest_shard(tmp_path: Path, sharded: bool) -> None:
    """Measured: importing and exporting 100 MB costs less than a shard of 16 MB."""
    source = tmp_path / "source"
    for config, folder in ((small_config(), source), (wide_config(), tmp_path / "source-wide")):
        save_pretrained(tmp_path / "plain", *small_parts(config))
        export_weights(tmp_path / "plain", folder)
    weights = load_file(tmp_path / "source-wide" / "ema.safetensors")
    size = sum(value.nbytes for value in weights.values())
    assert size > 80e6 and max(value.nbytes for value in weights.values()) < 5e6
    if sharded:
        specs = {name: spec_of(value) for name, value in weights.items()}
        write_weights(
            *(tmp_path / "source-wide", "model", specs, weights.__getitem__),
            shard_bytes=16 * 2**20,
        )
        (tmp_path / "source-wide" / "ema.safetensors").unlink()
    arguments = [source, tmp_path / "model", tmp_path / "again", tmp_path / "first"]
    ran = subprocess.run(
        [sys.executable, "-c", MEASURED, *map(str, arguments)],
        check=True,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert len(list((tmp_path / "model").glob("model-*"))) > 5
    assert int(ran.stdout) < 16 * 2**20, f"{int(ran.stdout) / 2**20:.0f} MiB"
    assert_same(load_file(tmp_path / "again" / "ema.safetensors"), weights)
