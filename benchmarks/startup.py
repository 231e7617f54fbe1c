"""Wall time of the commands that answer at once, and from ``instructedit fit`` to its first optimiser step.

    python benchmarks/startup.py [--repeats 5] [--fits 3] [--dtype float32] [--no-fit]

Claims: ``instructedit --help`` answers within 0.5 s; ``submit --dry-run`` and ``status`` within 1.5 s. Each number is
the median over fresh processes, in turns, after one unmeasured start of each; the files of Python and torch are then in
the page cache. The runs that ``status`` reads are made up, without SLURM jobs. ``submit`` looks at base, data, memory
and disk as always. ``fit`` trains the demo's configuration and is killed after its first step.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from output import print_json, print_table

from instructedit.runs.progress import Progress, write_progress

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = (sys.executable, "-m", "instructedit")
DEMO = "demo-recent,demo-counterfact,demo-convsent,demo-zsre"
RUNS = 10
LOOK_SECONDS = 0.005
"""Between two looks at a training's files."""

FIRST_STEP_SECONDS = 600.0
"""A training that has made no step by then has failed."""


@dataclass(frozen=True)
class Start:
    """A command to time.

    Args:
        name: for the table.
        argv: what follows ``instructedit``.
        bar: the seconds it may take; None for no claim.
        status: its exit status.
    """

    name: str
    argv: tuple[str, ...]
    bar: float | None = None
    status: int = 0


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="measured starts of each command")
    parser.add_argument("--fits", type=int, default=3, help="measured trainings")
    parser.add_argument("--no-fit", action="store_true", help="leave the trainings out")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "experiment" / "demo.yaml")
    parser.add_argument("--dtype", default="bfloat16", help="of the base, for the trainings")
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = prepared(folder)
        times = measure(starts(folder, given.config, data), given.repeats)
        rows = [
            (start.name, median(seconds), min(seconds), max(seconds), *verdict(start, median(seconds)))
            for start, seconds in times.items()
        ]
        fits = [] if given.no_fit else first_steps(folder, given.config, data, given.dtype, given.fits)
    for place, what in enumerate(("fit, until its checks are done", "fit, until its first step")):
        seconds = [fit[place] for fit in fits]
        if seconds:
            rows.append((what, median(seconds), min(seconds), max(seconds), "", ""))
    print_table(("command", "median s", "min", "max", "bar", ""), rows)
    numbers = {
        "repeats": given.repeats,
        "seconds": {start.name: seconds for start, seconds in times.items()},
        "bars_met": all(start.bar is None or median(seconds) < start.bar for start, seconds in times.items()),
        "fit_checked_s": [fit[0] for fit in fits],
        "fit_first_step_s": [fit[1] for fit in fits],
    }
    print_json("startup", numbers, given.dtype)


def verdict(start: Start, seconds: float) -> tuple[str, str]:
    """The bar, and whether it was met."""
    return ("", "") if start.bar is None else (f"{start.bar} s", "met" if seconds < start.bar else "MISSED")


def starts(folder: Path, config: Path, data: Path) -> list[Start]:
    """The commands that answer at once, with made-up runs for ``status``."""
    empty, runs = folder / "no-runs", folder / "runs"
    empty.mkdir()
    make_up_runs(runs)
    fit = ("fit", "--config", str(config), "--config", str(ROOT / "configs" / "trainer" / "cpu.yaml"))
    to = ("--data.folder", str(data), "--run.folder", str(folder / "submitted"))
    return [
        Start("--help", ("--help",), 0.5),
        Start("submit --dry-run", ("submit", "--dry-run", "--", *fit, *to), 1.5),
        Start("status, no runs", ("status", "--folder", str(empty)), 1.5, status=2),
        Start(f"status, {RUNS} runs", ("status", "--folder", str(runs)), 1.5),
    ]


def make_up_runs(folder: Path) -> None:
    """Write what ``status`` reads of runs that are done, have stopped, failed, or are running."""
    for n in range(RUNS):
        run = folder / f"run-{n}"
        run.mkdir(parents=True)
        (run / "config.yaml").write_text("{}\n", encoding="utf-8")
        (run / "run.json").write_text(json.dumps({"wandb_id": f"made-up-{n}"}), encoding="utf-8")
        state = ("done", "stopped", "failed", "running")[n % 4]
        metrics = {"val/score": 50.0 + n, "train/loss": 1.0 / (n + 1)}
        told = Progress(state, 100 * n, 1000, metrics=metrics, pid=os.getpid(), host=os.uname().nodename)  # type: ignore[arg-type]
        write_progress(run, told)


def measure(commands: Sequence[Start], repeats: int) -> dict[Start, list[float]]:
    """Time every command ``repeats`` times, in turns; the first turn is not counted."""
    times: dict[Start, list[float]] = {start: [] for start in commands}
    for turn in range(repeats + 1):
        for start in commands:
            began = time.perf_counter()
            done = subprocess.run([*PROGRAM, *start.argv], cwd=ROOT, capture_output=True, text=True)
            seconds = time.perf_counter() - began
            if done.returncode != start.status:
                sys.exit(f"instructedit {' '.join(start.argv)} ended with {done.returncode}:\n{done.stderr}")
            if turn:
                times[start].append(seconds)
    return times


def prepared(folder: Path) -> Path:
    """Prepare the demo tasks."""
    out = folder / "data"
    command = [*PROGRAM, "prepare", "--source", "demo", "--out", str(out), "--tasks", DEMO]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return out


def first_steps(folder: Path, config: Path, data: Path, dtype: str, repeats: int) -> list[tuple[float, float]]:
    """Start trainings one after the other; the first is not counted."""
    return [first_step(folder, config, data, dtype, f"first-{n}") for n in range(repeats + 1)][1:]


def first_step(folder: Path, config: Path, data: Path, dtype: str, name: str) -> tuple[float, float]:
    """Seconds until a training has checked everything, and until the first line of its metrics is written."""
    configs = ("--config", str(config), "--config", str(ROOT / "configs" / "trainer" / "cpu.yaml"))
    place = ("--data.folder", str(data), "--run.folder", str(folder / "fits"), "--run.name", name)
    short = ("--model.dtype", dtype, "--model.warmup_steps", "0", "--trainer.max_steps", "2")
    run, log = folder / "fits" / name, folder / f"{name}.log"
    with log.open("w") as output:
        began = time.perf_counter()
        process = subprocess.Popen([*PROGRAM, "fit", *configs, *place, *short], cwd=ROOT, stdout=output, stderr=output)
        try:
            checked = _until(lambda: (run / "run.json").is_file(), process, log) - began
            stepped = _until(lambda: _steps(run / "metrics.csv") > 0, process, log) - began
        finally:
            process.kill()
            process.wait()
    return checked, stepped


def _steps(metrics: Path) -> int:
    """Whole lines after the header."""
    return metrics.read_bytes().count(b"\n") - 1 if metrics.is_file() else 0


def _until(there: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> float:
    end = time.perf_counter() + FIRST_STEP_SECONDS
    while not there():
        if process.poll() is not None or time.perf_counter() > end:
            sys.exit(f"instructedit fit made no step (exit status {process.poll()}):\n{log.read_text()[-3000:]}")
        time.sleep(LOOK_SECONDS)
    return time.perf_counter()


if __name__ == "__main__":
    main()
