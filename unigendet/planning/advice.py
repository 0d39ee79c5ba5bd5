"""What fits where the plan does not, and how much more where it does."""

from __future__ import annotations

import math
from dataclasses import replace

from unigendet.planning.memory import FRAGMENTS, RESERVE, Machine, MemoryPlan, moments, plan_memory
from unigendet.planning.packs import PackShape
from unigendet.planning.sizes import gib

MOST_GPUS = 4096


def largest_pack(plan: MemoryPlan) -> int:
    """Tokens of the largest pack of the same make-up that fits on each GPU; 0 where none does.

    Everything that depends on the pack grows in proportion to it.
    """
    empty = replace(plan.phase, pack=PackShape(), teacher_pack=PackShape())
    without = replace(plan, moments=moments(empty, plan.machine, plan.counts))
    room = (plan.machine.memory - RESERVE) / (1 + FRAGMENTS)
    share = math.inf
    for name in plan.moments:
        fixed, full = sum(without.at(name).values()), sum(plan.at(name).values())
        if fixed > room:
            return 0
        if full > fixed:
            share = min(share, (room - fixed) / (full - fixed))
    return int(share * plan.phase.pack.tokens)


def advice(plan: MemoryPlan) -> list[str]:
    """What makes a plan fit that does not, each by itself; empty for one that does."""
    if plan.fits:
        return []
    machine, found = plan.machine, list[str]()
    if not machine.recompute:
        found += _told("recomputation", plan, replace(machine, recompute=True))
    if machine.sharding == "ddp":
        found += _told("sharding fsdp", plan, replace(machine, sharding="fsdp"))
    more = _fewest_gpus(plan)
    if more is not None:
        how = " with recomputation" if more.machine.recompute and not machine.recompute else ""
        found.append(f"{more.machine.gpus} GPUs with fsdp{how}: {gib(more.total)} GiB on each")
    tokens = largest_pack(plan)
    if tokens:
        now = plan.phase.pack.tokens
        found.append(f"packs of at most {tokens:,} tokens instead of {now:,}: fewer samples a step")
    if not found:
        needed = gib(plan.total)
        found.append(f"GPUs of {needed} GiB: more of these do not help, nor do smaller packs")
    return found


def _told(what: str, plan: MemoryPlan, machine: Machine) -> list[str]:
    other = plan_memory(plan.phase, machine)
    return [f"{what}: {gib(other.total)} GiB"] if other.fits else []


def _fewest_gpus(plan: MemoryPlan) -> MemoryPlan | None:
    """The first that fits of twice, four times, ... as many GPUs, recomputing where needed."""
    gpus = 2 * plan.machine.gpus
    while gpus <= MOST_GPUS:
        for recompute in sorted({plan.machine.recompute, True}):
            machine = Machine(gpus, plan.machine.memory, "fsdp", recompute)
            other = plan_memory(plan.phase, machine)
            if other.fits:
                return other
        gpus *= 2
    return None
