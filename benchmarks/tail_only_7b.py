"""Meta-train the paper's editor on a base of LLaMA-2-7B's shape for ten steps and report the peak of resident memory.

    python benchmarks/random_base.py /tmp/llama-7b-random        # 13.5 GB, about a minute
    python benchmarks/tail_only_7b.py /tmp/llama-7b-random /tmp/tail-only-7b [FLAG ...]

Runs ``instructedit prepare`` and ``instructedit fit --config benchmarks/tail_only_7b.yaml`` with the flags, in the
second folder, and watches fit's /proc/PID/status (Linux). Anonymous memory is the
process's own; what is mapped from files is the checkpoint's pages, which can be dropped at any time.
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
    fit = subprocess.Popen([*program, "fit", "--config", str(CONFIG), *where, *run, *flags])
    peaks, steps = watch(fit, given.folder / name / "metrics.csv")
    if fit.returncode:
        sys.exit(fit.returncode)
    for what, size in peaks.items():
        print(f"{what}: {size / 1e9:.2f} GB")
    if len(steps) > 1:
        gaps = [after - before for before, after in zip(steps, steps[1:], strict=False)]
        print(f"seconds between steps: {', '.join(f'{gap:.1f}' for gap in gaps)}")


def watch(process: subprocess.Popen[bytes], metrics: Path) -> tuple[dict[str, int], list[float]]:
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
        lines = metrics.read_text().count("\n") - 1 if metrics.is_file() else 0
        steps += [time.monotonic()] * (lines - len(steps))
        time.sleep(EVERY)
    process.wait()
    return peaks, steps


if __name__ == "__main__":
    main()
