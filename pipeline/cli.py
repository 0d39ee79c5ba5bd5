"""The installed `unigendet` command: that of the library, and what needs a whole params file."""

from __future__ import annotations

import json
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from unigendet.cli import app
from unigendet.terminal import errors_for_people


class ShardingChoice(StrEnum):
    """How several GPUs share a model."""

    NONE = "none"
    DDP = "ddp"
    FSDP = "fsdp"


@app.command()
def plan(
    memory: Annotated[str, typer.Option(metavar="SIZE", help="Of one GPU: 80GiB, 80GB, ...")],
    profile: Annotated[
        str, typer.Option(help="Name of a profile in profiles/, or a params file.")
    ] = "params.yaml",
    gpus: Annotated[int, typer.Option(min=1, help="How many.")] = 1,
    sharding: Annotated[
        ShardingChoice | None, typer.Option(help="By default as the profile says of several GPUs.")
    ] = None,
    recompute: Annotated[
        bool | None,
        typer.Option(
            "--recompute/--no-recompute",
            help="Make activations anew in the backward; by default as the profile says.",
        ),
    ] = None,
    caption_tokens: Annotated[int, typer.Option(min=0, help="Tokens of a caption.")] = 64,
    answer_tokens: Annotated[int, typer.Option(min=0, help="Tokens of an answer.")] = 96,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, in bytes.")] = False,
) -> None:
    """Say what training a profile takes: memory of each GPU, whether it fits, checkpoints."""
    with errors_for_people():
        if find_spec("pydantic") is None:
            raise ValueError("params files need the pipeline: pip install 'unigendet[pipeline]'")
        from pipeline.params import load_params
        from pipeline.planning import plan_experiment
        from pipeline.profiles import find_profile
        from unigendet.planning import show
        from unigendet.planning.packs import Texts
        from unigendet.planning.sizes import parse_size

        size = parse_size(memory)
        params = load_params(find_profile(profile, Path.cwd()))
        several = ShardingChoice(params.cluster.sharding) if gpus > 1 else ShardingChoice.NONE
        planned = plan_experiment(
            params,
            Texts(caption=caption_tokens, answer=answer_tokens),
            gpus=gpus,
            memory=size,
            sharding=(sharding or several).value,
            recompute=recompute,
        )
    title = Path(profile).stem
    if as_json:
        typer.echo(json.dumps(show.as_json(title, planned), indent=2))
    else:
        typer.echo(show.as_text(title, planned))


if __name__ == "__main__":
    app()
