"""The `unigendet` command: judge images, draw images, bring published weights in and out, check
benchmarks (`cli_datasets.py`) and evaluate on them (`cli_evaluate.py`).

Exit codes: 0 all went well; 1 something could not be used (the message on stderr says what and what
to do), or at least one image could not be read; 2 the command line is wrong.
"""

from __future__ import annotations

import json
import os
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unigendet import cli_datasets, cli_evaluate
from unigendet.config import DEFAULT_GUIDANCE, DEFAULT_STEPS
from unigendet.data.plain_text import plain, plain_lines
from unigendet.terminal import (
    DEFAULT_MODEL,
    DeviceOption,
    ModelOption,
    errors_for_people,
    load_model,
    progress_bar,
)

if TYPE_CHECKING:  # these import torch, which `unigendet --help` need not wait for
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from unigendet.inference import Detection, UniGenDet
    from unigendet.models.exchange import Written


class WeightType(StrEnum):
    """What weights can be stored as, by torch's names."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Detect and explain generated images, and generate images, with one trained model.",
)

app.add_typer(cli_datasets.app, name="datasets")
app.command()(cli_evaluate.evaluate)


@app.command()
def detect(
    images: Annotated[list[Path], typer.Argument(metavar="IMG...", help="Image files.")],
    model: ModelOption = DEFAULT_MODEL,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    explain: Annotated[
        bool, typer.Option("--explain/--no-explain", help="Also say what shows it.")
    ] = True,
    batch_size: Annotated[int, typer.Option(min=1, help="Images judged at once.")] = 16,
    device: DeviceOption = "cpu",
) -> None:
    """Judge images: P(fake), the verdict, and what shows it.

    An image that cannot be read is reported and the others are judged all the same.
    """
    rows: list[Detection | str] = []  # a text is why the image could not be read
    with errors_for_people():
        loaded = load_model(model, device)
        shown = len(images) > batch_size and not as_json
        with progress_bar("judging", shown) as progress:
            for start in range(0, len(images), batch_size):
                rows += _judge(loaded, images[start : start + batch_size], explain)
                if progress is not None:
                    progress(len(rows), len(images))
    found = list(zip(images, rows, strict=True))
    if as_json:
        typer.echo(json.dumps([_record(path, row) for path, row in found], indent=2))
    else:
        _print_table(found, explain)
    broken = [row for row in rows if isinstance(row, str)]
    for message in broken:
        typer.echo(f"error: {plain_lines(message)}", err=True)
    if broken:
        raise typer.Exit(1)


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What to draw, in the words of the captions.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Image file to write.")],
    model: ModelOption = DEFAULT_MODEL,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same image.")] = 0,
    steps: Annotated[
        int, typer.Option(min=1, help="Euler steps from noise to image.")
    ] = DEFAULT_STEPS,
    guidance: Annotated[
        float, typer.Option(help="How much the prompt counts; 1 is plain.")
    ] = DEFAULT_GUIDANCE,
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Pixels; by default what it was trained on.")
    ] = None,
    device: DeviceOption = "cpu",
) -> None:
    """Draw one image for a prompt and write it to a file, whole or not at all."""
    with errors_for_people():
        shape = _parse_size(size)
        _check_output(output)
        loaded = load_model(model, device)
        with progress_bar("drawing", True) as progress:
            (image,) = loaded.generate(
                [prompt],
                seed=seed,
                steps=steps,
                guidance=guidance,
                size=shape,
                progress=progress,
            )
        _write_image(image, output)
    typer.echo(f"wrote {output} ({image.shape[1]} x {image.shape[0]})")


@app.command("import")
def import_(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SRC",
            help="BAGEL folder, or a checkpoint: a .safetensors file, an index, a folder.",
        ),
    ],
    folder: Annotated[Path, typer.Argument(metavar="DST", help="Model folder to make.")],
    config: Annotated[
        Path | None,
        typer.Option(help="Where SRC brings no configuration: BAGEL folder, or a config.json."),
    ] = None,
    initialise: Annotated[
        str,
        typer.Option(
            metavar="NAME,...",
            help="What SRC lacks and is to start afresh: fake_cls_head, latent_to_vit_connector, "
            "diga_mlp.",
        ),
    ] = "",
    seed: Annotated[int, typer.Option(min=0, help="What starts afresh is drawn from it.")] = 0,
    dtype: Annotated[
        WeightType | None, typer.Option(help="Store the weights as this; by default as in SRC.")
    ] = None,
) -> None:
    """Make a model folder of published weights, tensor by tensor, whole or not at all."""
    with errors_for_people():
        import torch

        from unigendet.models.exchange import import_weights

        with progress_bar("importing", True) as progress:
            written = import_weights(
                source,
                folder,
                config=config,
                initialise=[name.strip() for name in initialise.split(",") if name.strip()],
                dtype=None if dtype is None else getattr(torch, dtype.value),
                seed=seed,
                progress=progress,
            )
    _print_written(written, folder)


@app.command()
def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model folder.")],
    folder: Annotated[Path, typer.Argument(metavar="DST", help="Published folder to make.")],
) -> None:
    """Write a model as BAGEL is published: its file names, tensor names and configurations."""
    with errors_for_people():
        from unigendet.models.exchange import export_weights

        with progress_bar("exporting", True) as progress:
            written = export_weights(model, folder, progress=progress)
    _print_written(written, folder)


def _print_written(written: Written, folder: Path) -> None:
    types = ", ".join(str(dtype).removeprefix("torch.") for dtype in written.dtypes)
    typer.echo(f"wrote {folder}: {written.tensors} tensors, {types}, {written.nbytes / 1e9:.2f} GB")


def _judge(model: UniGenDet, paths: list[Path], explain: bool) -> list[Detection | str]:
    """One result per path: what was found, or why the image could not be read."""
    from unigendet.data.image_files import ImageError, read_image

    rows: list[Detection | str] = [""] * len(paths)
    readable: dict[int, Image.Image] = {}
    for index, path in enumerate(paths):
        try:
            readable[index] = read_image(path)
        except ImageError as error:
            rows[index] = str(error)
    if readable:
        found = model.detect(list(readable.values()), explain=explain, batch_size=len(readable))
        for index, result in zip(readable, found, strict=True):
            rows[index] = result
    return rows


def _record(path: Path, row: Detection | str) -> dict[str, str | float | None]:
    if isinstance(row, str):
        return {"image": str(path), "error": row}
    return {
        "image": str(path),
        "score": row.score,
        "verdict": "fake" if row.fake else "real",
        "explanation": row.explanation or None,
    }


def _print_table(found: list[tuple[Path, Detection | str]], explain: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("image", "P(fake)", "verdict", *(["explanation"] if explain else []))
    for path, row in found:
        if isinstance(row, str):
            continue
        verdict = Text("fake", style="red") if row.fake else Text("real", style="green")
        cells = [Text(plain(path.name)), Text(f"{row.score:.3f}"), verdict]
        table.add_row(*cells, *([Text(plain(row.explanation, 2000))] if explain else []))
    if table.row_count:
        Console().print(table)


def _parse_size(size: str | None) -> tuple[int, int] | None:
    """(height, width) of `WxH`."""
    if size is None:
        return None
    width, cross, height = size.lower().partition("x")
    if not (cross and width.isdecimal() and height.isdecimal()):
        raise ValueError(f"--size is WxH in pixels, 64x64 for instance; got {size!r}")
    return int(height), int(width)


def _check_output(path: Path) -> None:
    """Refuse what could not be written before time is spent on the image."""
    from PIL import Image

    writable = sorted(
        suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.SAVE
    )
    if path.suffix.lower() not in writable:
        raise ValueError(f"{path}: the file's ending must name an image kind, .png for instance")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a file")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: the folder {path.parent} does not exist")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"{path}: the folder {path.parent} cannot be written to")


def _write_image(image: NDArray[np.uint8], path: Path) -> None:
    """Write beside the target, then rename: a full disk leaves an earlier file as it was."""
    from PIL import Image

    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    staged = Path(name)
    try:
        Image.fromarray(image).save(staged)
        umask = os.umask(0)
        os.umask(umask)
        staged.chmod(0o666 & ~umask)  # mkstemp makes it private
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)


if __name__ == "__main__":
    app()
