"""The plan of a study, read from YAML: which runs there are, what each trains and asks, and which analysis needs which.

Nothing is loaded and nothing run here; ``study.runner`` carries a plan out, ``analysis`` reads what came of it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instructedit.errors import InputError, unknown
from instructedit.evaluation.plan import MethodRow, Settings
from instructedit.scheduling.yaml_text import inline_or_file

ANALYSES = ("gradients", "transfer", "tasks", "balance", "instructions", "sensitivity")
"""The analyses of a plan's section of that name, as ``instructedit analyse`` knows them."""

_STUDY = {"name", "prepare", "fit", "set", "evaluate", "table", "gradients", "runs", "analyses"}
_RUN = {"method", "options", "fit", "set", "instructions", "controls", "table", "batch"}
_RESERVED = ("run.", "trainer.devices", "model.store.")


@dataclass(frozen=True)
class StudyRun:
    """One run of a study: a method without training, or a training, and the rows of its evaluation.

    Args:
        name: unique in the study; names its folders.
        method: the method of `instructedit evaluate`, for a run that trains nothing; empty for a training.
        options: that method's own settings.
        fit: the configurations of its training, stacked in this order.
        set: settings of the training that win over these, by their full names, such as ``seed_everything``.
        instructions: the instructions its editor is asked with, a row each; none for a method without.
        controls: further instructions, which are never asked what the table asks besides.
        table: whether it belongs to the table of all methods, and is also asked what that table asks besides.
        batch: edits evaluated at once; None for the study's.
    """

    name: str
    method: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    fit: tuple[str, ...] = ()
    set: Mapping[str, Any] = field(default_factory=dict)
    instructions: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    table: bool = False
    batch: int | None = None

    @property
    def trains(self) -> bool:
        """Whether it has a training."""
        return not self.method

    def setting(self, key: str, default: Any = None) -> Any:
        """Return a setting of the training by its full name: of ``set``, else of the configurations."""
        if key in self.set:
            return self.set[key]
        found = default
        for path in self.fit:
            content: Any = inline_or_file(path)
            for part in key.split("."):
                content = content.get(part) if isinstance(content, Mapping) else None
            found = found if content is None else content
        return found

    @property
    def trained_as(self) -> str:
        """The method of a training: InstructEdit, MEND or KE."""
        return str(self.setting("model.method", "InstructEdit"))


@dataclass(frozen=True)
class Study:
    """A whole study.

    Args:
        name: names its folders.
        runs: in the order they are made.
        evaluate: what every run is asked: keys of `instructedit evaluate`, without methods.
        table: keys that runs of the table are asked with besides, such as ``greedy``.
        analyses: what each analysis reads, by its name: runs by the part they play in it.
        gradients: the settings of the analysis of gradients.
        prepare: how the data are made, shown where they are missing.
    """

    name: str
    runs: tuple[StudyRun, ...]
    evaluate: Mapping[str, Any]
    table: Mapping[str, Any] = field(default_factory=dict)
    analyses: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    gradients: Mapping[str, Any] = field(default_factory=dict)
    prepare: str = ""

    def run(self, name: str) -> StudyRun:
        """Return a run by its name.

        Raises:
            InputError: there is none.
        """
        for run in self.runs:
            if run.name == name:
                return run
        raise unknown("run of the study", name, [run.name for run in self.runs])

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that every run is tested on."""
        return tuple(self.evaluate["tasks"])

    @property
    def held_out(self) -> tuple[str, ...]:
        """Those of them that no run trains on."""
        return tuple(self.evaluate.get("held_out", ()))

    def evaluations(self, run: StudyRun, editor: str = "") -> dict[str, dict[str, Any]]:
        """Return the configurations of a run's evaluations by a name for their folders: one, and one of the controls.

        Args:
            run: the run.
            editor: the folder of its editor; not looked at for a method without training.
        """
        row: dict[str, Any] = {"method": run.method or run.trained_as.lower()}
        if run.trains:
            row["editor"] = editor
        if run.options:
            row["options"] = dict(run.options)
        if run.batch is not None:
            row["batch"] = run.batch
        own = {**row, "instructions": list(run.instructions)} if run.instructions else row
        more = self.table if run.table else {}
        made = {"evaluation": {"name": run.name, **self.evaluate, **more, "methods": [own]}}
        if run.controls:
            made["controls"] = {
                "name": f"{run.name}, controls",
                **self.evaluate,
                "methods": [{**row, "instructions": list(run.controls)}],
            }
        return made

    def rows(self, run: StudyRun) -> tuple[str, ...]:
        """Return the names of a run's rows, as its evaluations have them.

        Raises:
            InputError: an evaluation asks for something that there is not.
        """
        names: list[str] = []
        for content in self.evaluations(run, editor="editor").values():
            (row,) = (MethodRow(**row) for row in content.pop("methods"))
            given: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value for key, value in content.items()
            }
            given.pop("name")
            for key in given:
                if key not in Settings.__dataclass_fields__:
                    raise unknown("setting of the study's evaluation:", key, Settings.__dataclass_fields__)
            Settings(methods=(row,), **given)
            names += [row.label if which is None else f"{row.label} ({which})" for which in row.asked_with]
        return tuple(names)

    def trained_with(self, run: StudyRun) -> str:
        """Return a hash of everything in the plan that decides a run's training."""
        return _hash([[inline_or_file(path) for path in run.fit], dict(run.set)])

    def digest(self, run: StudyRun) -> str:
        """Return a hash of everything in the plan that decides a run's numbers; where its files lie does not."""
        fit = [inline_or_file(path) for path in run.fit]
        asked = self.evaluations(run, editor="editor")
        for one in asked.values():
            del one["name"]
            one.pop("data", None)
        return _hash([fit, dict(run.set), asked])


def read_study(path: str | Path) -> Study:
    """Read a study's plan.

    Raises:
        InputError: the file is missing or malformed, or an analysis names a run that there is not.
    """
    content = inline_or_file(str(path))
    _known(content, _STUDY, f"{path}")
    for key in ("name", "evaluate", "runs"):
        if not content.get(key):
            raise InputError(f"{path} has no {key}. Write it as configs/study/smollm2-135m.yaml does.")
    shared = content.get("set") or {}
    stack = tuple(content.get("fit") or ())
    runs = tuple(_run(path, name, made or {}, stack, shared) for name, made in content["runs"].items())
    analyses = content.get("analyses") or {}
    _known(analyses, set(ANALYSES), f"analyses in {path}")
    study = Study(
        name=str(content["name"]),
        runs=runs,
        evaluate=content["evaluate"],
        table=content.get("table") or {},
        analyses=analyses,
        gradients=content.get("gradients") or {},
        prepare=str(content.get("prepare") or ""),
    )
    names = [run.name for run in runs]
    for analysis, parts in analyses.items():
        for name in _named(parts):
            if name not in names:
                raise unknown(f"run in analyses.{analysis} of {path}:", name, names)
    for run in runs:
        study.rows(run)  # says what is wrong with the evaluation
    return study


def _run(
    path: str | Path, name: str, made: Mapping[str, Any], stack: Sequence[str], shared: Mapping[str, Any]
) -> StudyRun:
    where = f"Run {name!r} of {path}"
    _known(made, _RUN, where)
    method = made.get("method", "")
    if method and (made.get("fit") or made.get("set")):
        raise InputError(f"{where} has a method and a training. Leave out method, or fit and set.")
    if not name or "/" in name or name.startswith("."):
        raise InputError(f"{where} has no plain name. Use letters, digits and dashes.")
    changed = {} if method else {**shared, **(made.get("set") or {})}
    twice = set(made.get("instructions") or ()) & set(made.get("controls") or ())
    if twice:
        raise InputError(f"{where} has {', '.join(sorted(twice))} in instructions and in controls. Leave one of them.")
    for key in changed:
        if key.startswith(_RESERVED):
            raise InputError(f"{where} sets {key}, which the study sets itself. Leave it out.")
    fit = () if method else tuple(made.get("fit") or stack)
    if not method and not fit:
        raise InputError(f"{where} has neither a method nor configurations of a training (fit). Name one.")
    return StudyRun(
        name=name,
        method=method,
        options=made.get("options") or {},
        fit=fit,
        set=changed,
        instructions=tuple(made.get("instructions") or ()),
        controls=tuple(made.get("controls") or ()),
        table=bool(made.get("table", False)),
        batch=made.get("batch"),
    )


def flags(settings: Mapping[str, Any]) -> list[str]:
    """Write settings as flags of `instructedit fit`.

    >>> flags({"seed_everything": 1, "data.tasks": ["recent"], "data.caps": None})
    ['--seed_everything=1', '--data.tasks=["recent"]', '--data.caps=null']
    """
    return [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in settings.items()]


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _known(content: Any, wanted: set[str], where: str) -> None:
    if not isinstance(content, Mapping):
        raise InputError(f"{where} holds {type(content).__name__}, no settings. See configs/study/smollm2-135m.yaml.")
    for key in content:
        if key not in wanted:
            raise unknown(f"key in {where}:", str(key), sorted(wanted))


def _named(parts: Any) -> list[str]:
    """Every run an analysis names, wherever it stands in its section."""
    if isinstance(parts, str):
        return [parts]
    if isinstance(parts, Mapping):
        parts = list(parts.values())
    return [name for part in parts for name in _named(part)] if isinstance(parts, Sequence) else []
