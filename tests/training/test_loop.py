"""The training loop: exact resume, errors that say what to do, and what learns."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.training.toy import ToyLosses, toy_batch, toy_model, toy_objective
from unigendet.config import OptimConfig
from unigendet.training.checkpoint import latest_checkpoint
from unigendet.training.loop import LogRow, train

CONFIG = OptimConfig(
    steps=10, lr=0.01, warmup_steps=3, schedule="cosine", log_every=4, checkpoint_every=5
)


class Interrupted(Exception):
    pass


def interrupted_batches(step: int) -> Tensor:
    if step == 5:
        raise Interrupted
    return toy_batch(step)


def same(first: nn.Module, second: nn.Module) -> bool:
    return all(
        torch.equal(a, b)
        for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_ten_steps_equal_five_saved_loaded_and_five_more(tmp_path: Path) -> None:
    whole, rows = toy_model(), list[LogRow]()
    unbroken = train(whole, toy_objective, toy_batch, CONFIG, on_log=rows.append)

    first = toy_model()
    with pytest.raises(Interrupted):
        train(first, toy_objective, interrupted_batches, CONFIG, checkpoint_dir=tmp_path)
    torch.manual_seed(99)
    second, resumed_rows = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 2)), []
    resumed = train(
        second,
        toy_objective,
        toy_batch,
        CONFIG,
        checkpoint_dir=tmp_path,
        on_log=resumed_rows.append,
    )

    assert resumed.resumed_from == 5
    assert same(whole, second)
    assert not same(whole, first)
    for name, value in unbroken.ema.shadow.items():
        assert torch.equal(value, resumed.ema.shadow[name])
    # The window of the log line at step 8 spans the interruption.
    assert [row.step for row in resumed_rows] == [8, 10]
    assert [row.terms for row in rows][1:] == [row.terms for row in resumed_rows]
    assert [row.grad_norm for row in rows][1:] == [row.grad_norm for row in resumed_rows]


def test_a_finished_phase_restores_and_trains_no_further(tmp_path: Path) -> None:
    first, second = toy_model(), toy_model()
    train(first, toy_objective, toy_batch, CONFIG, checkpoint_dir=tmp_path)

    def no_batch(step: int) -> Tensor:
        raise AssertionError(f"step {step} ran again")

    result = train(second, toy_objective, no_batch, CONFIG, checkpoint_dir=tmp_path)
    assert result.resumed_from == 10
    assert same(first, second)


def test_a_process_killed_with_sigkill_resumes(tmp_path: Path) -> None:
    program = """
import os, signal, sys
from pathlib import Path
from tests.training.test_loop import CONFIG
from tests.training.toy import toy_batch, toy_model, toy_objective
from unigendet.training.loop import train

def batches(step):
    if step == 7:
        os.killpg(os.getpgid(0), signal.SIGKILL)
    return toy_batch(step)

train(toy_model(), toy_objective, batches, CONFIG, checkpoint_dir=Path(sys.argv[1]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    whole, resumed = toy_model(), toy_model()
    train(whole, toy_objective, toy_batch, CONFIG)
    result = train(resumed, toy_objective, toy_batch, CONFIG, checkpoint_dir=tmp_path)
    assert result.resumed_from == 5
    assert same(whole, resumed)


def test_a_half_written_checkpoint_is_never_taken(tmp_path: Path) -> None:
    train(toy_model(), toy_objective, toy_batch, CONFIG, checkpoint_dir=tmp_path)
    (tmp_path / ".step-00000099.1").mkdir()
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.name == "step-00000010"


def test_a_full_disk_leaves_no_half_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unigendet.training.checkpoint._flush", full)
    with pytest.raises(OSError, match="No space left"):
        train(toy_model(), toy_objective, toy_batch, CONFIG, checkpoint_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    train(toy_model(), toy_objective, toy_batch, CONFIG, checkpoint_dir=tmp_path)
    other = OptimConfig(steps=10, lr=0.02, warmup_steps=3, schedule="cosine", log_every=4)
    with pytest.raises(ValueError, match=r"another configuration: lr \(saved 0.01, now 0.02\)"):
        train(toy_model(), toy_objective, toy_batch, other, checkpoint_dir=tmp_path)


def test_a_checkpoint_of_another_phase_or_model_is_refused(tmp_path: Path) -> None:
    train(toy_model(), toy_objective, toy_batch, CONFIG, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match="of phase 'train', not 'diga'"):
        train(toy_model(), toy_objective, toy_batch, CONFIG, checkpoint_dir=tmp_path, phase="diga")
    wider = nn.Sequential(nn.Linear(6, 17), nn.Tanh(), nn.Linear(17, 2))
    with pytest.raises(ValueError, match="of another model"):
        train(wider, toy_objective, toy_batch, CONFIG, checkpoint_dir=tmp_path)


@pytest.mark.parametrize("name", ["shard-00001-model-00001-of-00001.safetensors", "state.json"])
def test_a_truncated_checkpoint_is_named(tmp_path: Path, name: str) -> None:
    train(toy_model(), toy_objective, toy_batch, CONFIG, checkpoint_dir=tmp_path)
    damaged = tmp_path / "step-00000010" / name
    damaged.write_bytes(damaged.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"step-00000010.*delete the folder"):
        train(toy_model(), toy_objective, toy_batch, CONFIG, checkpoint_dir=tmp_path)


def test_only_matching_parameters_learn() -> None:
    model, before = toy_model(), toy_model()
    train(model, toy_objective, toy_batch, OptimConfig(steps=3, lr=0.01, trainable=(r"2\..*",)))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before.state_dict()[name]) == name.startswith("0.")
    # A later phase may let the others learn again.
    train(model, toy_objective, toy_batch, OptimConfig(steps=3, lr=0.01, trainable=("0.*",)))
    assert not torch.equal(model.state_dict()["0.weight"], before.state_dict()["0.weight"])


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ((".*", "vit_modle.*"), "'vit_modle.*' matches none"),
        (("[",), "no regular expression"),
        (("0",), "'0' matches none"),
        ((), "no parameter is trainable"),
    ],
)
def test_a_wrong_trainable_pattern_is_an_error(patterns: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config = OptimConfig(steps=1, lr=0.01, trainable=patterns)
        train(toy_model(), toy_objective, toy_batch, config)


def test_the_history_row_is_the_mean_of_its_window() -> None:
    rows, values = list[LogRow](), list[float]()

    def objective(model: nn.Module, batch: Tensor) -> ToyLosses:
        losses = toy_objective(model, batch)
        values.append(float(losses.fit_loss.detach()))
        return losses

    train(toy_model(), objective, toy_batch, CONFIG, on_log=rows.append)
    assert [row.step for row in rows] == [4, 8, 10]
    assert rows[1].terms["fit_loss"] == pytest.approx(sum(values[4:8]) / 4)
    assert rows[-1].seconds_left == 0.0
    assert json.loads(json.dumps(rows[0].terms)) == rows[0].terms
