"""The command ``compare``: runs beside each other, from their directories or from Weights & Biases.

Knows which sources, tables and files are asked for; what they hold, `instructedit.comparison` knows.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from instructedit.comparison.formats import to_csv, to_markdown, to_rich
from instructedit.comparison.local import read_run
from instructedit.comparison.pairs import compare_pairs
from instructedit.comparison.ranking import choose, rank, variant_of
from instructedit.comparison.runs import ComparedRun
from instructedit.comparison.sections import WIDE, Section, finals, paired, ranking, seeds, settings
from instructedit.errors import InputError, unknown
from instructedit.evaluation.metrics import VARIANTS
from instructedit.runs.directory import write_whole
from instructedit.runs.state import find_runs
from instructedit.terminal import shown

MOST_PAIRS = 30
"""The terminal shows all cells of a paired test up to so many."""


def compare(
    runs: Sequence[str] = (),
    metric: str | None = None,
    out: Path | None = None,
    against: str | None = None,
    folder: str = "runs",
    wandb: str | None = None,
    group: str | None = None,
    filter: str | None = None,
    sync: bool = False,
) -> None:
    """Compare runs: settings that differ, test tables with intervals, ranking, paired test; with --out also curves.

    Args:
        runs: run directories, names in the folder of all runs, or groups of runs.
        metric: what to rank by, for instance val/score (the default), train/loss or test/zsre/reliability.
        out: a folder for compare.md, compare.csv and compare.html, one page with the curves that opens anywhere.
        against: the run that all others are held against in the paired test; the best one by default.
        folder: the folder of all runs.
        wandb: read runs of this project of Weights & Biases too, as entity/project.
        group: of that project, only the runs of this group.
        filter: of that project, only runs with these settings: key=value, several with commas between.
        sync: upload what the runs have kept offline to Weights & Biases, and compare nothing.
    """
    if sync:
        from instructedit.comparison.sync import sync_runs

        if wandb or group or filter or metric or out or against:
            raise InputError("--sync uploads runs and compares nothing. Give it runs alone.")
        left_out: list[str] = []
        found = find_runs(runs, Path(folder), left_out)
        for line in left_out:
            print(shown(line), file=sys.stderr)
        sync_runs(found)
        return
    if (group or filter) and not wandb:
        raise InputError("--group and --filter choose among the runs of --wandb entity/project, which is not given.")
    notes: list[str] = []
    compared = _read(find_runs(runs, Path(folder), notes), notes) if runs or not wandb else []
    if wandb:
        from instructedit.comparison.wandb_runs import read_project

        compared += read_project(wandb, group, filter, taken=[run.name for run in compared])
    _compare(compared, metric, out, against, notes)


def _read(paths: Sequence[Path], notes: list[str]) -> list[ComparedRun]:
    """Read runs; a note tells of one that cannot be used, unless none can."""
    runs, errors = [], []
    for path, name in zip(paths, short_names(paths), strict=True):
        try:
            runs.append(read_run(path, name))
        except InputError as error:
            errors.append(error)
    if not runs:
        raise errors[0]
    notes += [f"left out: {error}" for error in errors]
    return runs


def short_names(paths: Sequence[Path]) -> list[str]:
    """The ends of paths, as long as they must be to tell them apart.

    >>> short_names([Path("runs/a"), Path("runs/sweep/seed-0"), Path("old/sweep2/seed-0")])
    ['a', 'sweep/seed-0', 'sweep2/seed-0']
    """
    parts = [Path(os.path.realpath(path)).parts for path in paths]
    names = []
    for mine in parts:
        length = 1
        while length < len(mine) and sum(other[-length:] == mine[-length:] for other in parts) > 1:
            length += 1
        names.append(shown("/".join(mine[-length:])))
    return names


def _compare(
    runs: list[ComparedRun], metric: str | None, out: Path | None, against: str | None, notes: Sequence[str]
) -> None:
    metric = choose(runs, metric)
    standings = rank(runs, metric)
    runs = [standing.run for standing in standings]
    variant = variant_of(metric)
    pairs = compare_pairs(standings, _named(runs, against) if against else None, variant) if len(runs) > 1 else None
    head, between = [ranking(standings, metric), settings(runs)], seeds(runs)
    notes = [*notes, *(note for run in runs for note in run.notes)]
    told = Section("Notes", (), (), 0, tuple(notes)) if notes else None
    order = [variant, *(other for other in VARIANTS if other != variant)]
    tables = [finals(runs, each) for each in order]
    whole = [*head, *tables, between, paired(pairs) if pairs else None, told]
    # The terminal has what is asked for first; the files have all of it.
    short = [*head, finals(runs, variant, unseen=len(runs) <= WIDE), between]
    short += [paired(pairs, MOST_PAIRS) if pairs else None, told]
    lies = _write(out, [section for section in whole if section], runs) if out else {}
    console = Console()
    console = console if console.is_terminal else Console(width=130)
    for section in short:
        if section:
            console.print(to_rich(section, [run.name for run in runs]))
    if not lies:
        console.print("Learning curves, all tables as a page, Markdown and CSV: --out FOLDER", style="dim")
    for what, path in lies.items():
        console.print(f"{what:<10}{shown(path)}", soft_wrap=True, highlight=False, markup=False)


def _named(runs: Sequence[ComparedRun], name: str) -> ComparedRun:
    """The run that is meant by its name here or by its place."""
    for run in runs:
        if name.rstrip("/") in (run.name, run.source) or os.path.realpath(name) == os.path.realpath(run.source):
            return run
    raise unknown("run", name, [run.name for run in runs], "--against takes one of the runs that are compared.")


def _write(out: Path, sections: Sequence[Section], runs: Sequence[ComparedRun]) -> dict[str, Path]:
    from instructedit.comparison.page import to_html

    lies = {"page": out / "compare.html", "Markdown": out / "compare.md", "numbers": out / "compare.csv"}
    texts = (to_html(sections, runs), to_markdown(sections), to_csv(runs))
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path, text in zip(lies.values(), texts, strict=True):
            # A name may hold bytes that are no UTF-8; they are spelled out.
            write_whole(path, text.encode(errors="backslashreplace").decode())
    except OSError as error:
        raise InputError(f"Cannot write to {out}: {error.strerror}. Give --out another folder.") from error
    return lies
