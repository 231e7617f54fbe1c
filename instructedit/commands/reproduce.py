"""The command ``reproduce``: the runs of a study that are missing, then its figures and its report.

Knows the order of the work and what is told. What a study is, `instructedit.study.plan` knows.
"""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from instructedit.errors import InputError
from instructedit.terminal import quoted

if TYPE_CHECKING:
    from instructedit.study.plan import Study, StudyRun
    from instructedit.study.results import Results

Names = list[str] | str
"""A list, or names separated by commas."""


def reproduce(
    study: str = "configs/study/smollm2-135m.yaml",
    out: str | None = None,
    runs_folder: str = "runs/study",
    only: Names = "",
    threads: int | None = None,
    one_process: bool = False,
    plan: bool = False,
    only_report: bool = False,
    allow_dirty: bool = False,
) -> None:
    """Make the runs of a study that are missing, one by one, then its figures and its report.

    Stopped in any way, the same command goes on. A run that is done is a small folder of numbers: committed, the study
    goes on from it on any machine. Start the command several times to make several runs side by side.

    Args:
        study: the study's plan.
        out: where what is kept goes; null for results/study/NAME.
        runs_folder: where the run directories go: checkpoints, editors, everything large.
        only: runs to make now, by name; the others are left for another time, and so is the report.
        threads: of each run; null leaves it to the program.
        one_process: make all of it in this process: quicker for tiny bases, where imports are most of the time.
        plan: list the runs and what has become of them, and stop.
        only_report: make figures and report of what is there, and train nothing.
        allow_dirty: go on although the code differs from its commit; rows and report are marked.
    """
    from instructedit.study.plan import read_study
    from instructedit.study.results import Results

    planned = read_study(study)
    results = Results(planned, Path(out or f"results/study/{planned.name}"))
    chosen = [planned.run(name) for name in _names(only)] or list(planned.runs)
    if threads is not None and threads < 1:
        raise InputError(f"--threads is {threads}. Set it to 1 or more.")
    if plan:
        _show(planned, results, Path(runs_folder))
        return
    _check_packages()
    if not only_report:
        _check(planned, allow_dirty)
        _make_missing(planned, results, chosen, Path(runs_folder), threads, one_process, allow_dirty)
        if only and results.missing:
            _next(study, results)
            return
    _report(planned, results, Path(runs_folder), study)


def _names(given: Names) -> tuple[str, ...]:
    parts = given.split(",") if isinstance(given, str) else given
    return tuple(part.strip() for part in parts if part.strip())


def _check_packages() -> None:
    for package in ("matplotlib", "sklearn"):
        if importlib.util.find_spec(package) is None:
            raise InputError(
                f"Figures need the package {package!r}, which is not installed. "
                "Run `pip install 'instructedit[analysis]'`."
            )


def _check(study: "Study", allow_dirty: bool) -> None:
    """Refuse what would end hours later."""
    from instructedit.provenance import revision

    code = revision()
    if code.dirty and not allow_dirty:
        raise InputError(
            f"The code differs from its commit {code.commit[:12]}, so that no evaluation would be made. Commit your "
            "changes, or mark what is made with --allow_dirty true."
        )
    data = Path(study.evaluate.get("data", "data/prepared"))
    for task in study.tasks:
        if not (data / task).is_dir():
            hint = f" Run `{study.prepare}`." if study.prepare else " Run `instructedit prepare`."
            raise InputError(f"Task {task!r} is not prepared in {data}.{hint}")


def _make_missing(
    study: "Study",
    results: "Results",
    chosen: "Sequence[StudyRun]",
    folder: Path,
    threads: int | None,
    one_process: bool,
    allow_dirty: bool,
) -> None:
    from instructedit.study.calls import NotDone, in_processes, in_this_process
    from instructedit.study.runner import Runner

    call = in_this_process if one_process else in_processes(threads)
    runner = Runner(study, results, folder, call, allow_dirty, threads=None if one_process else threads)
    failed: list[tuple[str, NotDone]] = []
    left, made = list(chosen), 1
    while left and made:
        busy, made = [], 0
        for run in left:
            if results.has(run.name):
                continue
            with runner.held(run) as mine:
                if not mine:
                    busy.append(run)
                    continue
                if results.has(run.name):  # made by another process since
                    continue
                _tell_start(study, results, run, chosen)
                try:
                    kept = runner.make(run)
                except NotDone as error:
                    if error.stopped:
                        print(f"{error} Nothing finished is lost; the same command goes on.", file=sys.stderr)
                        raise SystemExit(error.status) from error
                    print(f"{run.name}: {error} Going on with the others.", file=sys.stderr)
                    failed.append((run.name, error))
                else:
                    made += 1
                    print(f"kept    {quoted(kept)}", flush=True)
        # What others had may be done by now, or free again because they were killed.
        left = [run for run in busy if not results.has(run.name)]
    if left:
        print(f"another process makes {', '.join(run.name for run in left)}", flush=True)
    if failed:
        names = ", ".join(name for name, _ in failed)
        print(f"error: not made: {names}. What is wrong stands above; the same command tries again.", file=sys.stderr)
        raise SystemExit(failed[0][1].status)


def _tell_start(study: "Study", results: "Results", run: "StudyRun", chosen: "Sequence[StudyRun]") -> None:
    from instructedit.study.outlook import clock, now, remaining

    missing = [one for one in chosen if not results.has(one.name)]
    left = remaining(results, missing)
    number = [one.name for one in study.runs].index(run.name) + 1
    time_left = f", about {clock(left)} left" if left is not None else ""
    print(f"{now()}   run {number} of {len(study.runs)}: {run.name} ({len(missing)} to make{time_left})", flush=True)


def _show(study: "Study", results: "Results", folder: Path) -> None:
    """Print the runs, what they are and what has become of them."""
    from rich.console import Console
    from rich.table import Table

    from instructedit.runs.progress import read_progress
    from instructedit.study.outlook import clock, remaining

    table = Table(
        title=f"The study {study.name}: {len(results.done)} of {len(study.runs)} runs done", title_justify="left"
    )
    for name in ("run", "method", "rows", "state"):
        table.add_column(name)
    for run in study.runs:
        progress = read_progress(folder / study.name / run.name) if run.trains else None
        state = "done" if results.has(run.name) else "missing"
        if state == "missing" and progress is not None:
            state = "trained" if progress.state == "done" else f"step {progress.step} of {progress.max_steps}"
        table.add_row(run.name, run.trained_as if run.trains else run.method, str(len(study.rows(run))), state)
    console = Console()
    console = console if console.is_terminal else Console(width=120)
    console.print(table)
    left = remaining(results, [study.run(name) for name in results.missing])
    if left:
        print(f"the missing ones take about {clock(left)} by those that are done")
    print(f"results {quoted(results.folder)}")


def _next(plan: str, results: "Results") -> None:
    from instructedit.analysis.sweep import reproducing

    print(f"missing {', '.join(results.missing)}")
    print(f"next    instructedit {reproducing(plan, results)}    (makes them, and the report)")


def _report(study: "Study", results: "Results", folder: Path, plan: str) -> None:
    """Draw what is there, and write the report."""
    from instructedit.analysis import balance, instructions, sensitivity, tasks, transfer
    from instructedit.study.calls import in_this_process
    from instructedit.study.gradients import gradients_made
    from instructedit.study.report import write_report
    from instructedit.study.runner import Runner

    if not results.done:
        raise InputError(f"No run of {study.name} is done in {results.folder}. Leave --only_report out to make them.")
    figures = results.folder / "figures"
    sweeps = {
        "transfer": transfer.transfer,
        "tasks": tasks.tasks,
        "balance": balance.balance,
        "instructions": instructions.instructions,
        "sensitivity": sensitivity.sensitivity,
    }
    said: dict[str, Sequence[str]] = {}
    for name, draw in sweeps.items():
        if name in study.analyses:
            try:
                said[name] = draw(study, results, figures, plan).statements
            except InputError as error:  # nothing of it is there yet
                print(f"{name}: {error}", file=sys.stderr)
    runner = Runner(study, results, folder, in_this_process)
    if "gradients" in study.analyses and not gradients_made(runner, figures):
        print("gradients: not measured, as not all of their editors are here", file=sys.stderr)
    report = write_report(study, results, results.folder / "REPORT.md", figures, plan=plan, said=said)
    print(f"report  {quoted(report)}")
    print(f"figures {quoted(figures)}")
    if results.missing:
        _next(plan, results)
