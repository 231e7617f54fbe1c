"""What benchmarks print: Markdown tables, and last one line of JSON with every number and the machine.

Knows nothing about what is measured.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """Print a table; the first column and every other text column stand left, numbers right."""
    shown = [[_shown(value) for value in row] for row in rows]
    print(f"\n**{title}**\n" if title else "")
    print(f"| {' | '.join(columns)} |")
    print(f"|{'|'.join('---' if _is_text(shown, place) else '---:' for place in range(len(columns)))}|")
    for row in shown:
        print(f"| {' | '.join(row)} |")


def print_json(benchmark: str, numbers: Mapping[str, Any], dtype: str, threads: int | None = None) -> None:
    """Print the last line."""
    print("\n" + json.dumps({"benchmark": benchmark, "machine": machine(dtype, threads), **numbers}), flush=True)


def machine(dtype: str, threads: int | None = None) -> dict[str, object]:
    """What the numbers depend on; the threads are this process's unless others are told."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cores": cores, "torch": torch.__version__, "threads": threads or torch.get_num_threads(), "dtype": dtype}


def _shown(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _is_text(rows: Sequence[Sequence[str]], place: int) -> bool:
    return any(row[place][:1].isalpha() for row in rows)
