"""What the commands share: their common options, errors for people, how far they are."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unigendet.data.plain_text import plain_lines

if TYPE_CHECKING:  # imports torch, which `unigendet --help` need not wait for
    from unigendet.inference import Progress, UniGenDet

DEFAULT_MODEL = Path("outputs/model")
ModelOption = Annotated[Path, typer.Option("--model", help="Folder of the trained model.")]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, or cuda where there is one.")]


def load_model(model: Path, device: str) -> UniGenDet:
    """The model of a folder. Raises ValueError where it or the device cannot be used."""
    from unigendet.inference import UniGenDet

    if not model.is_dir():
        raise ValueError(
            f"no model at {model}: train one (`make repro`) or name its folder with --model"
        )
    return UniGenDet.from_pretrained(model, device)


@contextmanager
def progress_bar(label: str, shown: bool, *, lines: bool = False) -> Iterator[Progress | None]:
    """A bar with the time left on stderr, where someone is looking; elsewhere, where `lines` asks
    for it, a line every tenth of the way."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not shown or not console.is_terminal:
        yield _lines(label) if lines else None
        return
    columns = (TextColumn(label), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines(label: str) -> Progress:
    began, said = time.monotonic(), 0

    def tell(done: int, total: int) -> None:
        nonlocal said
        if 10 * done // total > said:
            said = 10 * done // total
            left = (time.monotonic() - began) * (total - done) / done
            typer.echo(f"{label}: {done / total:.0%}, {left:.0f} s left", err=True)

    return tell


@contextmanager
def errors_for_people() -> Iterator[None]:
    """What a user can mend (ValueError) or the system refuses (OSError) as one line, exit 1."""
    try:
        yield
    except (ValueError, OSError) as error:
        typer.echo(f"error: {plain_lines(str(error))}", err=True)
        raise typer.Exit(1) from error
