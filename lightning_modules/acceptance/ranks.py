"""What the ranks check together, one process each, started once: meeting, collectives, bf16, an edit, the store.

A check that raises on one rank fails on all; the ranks then go on with the next one together. NCCL comes last: where it
hangs, its own watchdog ends the process.
"""

import dataclasses
import traceback
from collections.abc import Callable

from lightning_modules.acceptance import accelerator, sharing
from lightning_modules.acceptance.rank import Part, Rank, join
from lightning_modules.acceptance.results import Result, write_results
from lightning_modules.acceptance.setting import Setting

Check = Callable[[Rank], Part]


def meet(rank: Rank) -> Part:
    """The ranks that were asked for are there, on as many nodes."""
    setting = rank.setting
    nodes = sorted(set(rank.gathered(rank.node)))
    numbers = {"ranks": float(rank.ranks), "nodes": float(len(nodes))}
    if rank.ranks != setting.ranks or len(nodes) != setting.nodes:
        asked = f"{setting.ranks} ranks on {setting.nodes} nodes were asked for"
        return Part(f"{rank.ranks} ranks on {', '.join(nodes)}; {asked}", numbers=numbers)
    return Part(told=f"{rank.ranks} on {', '.join(nodes)}", numbers=numbers)


CHECKS: dict[str, Check] = {
    "ranks meet": meet,
    "devices": accelerator.devices,
    "shared folder": sharing.folder,
    "gloo all-reduce": accelerator.gloo,
    "bf16 products": accelerator.products,
    "bf16 edit": accelerator.edit,
    "trunk store": sharing.store,
    "torn packs": sharing.torn,
    "NCCL all-reduce": accelerator.nccl,
}
"""By their names in the table, in order."""


def main(setting: Setting) -> None:
    """Run every check in every rank; rank zero writes the results as they come."""
    rank = join(setting)
    found: list[Result] = []
    for name, check in CHECKS.items():
        rank.talk.begin(name)
        result = judge(name, run(check, rank), rank)
        found.append(result)
        if rank.number == 0:
            write_results(setting.folder, "ranks", found)
    rank.talk.leave()


def run(check: Check, rank: Rank) -> Part:
    """Run a check; what it raises is its fault."""
    try:
        return check(rank)
    except Exception as error:  # a check that breaks is a result too
        traceback.print_exc()
        rank.talk.break_off()
        first = " ".join(str(error).split())[:300]
        return Part(fault=f"{type(error).__name__}: {first}")


def judge(name: str, own: Part, rank: Rank) -> Result:
    """Put the ranks' parts together: the first one's words, or all that is wrong."""
    rank.talk.begin(f"{name}: verdict")
    parts = [(who, Part(**part)) for who, part in rank.gathered((rank.name, dataclasses.asdict(own)))]
    faults: dict[str, list[str]] = {}
    for who, part in parts:
        if part.fault:
            faults.setdefault(part.fault, []).append(who)
    first = parts[0][1]
    numbers = first.numbers or {}
    if faults:
        told = "; ".join(f"{', '.join(who)}: {fault}" for fault, who in faults.items())
        return Result(name, "FAIL", told, numbers)
    if first.skipped:
        return Result(name, "SKIP", first.skipped, numbers)
    return Result(name, "PASS", first.told, numbers)
