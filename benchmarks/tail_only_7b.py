"""Meta-train the paper's editor on a base of LLaMA-2-7B's shape for ten steps and report the peak of resident memory.

    python benchmarks/random_base.py /tmp/llama-7b-random        # 13.5 GB, about a minute
    python benchmarks/tail_only_7b.py /tmp/llama-7b-random /tmp/tail-only-7b [--fill] [FLAG ...]

Runs ``instructedit prepare`` and ``instructedit fit --config benchmarks/tail_only_7b.yaml`` with the flags, in the
second folder; with --fill ``instructedit prepare --trunk`` between the two, so that fit reads no block of the trunk.
Watches their /proc/PID/status (Linux). Anonymous memory is the process's own; what is mapped from files is the
checkpoint's pages, which can be dropped at any time.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

EVERY = 0.1
"""Seconds between two looks."""

CONFIG = Path(__file__).with_suffix(".yaml")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--fill", action="store_true", help="compute the trunk's states before, in a run of its own")
    given, flags = parser.parse_known_args()
    program = [sys.executable, "-m", "instructedit"]
    data, base = given.folder / "demo", given.base.resolve()
    given.folder.mkdir(parents=True, exist_ok=True)
    if not data.is_dir():
        tasks = ["--source", "demo", "--out", str(data), "--tasks", "demo-counterfact"]
        subprocess.run([*program, "prepare", *tasks], check=True)
    name = f"tail-only-{int(time.time())}"
    where = ["--model.base", str(base), "--data.folder", str(data)]
    run = ["--run.folder", str(given.folder), "--run.name", name]
    common = ["--config", str(CONFIG), *where, *run, *flags]
    if given.fill:
        common += ["--model.store.folder", str(given.folder / "states")]
        report("prepare --trunk", [*program, "prepare", "--trunk", *common], None)
    report("fit", [*program, "fit", *common], given.folder / name / "metrics.csv")


def report(what: str, command: list[str], metrics: Path | None) -> None:
    """Run a command and print its peaks, and the time between the lines of its metrics."""
    start = time.monotonic()
    process = subprocess.Popen(command)
    peaks, steps = watch(process, metrics)
    if process.returncode:
        sys.exit(process.returncode)
    print(f"{what}: {time.monotonic() - start:.0f} s", flush=True)
    for peak, size in peaks.items():
        print(f"{what}: {peak} {size / 1e9:.2f} GB", flush=True)
    if len(steps) > 1:
        gaps = [after - before for before, after in zip(steps, steps[1:], strict=False)]
        print(f"{what}: seconds between steps {', '.join(f'{gap:.1f}' for gap in gaps)}")


def watch(process: subprocess.Popen[bytes], metrics: Path | None) -> tuple[dict[str, int], list[float]]:
    """Return the highest of each number of memory in bytes, and when each line of the metrics was first seen."""
    peaks = {"VmHWM": 0, "RssAnon": 0, "RssFile": 0}
    steps: list[float] = []
    while process.poll() is None:
        try:
            status = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
        except OSError:
            break
        for what in peaks:
            peaks[what] = max(peaks[what], int(status.get(what, "0 kB").split()[0]) * 1024)
        lines = metrics.read_text().count("\n") - 1 if metrics and metrics.is_file() else 0
        steps += [time.monotonic()] * (lines - len(steps))
        time.sleep(EVERY)
    process.wait()
    return peaks, steps


if __name__ == "__main__":
    main()
