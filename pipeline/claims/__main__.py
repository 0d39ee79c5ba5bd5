"""`python -m pipeline.claims run | leave-one-out | report`; `make claims` is the first of them.

A result lies under docs/results/<profile>/ as soon as it is there, and what is there is not run
again: the same command goes on after an interruption, and more seeds add to what is committed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.claims.arms import ARMS, DEFAULT_ARMS, base_values, leave_one_out, named_arms
from pipeline.claims.page import PAGE, write_page
from pipeline.claims.run import Plan, run_plan, typed
from pipeline.params import parse_params
from pipeline.profiles import find_profile

SEEDS = (11, 12, 13, 14, 15)
"""Fresh: nothing was chosen on them."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.claims",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--profile", default="tiny", help="name in profiles/, or a params file")
    shared.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=list(SEEDS),
        metavar="SEED",
        help=f"default {' '.join(map(str, SEEDS))}",
    )
    shared.add_argument(
        "--weights", type=Path, help="a sweep's best.yaml: the loss weights of every arm"
    )
    shared.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="seeds to run at a time (default 1)"
    )
    run = verbs.add_parser("run", parents=[shared], help="seeds x arms, then the page")
    run.add_argument(
        "--arms", nargs="*", default=list(DEFAULT_ARMS), metavar="ARM", help=", ".join(ARMS)
    )
    run.add_argument(
        "--arm",
        nargs="+",
        action="append",
        default=[],
        metavar=("NAME", "KEY=VALUE"),
        help="an arm of your own: --arm layer1 coevolve.teacher_layer=1",
    )
    verbs.add_parser(
        "leave-one-out", parents=[shared], help="each family in turn the only test family"
    )
    verbs.add_parser("report", help="make docs/results.md from docs/results/ alone")
    return parser


def main(arguments: Sequence[str]) -> int:
    """The command line; see the module."""
    options = _parser().parse_args(arguments)
    workspace = Path.cwd()
    failed: list[str] = []
    try:
        if options.verb != "report":
            profile = find_profile(options.profile, workspace)
            base = base_values(profile, options.weights)
            if options.verb == "run":
                arms = named_arms(options.arms, options.arm)
            else:
                arms, refused = leave_one_out(parse_params(base, where=str(profile)))
                for family, why in refused.items():
                    print(f"[claims] {family} cannot be the only test family: {why}", flush=True)
            seeds = list(dict.fromkeys(options.seeds))
            if options.jobs < 1:
                raise ValueError(f"--jobs must be at least 1, not {options.jobs}")
            command = typed(arguments)
            plan = Plan(workspace, profile, base, arms, seeds, command, options.jobs)
            failed = run_plan(plan)
        failed += write_page(workspace)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        return 130
    print(f"[claims] {workspace / PAGE}")
    if failed:
        print("\n".join([f"error: {len(failed)} failed:", *failed]), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
