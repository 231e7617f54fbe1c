"""The analyses that read a study's runs: transfer, tasks, balance, instructions, sensitivity.

Knows flags and what is told. What is measured and drawn, `instructedit.analysis` knows; no torch is loaded.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from instructedit.terminal import quoted

if TYPE_CHECKING:
    from instructedit.analysis.sweep import Findings
    from instructedit.study.plan import Study
    from instructedit.study.results import Results

    Analysis = Callable[[Study, Results, Path, str], Findings]

STUDY = "configs/study/smollm2-135m.yaml"


def transfer(study: str = STUDY, results: str | None = None, out: str | None = None) -> None:
    """Measure how far editors of one task serve the others, and one editor for all against each.

    Writes transfer.csv, the matrix transfer.png and transfer-own.png, what an editor of all tasks has more than each
    task's own; every picture as SVG too. Runs of the study that are not made yet are left open and named.

    Args:
        study: the study's plan.
        results: where its runs' results lie; null for results/study/NAME.
        out: the folder to write; null for figures in the results' folder.
    """
    from instructedit.analysis.transfer import transfer as analysis

    _run(analysis, study, results, out)


def tasks(study: str = STUDY, results: str | None = None, out: str | None = None) -> None:
    """Measure what one, two and more training tasks give on every task, held-out ones too.

    Writes tasks.csv and tasks.png, and the picture as SVG too. Runs of the study that are not made yet are left open
    and named.

    Args:
        study: the study's plan.
        results: where its runs' results lie; null for results/study/NAME.
        out: the folder to write; null for figures in the results' folder.
    """
    from instructedit.analysis.tasks import tasks as analysis

    _run(analysis, study, results, out)


def balance(study: str = STUDY, results: str | None = None, out: str | None = None) -> None:
    """Measure what the shares of the training tasks do to held-out tasks and the others.

    Writes balance.csv and balance.png, and the picture as SVG too. Runs of the study that are not made yet are left
    open and named.

    Args:
        study: the study's plan.
        results: where its runs' results lie; null for results/study/NAME.
        out: the folder to write; null for figures in the results' folder.
    """
    from instructedit.analysis.balance import balance as analysis

    _run(analysis, study, results, out)


def instructions(study: str = STUDY, results: str | None = None, out: str | None = None) -> None:
    """Measure whether it is the instruction or the longer prompt.

    Writes instructions.csv, instructions.md with what the controls say in words, instructions.png and
    instructions-gains.png, seen minus each control; every picture as SVG too.

    Args:
        study: the study's plan.
        results: where its runs' results lie; null for results/study/NAME.
        out: the folder to write; null for figures in the results' folder.
    """
    from instructedit.analysis.instructions import instructions as analysis

    _run(analysis, study, results, out)


def sensitivity(study: str = STUDY, results: str | None = None, out: str | None = None) -> None:
    """Measure what one changed setting does to reliability and locality, in distribution and held out.

    Writes sensitivity.csv and sensitivity.png, and the picture as SVG too. Runs of the study that are not made yet are
    left open and named.

    Args:
        study: the study's plan.
        results: where its runs' results lie; null for results/study/NAME.
        out: the folder to write; null for figures in the results' folder.
    """
    from instructedit.analysis.sensitivity import sensitivity as analysis

    _run(analysis, study, results, out)


def _run(analysis: "Analysis", plan: str, folder: str | None, out: str | None) -> None:
    from instructedit.analysis.plot import check_installed
    from instructedit.analysis.sweep import advice
    from instructedit.study.plan import read_study
    from instructedit.study.results import Results

    check_installed()
    study = read_study(plan)
    results = Results(study, Path(folder or f"results/study/{study.name}"))
    found = analysis(study, results, Path(out or results.folder / "figures"), plan)
    for said in found.statements:
        print(f"- {said}")
    for path in found.files:
        if path.suffix != ".svg":
            print(f"{_KINDS.get(path.suffix, 'file'):<8}{quoted(path)}")
    for line in advice(plan, results, found.missing):
        print(line)


_KINDS = {".csv": "numbers", ".png": "picture", ".md": "page"}
