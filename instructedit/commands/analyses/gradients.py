"""The analysis ``gradients``: how far the tasks' editing gradients lie apart, raw and as each editor transforms them.

Knows flags and what is told. What is measured, `instructedit.analysis.gradients` knows; the files,
`instructedit.analysis.gradient_files` does.
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from instructedit.cli import underscored
from instructedit.commands.parser import command_parser
from instructedit.errors import InputError
from instructedit.provenance import revision, versions
from instructedit.repeated import gathered
from instructedit.terminal import quoted

if TYPE_CHECKING:
    from instructedit.analysis.gradients import Findings, GradientMeasurement
    from instructedit.analysis.separation import Interval

ABOUT = """Collect editing gradients of test records, raw and as each editor transforms them, and tell the tasks apart.

  instructedit analyse gradients --editors InstructEdit=runs/a/editor MEND=runs/b/editor \\
      MEND-single=recent:runs/c/editor,counterfact:runs/d/editor --data data/prepared \\
      --tasks recent,counterfact,convsent,zsre --out results/gradients

An editor of several tasks is NAME=FOLDER. NAME=TASK:FOLDER,TASK:FOLDER puts editors of one task each under one name:
each task's gradients come from its own."""


def gradients(argv: Sequence[str]) -> None:
    """Measure and draw what the flags ask for.

    Args:
        argv: see ``instructedit analyse gradients --help``.

    Raises:
        InputError: a flag, an editor, the records or the folder to write is refused.
    """
    parser = command_parser(
        "analyse gradients",
        "instructedit analyse gradients --editors NAME=EDITOR [NAME=EDITOR ...] --out FOLDER [flags]",
        ABOUT,
        "See docs/analyse.md.",
    )
    parser.add_function_arguments(_from_flags, as_group=False)
    _from_flags(**parser.parse_args(gathered(underscored(argv), ["--editors"], more_values=True)).as_dict())


def _from_flags(
    editors: list[str] = [],  # noqa: B006 - never changed; shown in --help
    data: str = "data/prepared",
    tasks: str | list[str] = "recent,counterfact,convsent,zsre",
    records: int = 100,
    instructions: Literal["seen", "unseen"] = "seen",
    out: str = "",
    neighbours: int = 10,
    perplexity: float = 30.0,
    draws: int = 1000,
    seed: int = 0,
    batch: int = 8,
    base: str = "",
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Measure and draw.

    Args:
        editors: trained editors of one base with the same sites, each NAME=FOLDER or NAME=TASK:FOLDER,TASK:FOLDER.
        data: a folder of prepared tasks, whose test records are used.
        tasks: the tasks that are told apart, with commas between.
        records: records a task, chosen by a hash of their ids.
        instructions: which instruction InstructEdit is given: one it was trained with, or the one it never saw.
        out: the folder to write.
        neighbours: of each record, whose task is looked at for purity.
        perplexity: of t-SNE; of few records at most a third of them.
        draws: bootstrap samples behind the intervals.
        seed: of the draws and of t-SNE; one other than 0 chooses other records too.
        batch: records in one pass.
        base: the base, where it is not found under the name that the editors' cards have.
        dtype: the base's dtype; auto takes the one the first editor was trained on.
        device: where the base is; auto takes a GPU where there is one.
    """
    from instructedit.analysis.editors import parse_editors

    wanted = [task.strip() for task in (tasks.split(",") if isinstance(tasks, str) else tasks) if task.strip()]
    found = measure_gradients(
        parse_editors(editors, wanted),
        data,
        wanted,
        out,
        records=records,
        instructions=instructions,
        neighbours=neighbours,
        perplexity=perplexity,
        draws=draws,
        seed=seed,
        batch=batch,
        base=base,
        dtype=dtype,
        device=device,
    )
    _tell(Path(out), found)


def measure_gradients(
    editors: Mapping[str, Mapping[str, str]],
    data: str,
    tasks: Sequence[str],
    out: str | Path,
    *,
    records: int = 100,
    instructions: Literal["seen", "unseen"] = "seen",
    neighbours: int = 10,
    perplexity: float = 30.0,
    draws: int = 1000,
    seed: int = 0,
    batch: int = 8,
    base: str = "",
    dtype: str = "auto",
    device: str = "auto",
) -> "Findings":
    """Do what ``instructedit analyse gradients`` does, but for the table on the terminal, with a bar of the steps.

    Args:
        editors: per name the folder of each task's editor; one folder for all tasks of an editor of several.
        data: a folder of prepared tasks.
        tasks: those that are told apart.
        out: the folder to write; files of the same names there are replaced.
        records: of a task.
        instructions: which one InstructEdit is given.
        neighbours: of each record, for purity.
        perplexity: of t-SNE.
        draws: bootstrap samples.
        seed: of draws and t-SNE; another than 0 chooses other records.
        batch: records in one pass.
        base: the base, where it is not found under its name.
        dtype: of the base, or auto.
        device: of the base, or auto.

    Raises:
        InputError: something is missing or refused.
    """
    _check(out)
    from instructedit.analysis.gradients import GradientMeasurement, Options
    from instructedit.evaluation.progress import EditProgress

    options = Options(neighbours, perplexity, draws, seed)
    start = time.perf_counter()
    measurement = GradientMeasurement.of(
        editors, data, tasks, records, instructions, options, base, dtype, device, batch
    )
    with EditProgress(measurement.steps, unit="steps") as progress:
        found = measurement.measure(progress.advance)
    settings = {"data": str(data), "tasks": list(tasks), "records": records, "instructions": instructions}
    settings |= {"neighbours": neighbours, "perplexity": perplexity, "draws": draws, "seed": seed, "batch": batch}
    _write(Path(out), measurement, found, settings | {"seconds": round(time.perf_counter() - start, 1)})
    return found


def _check(out: str | Path) -> None:
    """Refuse what needs no weights to be refused."""
    from instructedit.analysis.plot import check_installed
    from instructedit.editing.flags import check_out

    if not str(out):
        raise InputError("--out is missing. Name the folder for the tables and figures, such as results/gradients.")
    check_out(Path(out), folder=True)
    check_installed(["matplotlib", "sklearn"])


def _write(out: Path, measurement: "GradientMeasurement", found: "Findings", settings: dict[str, Any]) -> None:
    import torch

    from instructedit.analysis.gradient_files import write
    from instructedit.editing.about import told_of_editor

    code = revision()
    loaded = measurement.loaded

    def named(folder: Path) -> str:
        # Committed with the figures: where this machine keeps its runs is nobody's concern.
        return f"{folder.parent.name}/{folder.name}" if folder.is_absolute() else str(folder)

    told = {named(Path(folder)): told_of_editor(one.card, one.weights_sha256) for folder, one in loaded.items()}
    first = next(iter(loaded.values()))
    run = {
        **settings,
        "editors": {
            one.name: {task: named(Path(folder)) for task, folder in one.folders.items()} for one in measurement.named
        },
        "weights": told,
        "base": {"name": first.base.name, "fingerprint": first.base.fingerprint, "dtype": str(first.base.dtype)},
        "perplexity_used": {picture.name: picture.perplexity for picture in found.pictures},
        "zero_gradients": {f"{name}, {kind}": ids for (name, kind), ids in found.zeros.items() if ids},
        "commit": code.commit,
        "dirty": code.dirty,
        "versions": versions() | _more_versions(),
        "device": str(first.base.device),
        "threads": torch.get_num_threads(),
    }
    title = f"{Path(first.card.base).name}, {settings['records']} records a task"
    if any(editor.card.pools is not None for editor in loaded.values()):
        title += f", {settings['instructions']} instructions"
    try:
        out.mkdir(parents=True, exist_ok=True)
        write(found, out, title)
        (out / "run.json").write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"Cannot write to --out {out} ({error}). Choose another folder.") from error


def _more_versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("numpy", "scikit-learn", "matplotlib")}


def _tell(out: Path, found: "Findings") -> None:
    from rich.console import Console
    from rich.table import Table

    from instructedit.analysis.collect import ALL_SITES
    from instructedit.analysis.gradient_files import SEPARATION
    from instructedit.analysis.separation import MEASURES

    table = Table(title="How far the tasks lie apart: directions, all sites, 95 % intervals", title_justify="left")
    table.add_column("editor")
    table.add_column("gradients")
    for name in MEASURES:
        table.add_column(name, justify="right")
    pairs = dict.fromkeys((row.name, row.kind) for row in [*found.rows, *found.differences])
    cells = {
        (row.name, row.kind, row.measure): _cell(row.found)
        for row in [*found.rows, *found.differences]
        if row.scale == "direction" and row.site == ALL_SITES
    }
    for name, kind in pairs:
        table.add_row(name, kind, *(cells[name, kind, measure] for measure in MEASURES))
    console = Console()
    console = console if console.is_terminal else Console(width=180)
    console.print(table)
    chance = next(row.chance for row in found.rows if row.measure == "purity")

    def tell(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    tell(f"purity by chance: {chance:.3f}; lines with a minus are differences, on the records both have")
    tell(f"tables  {quoted(out / SEPARATION)}, differences.csv, coordinates.csv, explained.csv, run.json")
    tell(f"figures {quoted(out / 'tsne.png')} (Figure 4a), components, separation, sites; png and svg")


def _cell(found: "Interval") -> str:
    # A rounded 0 has no sign.
    value, low, high = (f"{round(number, 3) + 0.0:.3f}" for number in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"
