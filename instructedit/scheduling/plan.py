"""From what `submit` is given to jobs: which commands, with which settings, where they lie, and what they ask for.

Decides and refuses; writes nothing and asks no scheduler.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from instructedit.cli import COMMANDS
from instructedit.errors import InputError, unknown
from instructedit.runs.directory import RunConfig
from instructedit.scheduling.again import Link
from instructedit.scheduling.points import Point, make_points
from instructedit.scheduling.profile import Profile
from instructedit.scheduling.resources import Asked, Resources, for_one_process, for_training, with_resources
from instructedit.scheduling.schema import Schema, read_schema
from instructedit.scheduling.settings import Settings, from_run, get, merge, put
from instructedit.scheduling.values import check_length

THEN = "--then"
IN_ARRAYS = ("fit", "reproduce")
"""Commands that --array and --sweep make several of."""

HERE = ("submit", "status", "compare")
"""Commands that answer at once, and are no work for a job."""

JOBS = Path("runs/jobs")
"""Where the scripts and logs of commands lie that have no folder of their own."""


@dataclass(frozen=True)
class Task:
    """One start of the program.

    Args:
        run: the run it trains, scores or tests; None for none.
        settings: frozen settings; None where the arguments are handed on as they are.
    """

    run: Path | None = None
    settings: Settings | None = None


@dataclass(frozen=True)
class Step:
    """One job, or one array of them.

    Args:
        command: the program's command.
        words: the same as on the command line, such as ``prepare --trunk``.
        argv: its arguments as they were given.
        tasks: one, or one for each point of an array.
        home: the folder whose slurm/ holds script and logs.
        stem: the name of its files there.
        resources: what it asks for.
        profile: the site's.
        folder: where it is, or was, submitted, absolute; relative paths in its settings are seen from there.
        group: whether the tasks are an array.
        made: what earlier steps will have written.
        writes: where it writes what later ones may read.
        chain: all steps it was submitted with.
        at_once: of an array, how many tasks may run at the same time.
        after: jobs in the queue that must end well before it, beside that of the step before.
    """

    command: str
    words: tuple[str, ...]
    argv: tuple[str, ...]
    tasks: tuple[Task, ...]
    home: Path
    stem: str
    resources: Resources
    profile: Profile
    folder: Path
    group: bool = False
    made: tuple[Path, ...] = ()
    writes: tuple[Path, ...] = ()
    chain: tuple[Link, ...] = ()
    at_once: int | None = None
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Command:
    """One command of the line, with its settings where they can be merged now, and its points where it is a group's."""

    words: tuple[str, ...]
    argv: tuple[str, ...]
    schema: Schema | None
    settings: Settings | None
    points: tuple[Point, ...] = ()

    @property
    def name(self) -> str:
        return self.words[0]

    @property
    def config(self) -> Mapping[str, Any]:
        return self.settings.config if self.settings else {}


def make_steps(
    words: Sequence[str],
    asked: Asked,
    profile: Profile,
    folder: Path,
    points: Sequence[str] = (),
    at_once: int | None = None,
) -> tuple[list[Step], list[str]]:
    """Plan the jobs of a command line.

    Args:
        words: what stands behind ``--``: commands with their arguments, separated by ``--then``.
        asked: the flags of `submit`.
        profile: the site's.
        folder: where it is submitted, absolute.
        points: the values of --array and --sweep, for the first command that can be an array.
        at_once: how many of these may run at the same time.

    Returns:
        The steps in their order, and notes on what was changed, one line each.

    Raises:
        InputError: a command or a setting is refused.
    """
    asked.check()
    made: list[Path] = []
    commands: list[_Command] = []
    for segment in _segments(words):
        first = not any(command.name in IN_ARRAYS for command in commands)
        commands.append(_command(segment, made, points if first else ()))
        made += _writes(commands[-1])
    fits = [command for command in commands if command.name == "fit"]
    if points and not any(command.points for command in commands):
        raise InputError(
            "--array and --sweep make runs of `fit`, or of `reproduce`, and there is none behind --. Submit the others "
            "alone."
        )
    if not fits and ((asked.nodes or 1) > 1 or (asked.gpus_per_node or 0) > 1):
        raise InputError(
            "Only fit runs on several nodes or GPUs; the others take one. Leave --nodes and --gpus-per-node."
        )
    home = _path_of(fits[0]) if fits else _home(commands[0])
    steps: list[Step] = []
    notes: list[str] = []
    before: list[Path] = []
    for command in commands:
        fit = command.name == "fit"
        where = _path_of(command) if fit else home
        taken = [step.stem for step in steps if step.home == where]
        stem = "-".join(word.lstrip("-") for word in command.words)
        number = sum(name == stem or name.startswith(f"{stem}-") for name in taken)
        if fit and taken.count("fit"):
            raise InputError(f"Two trainings of this chain have the run {where}. Give one another --run.name.")
        resources = (
            for_training(command.config, asked, profile)
            if fit
            else for_one_process(command.words, command.config, asked, profile)
        )
        steps.append(
            Step(
                command=command.name,
                words=command.words,
                argv=command.argv,
                tasks=_tasks(command, resources, profile, notes)
                if fit or not command.points
                else _parts(command, home),
                home=where,
                stem=stem if not number else f"{stem}-{number + 1}",
                resources=resources,
                profile=profile,
                folder=folder,
                group=bool(command.points),
                made=tuple(before),
                writes=tuple(_writes(command)),
                at_once=at_once if command.points else None,
            )
        )
        before += _writes(command)
    chain = tuple(Link(str(step.home), step.stem, step.group) for step in steps)
    return [replace(step, chain=chain) for step in steps], list(dict.fromkeys(notes))


def _segments(words: Sequence[str]) -> list[list[str]]:
    segments: list[list[str]] = [[]]
    for word in words:
        if word == THEN:
            segments.append([])
        else:
            segments[-1].append(word)
    if not all(segments):
        raise InputError(f"There is no command {'before or behind ' + THEN if words else 'behind --'}. {_USAGE}")
    return segments


_USAGE = "Write: instructedit submit [flags] -- fit --config FILE [--then evaluate --config FILE]."


def _command(segment: Sequence[str], made: Sequence[Path], points: Sequence[str]) -> _Command:
    name, *argv = segment
    if name in HERE or name not in COMMANDS:
        known = [command for command in COMMANDS if command not in HERE]
        raise unknown("command to submit", name, known, _USAGE)
    words: tuple[str, ...] = (name,)
    for flag in COMMANDS[name].instead:
        if flag in argv:
            words, argv = (name, flag), [argument for argument in argv if argument != flag]
    schema = read_schema(" ".join(words))
    if schema is None:
        return _Command(words, tuple(argv), None, None)
    run = from_run(argv)
    if run is not None:
        check_length(str(run), "--from_run")
    later = run is not None and not (run / "config.yaml").is_file() and run.resolve() in [p.resolve() for p in made]
    given = tuple(make_points(points, schema)) if points and name in IN_ARRAYS else ()
    return _Command(words, tuple(argv), schema, None if later else merge(schema, argv), given)


def _path_of(command: _Command) -> Path:
    """The run directory of a training's settings.

    Raises:
        InputError: it has no name.
    """
    run = from_run(command.argv)
    if command.settings is None and run is not None:
        return run
    config = get(command.config, "run", {})
    name, folder = config.get("name", ""), config.get("folder", "runs")
    path = RunConfig(check_length(name, "run.name"), check_length(folder, "run.folder")).path
    return run if run is not None and run.resolve() == path.resolve() else path


def _writes(command: _Command) -> list[Path]:
    """Where a command writes what later ones may read."""
    if command.name == "fit":
        run = _path_of(command)
        return [run / point.name for point in command.points] or [run]
    if command.name == "prepare" and len(command.words) == 1:
        return [Path(get(command.config, "out", "data/prepared"))]
    if command.name == "evaluate":
        return [_results(command)]
    return []


def _results(command: _Command) -> Path:
    name = get(command.config, "name", "evaluation")
    return Path(check_length(get(command.config, "out") or f"evaluations/{name}", "out, or name, of evaluate"))


def _home(command: _Command) -> Path:
    if command.name in ("validate", "test"):
        return _path_of(command)
    return (
        _results(command) if command.name == "evaluate" else JOBS / f"{command.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    )


def _tasks(command: _Command, resources: Resources, profile: Profile, notes: list[str]) -> tuple[Task, ...]:
    if command.settings is None or command.schema is None:
        return (Task(_path_of(command) if command.name in ("validate", "test") else None),)
    if command.name != "fit":
        run = _path_of(command) if command.name in ("validate", "test") else None
        return (Task(run, command.settings),)
    group = _path_of(command)
    tasks = []
    for point in command.points or (None,):
        settings, path = command.settings, group
        if point is not None:
            values = [f"--{key}={value}" for key, value in point.values.items()]
            settings, path = merge(command.schema, [*command.argv, *values]), group / point.name
            before = settings.config.get("run", {})
            own = {"folder": str(group), "name": point.name, "wandb_group": before.get("wandb_group") or group.name}
            settings.config["run"] = before | own
        fit_in(settings.config, resources, profile, notes)
        tasks.append(Task(path, settings))
    if len({task.settings.flags for task in tasks if task.settings}) > 1:
        raise InputError("A sweep cannot go over one argument of an object. Sweep over whole values, or submit each.")
    return tuple(tasks)


def _parts(command: _Command, home: Path) -> tuple[Task, ...]:
    """The tasks of an array of a command that trains nothing itself; each has its settings below the job's folder."""
    assert command.schema is not None
    tasks = []
    for point in command.points:
        values = [f"--{key}={value}" for key, value in point.values.items()]
        tasks.append(Task(home / point.name, merge(command.schema, [*command.argv, *values])))
    return tuple(tasks)


def fit_in(config: dict[str, Any], resources: Resources, profile: Profile, notes: list[str]) -> None:
    """Set what a training's settings have from its job and the site.

    Args:
        config: changed in place.
        resources: what its job asks for.
        profile: the site's.
        notes: grows by a line for what was changed and may surprise.
    """
    with_resources(config, resources)
    if profile.offline and get(config, "run.wandb") == "online":
        put(config, "run.wandb", "offline")
        notes.append("Compute nodes are offline (profile): run.wandb is offline; `wandb sync` sends it later.")
