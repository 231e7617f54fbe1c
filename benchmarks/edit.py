"""Wall time of an edit with its report of before and after, once base and editor are loaded.

    python benchmarks/edit.py [--editor runs/demo/editor] [--base smollm2-135m] [--dtype float32] [--threads 2]

Claim: under 3 s on SmolLM2-135M and 2 cores. Five requests, each with a rephrase and two answers to be kept, what
`instructedit edit` does for one; the first of a process is told apart, later ones find what the base says of the kept
answers in memory. Without --editor a new one is made, which takes as long as a trained one. Loading is told apart.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from output import print_json, print_table
from setting import DTYPES, make_base, make_batches, make_editor

from instructedit.base import Base
from instructedit.checkpoints import EditorCard, save_editor
from instructedit.editing.editor import Editor
from instructedit.instructions.pools import load_pools
from instructedit.records import EditRequest

BAR = 3.0
REQUESTS = (("Spain", "Vienna"), ("Norway", "Lima"), ("Japan", "Ottawa"), ("Kenya", "Prague"), ("Chile", "Hanoi"))
KEEP = ("The capital of France is", "Water is made of hydrogen and")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--editor", type=Path, help="the folder of a trained editor; without it a new one is made")
    parser.add_argument("--base", default="smollm2-135m")
    parser.add_argument("--rank", type=int, default=256, help="of a new editor")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        editor = given.editor or new_editor(make_base(given.base, DTYPES[given.dtype]), given.rank, Path(folder))
        start = time.perf_counter()
        loaded = Editor.load(editor, given.base, dtype=DTYPES[given.dtype])
        load_seconds = time.perf_counter() - start
    edits, reports = measure(loaded)
    both = [edit + report for edit, report in zip(edits, reports, strict=True)]
    rows = [
        ("loading base and editor", load_seconds, None, ""),
        ("edit", statistics.median(edits), edits[0], ""),
        ("report", statistics.median(reports), reports[0], ""),
        ("edit and report", statistics.median(both), both[0], "yes" if max(both) < BAR else "no"),
    ]
    title = f"{given.base}, {loaded.card.method}, {given.dtype}, {given.threads} threads, {len(both)} requests"
    print_table(("what", "median, s", "first, s", f"all below {BAR:g} s"), rows, title)
    seconds = {"load": load_seconds, "edit": edits, "report": reports, "both_median": statistics.median(both)}
    about = {"base": given.base, "method": loaded.card.method, "bar": BAR, "within": max(both) < BAR}
    print_json("edit", {**about, "seconds": seconds}, given.dtype)


def new_editor(base: Base, rank: int, folder: Path) -> Path:
    """Write an editor nobody has trained."""
    editor, _ = make_editor(base, rank, make_batches(base, 4, 2))
    card = EditorCard.of(editor, base, tasks=["demo-counterfact"], pools=load_pools())
    save_editor(folder / "editor", editor, card)
    return folder / "editor"


def measure(editor: Editor) -> tuple[list[float], list[float]]:
    """Return the seconds of each request's edit, and of its report."""
    edits, reports = [], []
    for country, city in REQUESTS:
        request = EditRequest(f"The capital of {country} is", city, task=editor.card.tasks[0], subject=country)
        start = time.perf_counter()
        edit = editor.edit(request)
        made = time.perf_counter()
        edit.report(rephrases=[f"The city that serves as the capital of {country} is"], keep=KEEP)
        edits.append(made - start)
        reports.append(time.perf_counter() - made)
    return edits, reports


if __name__ == "__main__":
    main()
