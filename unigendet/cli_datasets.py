"""`unigendet datasets`: the sets that can be read, and a check of one folder."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from unigendet.data.benchmarks.check import Progress, Report

SHOWN = 20
"""Rows of a table's tail that are printed; `--json` has all."""

app = typer.Typer(help="Benchmarks and folders that can be read: list them, check one.")


@app.callback(invoke_without_command=True)
def list_sets(context: typer.Context) -> None:
    """List every set: its name, what it is, how it lies on disk, paper and licence."""
    if context.invoked_subcommand is not None:
        return
    from unigendet.data.benchmarks.registry import BENCHMARKS

    width = max(map(len, BENCHMARKS)) + 2
    for row in BENCHMARKS.values():
        paper = f"arXiv {row.paper}, " if row.paper else ""
        typer.echo(f"{row.name:{width}}{row.title} [{paper}licence: {row.licence}]")
        typer.echo(f"{'':{width}}{row.on_disk}")
        typer.echo(f"{'':{width}}class: {row.native}")


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="A name that `unigendet datasets` lists.")],
    place: Annotated[str, typer.Argument(metavar="PATH", help="Folder, file or URI.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many images: a first look.")
    ] = None,
) -> None:
    """Read a folder as a benchmark: counts, files left out, and what the published set has more.

    Headers are read, images are not decoded unless they look cut off. Exit code 1 where the folder
    cannot be used as it is.
    """
    from unigendet.data.benchmarks.check import check as check_folder
    from unigendet.data.benchmarks.registry import find_benchmark
    from unigendet.data.plain_text import plain_lines

    try:
        benchmark = find_benchmark(name)
        with _progress() as progress:
            report = check_folder(benchmark, place, limit=limit, progress=progress)
    except (ValueError, OSError) as error:
        typer.echo(f"error: {plain_lines(str(error))}", err=True)
        raise typer.Exit(1) from error
    if as_json:
        typer.echo(json.dumps(report.to_json(), indent=2))
    else:
        _print(report)
    if report.problem:
        typer.echo(f"error: {plain_lines(report.problem)}", err=True)
        raise typer.Exit(1)


def _print(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from unigendet.data.plain_text import plain

    sizes: dict[tuple[str, bool, str], Counter[str]] = {}
    for (generator, is_fake, kind, size), n in report.counts.items():
        sizes.setdefault((generator, is_fake, kind), Counter())[size] += n
    table = Table("generator", "class", "format", "images", "sizes")
    for (generator, is_fake, kind), counts in sorted(sizes.items()):
        common = ", ".join(f"{size}: {n}" for size, n in counts.most_common(3))
        more = f", {len(counts) - 3} more" if len(counts) > 3 else ""
        row = (plain(generator, 60), "fake" if is_fake else "real", kind)
        table.add_row(*map(Text, (*row, str(sum(counts.values())), common + more)))
    if sizes:
        Console().print(table)
    real, fake = report.count(False), report.count(True)
    splits = ", ".join(f"{split}: {n}" for split, n in sorted(report.splits.items()))
    _say(f"{report.name}: {real} real, {fake} fake ({splits or 'nothing'})")
    if not report.complete:
        _say("stopped at the limit: classes and parts may be there that were not reached")
    if report.missing:
        _say(f"not here, of the published set: {', '.join(report.missing)}")
    if report.skipped:
        _say(f"left out: {len(report.skipped)}")
    for left in report.skipped[:SHOWN]:
        _say(f"  {plain(left.path)}: {plain(left.reason)}")
    if len(report.skipped) > SHOWN:
        _say(f"  and {len(report.skipped) - SHOWN} more (--json lists all)")


def _say(line: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    typer.echo(line.encode(encoding, "backslashreplace").decode(encoding))


@contextmanager
def _progress() -> Iterator[Progress | None]:
    """How many images so far, on stderr, where someone is looking."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    with console.status("reading") as status:

        def shown(done: int) -> None:
            if done % 100 == 0:
                status.update(f"reading: {done:,} files")

        yield shown
