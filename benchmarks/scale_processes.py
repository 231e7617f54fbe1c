"""Part 1 of scale.py: trainings on the processes of this machine, and what they counted against the formula.

Knows how ranks are started and watched; what one of them does is scale_rank.py.
"""

import argparse
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from statistics import median
from typing import Any

from memory_table import LAST_BLOCKS
from output import machine
from random_base import LLAMA_2_7B, write
from scale_model import Collective, Strategy, by_kind, traffic
from transformers import LlamaConfig

from instructedit.hypernet.sizes import mend_size

HERE = Path(__file__).resolve().parent
SMALL = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4, "num_attention_heads": 4}
SMALL |= {"num_key_value_heads": 4, "vocab_size": 8000, "dtype": "float32"}
"""``--base random``."""

SKIPPED = 2
"""Steps before the measured ones."""

WAIT_SECONDS = 900.0


def measure(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Run the trainings in turns; one result for each strategy and number of ranks."""
    runs: dict[tuple[Strategy, int], list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base, data = given.base, given.data or folder / "data"
        if base == "random":
            with redirect_stdout(io.StringIO()):
                write(LlamaConfig(**{**LLAMA_2_7B, **SMALL}), folder / "base")
            base = str(folder / "base")
        if not given.data:
            prepare = ["prepare", "--source", "demo", "--out", str(data), "--tasks", ",".join(given.tasks)]
            subprocess.run([sys.executable, "-m", "instructedit", *prepare], check=True, capture_output=True)
        settings = {"base": base, "data": str(data), "last_blocks": LAST_BLOCKS, "skipped": SKIPPED}
        settings |= {key: getattr(given, key) for key in ("tasks", "dtype", "rank", "batch", "steps")}
        for turn in range(given.rounds):
            for strategy in given.strategies:
                for ranks in given.ranks:
                    own = {**settings, "strategy": strategy, "ranks": ranks}
                    place = folder / f"{turn}-{strategy}-{ranks}"
                    runs.setdefault((strategy, ranks), []).append(train(place, own))
    return [compared(strategy, ranks, found, given) for (strategy, ranks), found in runs.items()]


def train(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Run one training on its ranks and return what rank zero has written."""
    folder.mkdir()
    (folder / "settings.json").write_text(json.dumps(settings))
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    ranks = settings["ranks"]
    threads = max(1, int(machine("")["cores"]) // ranks)  # type: ignore[call-overload]
    common = {"NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": str(threads)}
    processes = []
    for rank in range(ranks):
        command = [sys.executable, HERE / "scale_rank.py", folder / "settings.json", folder / f"{rank}.json"]
        env = {**os.environ, **common, "LOCAL_RANK": str(rank)}
        with (folder / f"{rank}.log").open("w") as log:
            processes.append(subprocess.Popen(command, env=env, stdout=log, stderr=log))
    try:
        statuses = [process.wait(WAIT_SECONDS) for process in processes]
    finally:
        for process in processes:
            process.kill()
    if any(statuses):
        logs = [f"--- rank {rank}\n{(folder / f'{rank}.log').read_text()[-3000:]}" for rank in range(ranks)]
        sys.exit(f"The ranks of {settings['strategy']} have ended with {statuses}.\n" + "\n".join(logs))
    result: dict[str, Any] = json.loads((folder / "0.json").read_text())
    return result


def compared(
    strategy: Strategy, ranks: int, runs: Sequence[dict[str, Any]], given: argparse.Namespace
) -> dict[str, Any]:
    """Put the rounds of one kind together and hold what was counted against the formula."""
    first = runs[0]
    shapes = [tuple(shape) for shape in first["shapes"]]
    editor = mend_size(shapes, given.rank)
    parts = traffic(strategy, editor, len(shapes), len(given.tasks))
    formula, counted = by_kind(parts), first["counted"]
    seconds = median(second for run in runs for second in run["seconds"])
    collectives = [
        {
            "kind": kind,
            "calls": counted.get(kind, {}).get("calls", 0.0),
            "bytes": counted.get(kind, {}).get("bytes", 0.0),
            "formula": formula.get(kind, 0.0),
            "ratio": counted.get(kind, {}).get("bytes", 0.0) / formula[kind] if formula.get(kind) else None,
        }
        for kind in sorted({*formula, *counted})
    ]
    return {
        "strategy": strategy,
        "ranks": ranks,
        "threads": first["threads"],
        "step_s": seconds,
        "edits_per_second": given.batch / seconds,
        "parameters": first["parameters"],
        "collectives": collectives,
        "sent_counted": sum(ranks * Collective("", kind, told["bytes"]).sent(ranks) for kind, told in counted.items()),
        "sent_formula": sum(ranks * part.sent(ranks) for part in parts),
        "loopback": median(run["loopback"] for run in runs),
    }
