"""The command line: a table of commands, each loaded only when it is called.

Knows the commands' names and exit statuses, nothing of what they do; imports nothing heavy, so that
``instructedit --help`` answers at once. The strings that name ``lightning_modules`` are the library's only mention of
the glue.

Exit statuses: 0 done; 1 a fault of ours (with its traceback); 2 bad input (one line on stderr); 3 stopped by the
scheduler before its end and not started again; 130 interrupted.
"""

import inspect
import os
import re
import sys
import traceback
from argparse import ArgumentError
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from itertools import islice, zip_longest
from typing import Any, Literal, NoReturn

from instructedit import __version__
from instructedit.errors import InputError, unknown
from instructedit.scheduling import MAX_REQUEUES
from instructedit.terminal import shown


@dataclass(frozen=True)
class Command:
    """One row of the table.

    Attributes:
        target: where the command's function is, as ``"module:function"``.
        summary: its line in ``instructedit --help``.
        takes: ``"flags"``: a typed function, whose signature and docstring make its flags and help.
            ``"argv"``: a function of the list of arguments, which parses them itself.
        instead: what is run in its place when a flag is among the arguments; it is given the other ones.
        saves: whether it saves and stops on a scheduler's signal by itself; any other command just ends, and does
            again what it had not finished when its job goes on.
        bare: the function's parameter that takes the arguments without a flag, a list; none for most.
    """

    target: str
    summary: str
    takes: Literal["flags", "argv"] = "flags"
    instead: Mapping[str, "Command"] = field(default_factory=dict)
    saves: bool = False
    bare: str | None = None


COMMANDS: dict[str, Command] = {
    "prepare": Command(
        "instructedit.commands.prepare:prepare",
        "Read, check and store the tasks' records; with --trunk, the states of a run's inputs.",
        instead={
            "--trunk": Command(
                "lightning_modules.trunk_fill:fill",
                "fill the trunk store of a run ahead of it, from the same --config files",
                takes="argv",
            )
        },
    ),
    "fit": Command(
        "lightning_modules.cli:fit",
        "Meta-train an editor, or go on with its run; ends with the editor folder and the test table.",
        takes="argv",
        saves=True,
    ),
    "validate": Command(
        "lightning_modules.cli:validate",
        "Score a run's checkpoint on its validation records.",
        takes="argv",
    ),
    "test": Command(
        "lightning_modules.cli:test",
        "Make the test table of a run's checkpoint again.",
        takes="argv",
    ),
    "evaluate": Command(
        "instructedit.commands.evaluate:evaluate",
        "Edit the same records with every method and write one table, with intervals and the paper's numbers.",
    ),
    "edit": Command(
        "instructedit.commands.edit:edit",
        "Edit a base with a trained editor: what it says before and after, and the edit as a file; --interactive.",
        takes="argv",
    ),
    "retention": Command(
        "instructedit.commands.retention:retention",
        "Edit N requests into one base: how many are still answered, how far unrelated answers move; with a picture.",
        takes="argv",
    ),
    "instruct": Command(
        "instructedit.commands.instruct:instruct",
        "Let a language model write a task's descriptions, try them, and keep the best ten; --publish collects all.",
    ),
    "export": Command(
        "instructedit.commands.export:export",
        "Write a saved edit as a LoRA adapter, a whole model, or the change of the weights, to use anywhere.",
    ),
    "push": Command(
        "instructedit.commands.push:push",
        "Put an editor, adapter, model or delta on the Hugging Face Hub; --dry-run shows what would be sent.",
        bare="folder",
    ),
    "reproduce": Command(
        "instructedit.commands.reproduce:reproduce",
        "Make the runs of a study that are missing, then its figures and its report; resumable run by run.",
    ),
    "submit": Command(
        "instructedit.commands.submit:submit",
        "Hand a command to SLURM, as a job, an array or a chain; it is requeued when preempted; --resume goes on.",
        takes="argv",
    ),
    "status": Command(
        "instructedit.commands.status:status",
        "Tell what runs are doing: step, rate, time left, and why one has failed; also of SLURM jobs.",
        bare="runs",
    ),
    "analyse": Command(
        "instructedit.commands.analyse:analyse",
        "The paper's analyses, a word each: how the tasks' editing gradients lie apart, and others; with figures.",
        takes="argv",
    ),
    "compare": Command(
        "instructedit.commands.compare:compare",
        "Compare runs: settings, test tables, ranking, curves; also from Weights & Biases, and upload offline runs.",
        bare="runs",
    ),
}


def listed(commands: Mapping[str, Command]) -> list[str]:
    """Lines of a help text: a command each, its summary beside it."""
    width = max(map(len, commands))
    return [f"  {name:<{width}}  {command.summary}" for name, command in commands.items()]


def help_text() -> str:
    """What ``instructedit --help`` prints: one line per command."""
    return "\n".join(
        [
            "usage: instructedit COMMAND [--flags]",
            "",
            "Knowledge editing for frozen language models with one meta-trained editor.",
            "",
            "commands:",
            *listed(COMMANDS),
            "",
            "`instructedit COMMAND --help` lists a command's flags; `instructedit --version` prints the version.",
            "Set INSTRUCTEDIT_DEBUG=1 to see the traceback of an input error too.",
        ]
    )


def run(argv: Sequence[str]) -> None:
    """Run one command line, without the name of the program.

    Args:
        argv: the command and its flags, for instance ``["prepare", "--help"]``.

    Raises:
        InputError: there is no such command, or the command refused its input.
        ArgumentError: the command's flags could not be parsed.
        SystemExit: with 0 after ``--help`` or ``--version``.
    """
    if not argv:
        raise InputError("No command was given. `instructedit --help` lists the commands.")
    name, rest = argv[0], list(argv[1:])
    if name in ("-h", "--help", "help"):
        print(help_text())
    elif name in ("-V", "--version"):
        print(f"instructedit {__version__}")
    elif name not in COMMANDS:
        raise unknown("command", name, COMMANDS, "`instructedit --help` says what each does.")
    elif COMMANDS[name].saves or MAX_REQUEUES not in os.environ:
        run_command(name, COMMANDS[name], rest)
    else:
        from instructedit.scheduling.requeue import ended_well, ends_on_signals

        with ends_on_signals():
            run_command(name, COMMANDS[name], rest)
        ended_well()


def resolve(target: str) -> Any:
    """The function that ``"module:function"`` names, its module now imported.

    Raises:
        InputError: a package of an extra that the command needs is not installed.
    """
    module, function = target.split(":")
    try:
        return getattr(import_module(module), function)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in _EXTRA_OF:
            raise InputError(
                f"This command needs the package {missing!r}, which is not installed. "
                f"Run `pip install 'instructedit[{_EXTRA_OF[missing]}]'`."
            ) from error
        raise


# Packages that only an extra of setup.cfg installs, as they are imported.
_EXTRA_OF = {
    "lightning": "train",
    "deepspeed": "deepspeed",
    "wandb": "wandb",
    "gguf": "gguf",
    "accelerate": "gguf",
    "openai": "llm",
    "httpx2": "llm",
    "peft": "lora",
    "scipy": "analysis",
    "sklearn": "analysis",
    "matplotlib": "analysis",
    "plotly": "analysis",
}


def run_command(name: str, command: Command, argv: list[str]) -> None:
    """Run a row of this table, or of a command's own.

    Args:
        name: the words it is called by.
        command: the row.
        argv: its arguments.
    """
    for flag, other in command.instead.items():
        if flag in argv:
            run_command(f"{name} {flag}", other, [argument for argument in argv if argument != flag])
            return
    if command.takes == "argv":
        resolve(command.target)(argv)
    else:
        more = [
            f"With {flag}: {other.summary}; `instructedit {name} {flag} --help`."
            for flag, other in command.instead.items()
        ]
        if command.bare:
            _run_with_bare(name, resolve(command.target), argv, command.bare)
        else:
            _run_typed(name, resolve(command.target), argv, epilog=" ".join(more) or None)


def _run_with_bare(name: str, function: Any, argv: list[str], bare: str) -> None:
    """Run a function whose parameter ``bare`` takes the arguments that have no flag."""
    from jsonargparse import ArgumentParser

    told = inspect.getdoc(function) or ""
    parser = ArgumentParser(prog=f"instructedit {name}", exit_on_error=False, description=told.partition("Args:")[0])
    helped = re.search(rf"^ *{bare}: (.*(?:\n {{8}}.*)*)", told, re.MULTILINE)
    parser.add_argument(
        bare, nargs="*", type=str, metavar=bare.upper(), default=[], help=" ".join(helped[1].split()) if helped else ""
    )
    parser.add_function_arguments(function, skip={bare}, as_group=False)
    function(**parser.parse_args(_bare_last(switched_on(function, underscored(argv)))).as_dict())


def _bare_last(argv: Sequence[str]) -> list[str]:
    """Put the arguments without a flag behind the flags, which may stand among them; switches have their values."""
    flags: list[str] = []
    bare: list[str] = []
    rest = iter(argv)
    for argument in rest:
        if argument == "--":
            bare += rest
        elif argument[:2] != "--":
            (flags if argument == "-h" else bare).append(argument)
        elif "=" in argument or argument == "--help":
            flags.append(argument)
        else:
            flags += [argument, *islice(rest, 1)]
    return [*flags, "--", *bare] if bare else flags


def _run_typed(name: str, function: Any, argv: list[str], epilog: str | None) -> None:
    # Imported here: it takes as long as all the rest of --help.
    from jsonargparse import ArgumentParser, auto_cli

    class Parser(ArgumentParser):
        """Has a flag for a parameter whose name is a word of Python's own, and so ends in an underscore: --as."""

        def add_function_arguments(self, *given: Any, **options: Any) -> list[str]:
            added: list[str] = super().add_function_arguments(*given, **options)
            for action in self._actions:
                for word in [word for word in action.option_strings if word.endswith("_")]:
                    action.option_strings = [word.rstrip("_")]
                    self._option_string_actions[word.rstrip("_")] = action
            return added

    # as_positional: every argument is a flag with a name. exit_on_error: a wrong flag is raised, so that main() prints
    # it as it prints every other input error.
    try:
        auto_cli(
            function,
            args=switched_on(function, underscored(argv)),
            as_positional=False,
            prog=f"instructedit {name}",
            exit_on_error=False,
            epilog=epilog,
            parser_class=Parser,
        )
    except ArgumentError as error:
        for own in [own for own in inspect.signature(function).parameters if own.endswith("_")]:
            error.message = re.sub(rf"\b{own}(?!\w)", own.rstrip("_"), error.message)
        raise


def switched_on(function: Any, argv: Sequence[str]) -> list[str]:
    """Give a switch that stands alone its value: ``--follow`` is ``--follow=true``."""
    switches = {
        f"--{name}" for name, given in inspect.signature(function).parameters.items() if given.annotation is bool
    }
    return [
        f"{argument}=true" if argument in switches and after.lower() not in ("true", "false") else argument
        for argument, after in zip_longest(argv, argv[1:], fillvalue="")
    ]


def underscored(argv: Sequence[str]) -> list[str]:
    """Spell flags the way the parser knows them: ``--max-rejects=0`` and ``--max_rejects=0`` are the same.

    Only a flag's name is changed, never a value.
    """
    spelled = []
    for argument in argv:
        name, equals, value = argument.partition("=")
        spelled.append(name.replace("-", "_").replace("__", "--", 1) + equals + value if name[:2] == "--" else argument)
    return spelled


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its status.

    Args:
        argv: the arguments without the name of the program; those of the process when None.
    """
    try:
        run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except (InputError, ArgumentError) as error:
        if os.environ.get("INSTRUCTEDIT_DEBUG", "") not in ("", "0"):
            traceback.print_exc()
        # One line: parsers break theirs.
        print("error:", shown(" ".join(str(error).split())), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader went away (`instructedit ... | head`). Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(0)
