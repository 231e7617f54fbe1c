"""The command ``analyse``: a table of analyses, each a word of its own behind it, loaded when it is called.

Knows the analyses' names. A row is a `Command` as in `instructedit.cli`, so an analysis is a typed function, or takes
its arguments itself; what it measures, `instructedit.analysis` knows.
"""

from collections.abc import Sequence

from instructedit.cli import Command, listed, run_command
from instructedit.errors import InputError, unknown

ANALYSES: dict[str, Command] = {
    "gradients": Command(
        "instructedit.commands.analyses.gradients:gradients",
        "How far the tasks' editing gradients lie apart, raw and as each editor transforms them (Figure 4a).",
        takes="argv",
    ),
    "transfer": Command(
        "instructedit.commands.analyses.sweeps:transfer",
        "Every editor of one task on every task, and one editor for all against each of them.",
    ),
    "tasks": Command(
        "instructedit.commands.analyses.sweeps:tasks",
        "One, two and more training tasks: what each gives on every task, held-out ones too (Figure 4b, c).",
    ),
    "balance": Command(
        "instructedit.commands.analyses.sweeps:balance",
        "In which shares the training tasks are mixed, and what that does to the held-out task (Figure 4d).",
    ),
    "instructions": Command(
        "instructedit.commands.analyses.sweeps:instructions",
        "Is it the instruction or the longer prompt: seen against unseen, wrong, shuffled, filler and empty.",
    ),
    "sensitivity": Command(
        "instructedit.commands.analyses.sweeps:sensitivity",
        "One setting changed at a time: weight of the edit loss, rank, direction, sites.",
    ),
}


def help_text() -> str:
    """What ``instructedit analyse --help`` prints: one line per analysis."""
    return "\n".join(
        [
            "usage: instructedit analyse ANALYSIS [--flags]",
            "",
            "The paper's analyses: figures as PNG and SVG, numbers as CSV, seeds fixed. See docs/analyse.md.",
            "",
            "analyses:",
            *listed(ANALYSES),
            "",
            "`instructedit analyse ANALYSIS --help` lists its flags.",
        ]
    )


def analyse(argv: Sequence[str]) -> None:
    """Run one analysis.

    Args:
        argv: its name and its flags; see ``instructedit analyse --help``.

    Raises:
        InputError: there is no such analysis, or it refused its input.
    """
    if not argv:
        raise InputError(f"Which analysis? Name one of {', '.join(ANALYSES)}; `instructedit analyse --help` says more.")
    name, *rest = argv
    if name in ("-h", "--help", "help"):
        print(help_text())
    elif name not in ANALYSES:
        raise unknown("analysis", name, ANALYSES, "`instructedit analyse --help` says what each shows.")
    else:
        run_command(f"analyse {name}", ANALYSES[name], rest)
