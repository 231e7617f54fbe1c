"""Carries a study out, one run at a time: its training, its evaluation, and what of both is kept.

Every part is a command of this program that goes on where it was stopped, so a study does too: in the middle of a run
with the run's directory, between runs with the committed results alone. Several processes may work on one study side
by side; each takes a run that nobody else has.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout

from instructedit.checkpoints import CARD
from instructedit.errors import InputError
from instructedit.evaluation.ledger import Ledger
from instructedit.runs.progress import read_progress
from instructedit.scheduling import ENDED
from instructedit.scheduling.yaml_text import as_yaml
from instructedit.study.plan import Study, StudyRun, flags
from instructedit.study.results import Results

Call = Callable[[Sequence[str]], None]
"""Runs one command line of this program; raises where it did not end well."""

STATES, LOCK = "trunk-states", "study.lock"


class NotDone(Exception):
    """A command ended before its work did.

    Args:
        told: what and why, one line.
        status: the exit status that the whole should end with.
        stopped: whether somebody stopped it, so that nothing else is to be begun.
    """

    def __init__(self, told: str, status: int, stopped: bool = False) -> None:
        super().__init__(told)
        self.status = status
        self.stopped = stopped


class Runner:
    """Makes the runs of a study that are missing.

    Args:
        study: the plan.
        results: where what is kept goes.
        folder: where run directories lie; the study's are in a folder of its name in it.
        call: runs a command.
        allow_dirty: whether evaluations may be made by changed code.
    """

    def __init__(self, study: Study, results: Results, folder: Path, call: Call, allow_dirty: bool = False) -> None:
        self.study, self.results, self.call = study, results, call
        self.home = folder / study.name
        self.states = folder / STATES
        self.allow_dirty = allow_dirty

    def directory(self, run: StudyRun) -> Path:
        """Return a run's directory."""
        return self.home / run.name

    def editor(self, run: StudyRun) -> Path:
        """Return the folder of a run's editor."""
        return self.directory(run) / "editor"

    def trained(self, run: StudyRun) -> bool:
        """Return whether a run's training is done and its editor here."""
        progress = read_progress(self.directory(run))
        return progress is not None and progress.state == "done" and (self.editor(run) / CARD).is_file()

    @contextmanager
    def held(self, run: StudyRun) -> Iterator[bool]:
        """Take a run for this process; gives False where another has it."""
        lock = FileLock(self.directory(run) / LOCK)
        try:
            self.directory(run).mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        except OSError as error:
            raise InputError(
                f"Cannot write to {self.directory(run)} ({error.strerror}). Choose another --runs_folder."
            ) from error
        try:
            yield True
        finally:
            lock.release()

    def train(self, run: StudyRun) -> None:
        """Train a run's editor, or go on with it; does nothing where that is done.

        Raises:
            NotDone: it ended before its last step.
        """
        if not run.trains or self.trained(run):
            return
        stack = [argument for path in run.fit for argument in ("--config", path)]
        own = [f"--run.folder={self.home}", f"--run.name={run.name}", f"--model.store.folder={self.states}"]
        self.call(["fit", *stack, *own, *flags(run.set)])
        if not self.trained(run):
            raise NotDone(f"The training of {run.name} was stopped before its end.", 130, stopped=True)

    def evaluate(self, run: StudyRun) -> list[dict[str, Any]]:
        """Make a run's evaluations, or go on with them, and return the lines of their ledgers.

        Raises:
            NotDone: one ended before it was complete.
        """
        found: list[dict[str, Any]] = []
        for name, content in self.study.evaluations(run, str(self.editor(run))).items():
            path, out = self.directory(run) / f"{name}.yaml", self.directory(run) / name
            path.write_text(as_yaml(content), encoding="utf-8")
            allowed = ["--allow_dirty=true"] if self.allow_dirty else []
            self.call(["evaluate", "--config", str(path), "--out", str(out), *allowed])
            with Ledger.opened(out) as ledger:
                found += [line for lines in ledger.rows.values() for line in lines]
        absent = set(self.study.rows(run)) - {line["method"] for line in found}
        if absent:
            raise NotDone(f"The evaluation of {run.name} has no {', '.join(sorted(absent))}.", 1)
        return found

    def make(self, run: StudyRun) -> Path:
        """Make a run and keep what is to be kept; returns the folder that holds it.

        Raises:
            NotDone: one of its parts ended before its work did.
            InputError: something of it is refused.
        """
        self.train(run)
        lines = self.evaluate(run)
        config = self.directory(run) / "config.yaml"
        record = {"training": self._training(run) if run.trains else None, "evaluation": self._asked(run)}
        return self.results.put(run, lines, record, config.read_text(encoding="utf-8") if run.trains else "")

    def _training(self, run: StudyRun) -> dict[str, Any]:
        """What made the editor: where it is from, how long it took, how good it was on validation records."""
        made = json.loads((self.directory(run) / "run.json").read_text(encoding="utf-8"))
        card = json.loads((self.editor(run) / CARD).read_text(encoding="utf-8"))
        progress = read_progress(self.directory(run))
        assert progress is not None
        return {
            "method": run.trained_as,
            "seed": run.setting("seed_everything", 0),
            "tasks": run.setting("data.tasks"),
            "steps": progress.max_steps,
            "edits": progress.max_steps * int(run.setting("data.batch", 8)),
            "seconds": round(progress.device_seconds, 1),
            "threads": os.environ.get("OMP_NUM_THREADS", ""),
            **{key: made[key] for key in ("fingerprint", "data", "commit", "dirty", "versions") if key in made},
            "editor": {key: card[key] for key in ("weights_sha256", "step", "results") if key in card},
        }

    def _asked(self, run: StudyRun) -> dict[str, Any]:
        """What made the rows."""
        starts: list[Any] = []
        seconds: dict[str, Any] = {}
        for name in self.study.evaluations(run):
            made = json.loads((self.directory(run) / name / "run.json").read_text(encoding="utf-8"))
            starts += made["starts"]
            seconds |= made["seconds"]
        return {"starts": starts, "seconds": seconds}


def in_processes(threads: int | None = None) -> Call:
    """Run each command as a process of its own, which is told of a signal too, so that it saves what it has.

    Args:
        threads: of each process; None leaves it to the environment.
    """

    def call(words: Sequence[str]) -> None:
        # In a job, the study's end is this process's to tell, not that of a part.
        environment = {name: value for name, value in os.environ.items() if name != ENDED}
        if threads is not None:
            environment["OMP_NUM_THREADS"] = str(threads)
        with _passing_signals_on() as told:
            process = subprocess.Popen([sys.executable, "-m", "instructedit", *words], env=environment)
            told.append(process)
            while True:
                try:
                    status = process.wait()
                    break
                except KeyboardInterrupt:  # the child has it from the terminal, too
                    told.append(None)
        if len(told) > 1:
            raise NotDone(f"`instructedit {words[0]}` was stopped.", 130, stopped=True)
        if status:
            raise NotDone(f"`instructedit {words[0]}` ended with status {status}.", status if status > 0 else 1)

    return call


def in_this_process(words: Sequence[str]) -> None:
    """Run a command in this process: saves the seconds of its imports, which is most of a tiny run."""
    from argparse import ArgumentError

    from instructedit.cli import run

    try:
        run(list(words))
    except (InputError, ArgumentError) as error:
        raise NotDone(f"`instructedit {words[0]}`: {error}", 2) from error
    except SystemExit as error:
        if error.code not in (0, None):
            status = error.code if isinstance(error.code, int) else 1
            raise NotDone(f"`instructedit {words[0]}` ended with status {status}.", status) from error


@contextmanager
def _passing_signals_on() -> Iterator[list[Any]]:
    """Hand SIGTERM and SIGUSR1 to the child; the list holds it, and None behind it once a signal came."""
    told: list[Any] = []

    def handler(number: int, _frame: FrameType | None) -> None:
        if told and told[0].poll() is None:
            told[0].send_signal(number)
        told.append(None)

    names = [name for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), handler) for name in names}
    try:
        yield told
    finally:
        for name, kept in before.items():
            signal.signal(getattr(signal, name), kept)


def remaining(results: Results, missing: Sequence[StudyRun]) -> float | None:
    """Estimate the seconds that missing runs take from those that are done; None where none is.

    A training is taken to last as long as the mean of its method's, or of all, and an evaluation of a row likewise.
    """
    trainings: list[tuple[str, float]] = []
    rows: list[float] = []
    for name in results.done:
        record, run = results.record(name), results.study.run(name)
        if record.get("training"):
            trainings.append((run.trained_as, float(record["training"]["seconds"])))
        rows += [sum(tasks.values()) for tasks in record["evaluation"].get("seconds", {}).values()]
    if not rows:
        return None
    total = 0.0
    for run in missing:
        total += len(results.study.rows(run)) * sum(rows) / len(rows)
        if run.trains:
            own = [took for method, took in trainings if method == run.trained_as] or [took for _, took in trainings]
            if not own:
                return None
            total += sum(own) / len(own)
    return total


def clock(seconds: float) -> str:
    """Write a duration in hours and minutes.

    >>> clock(59), clock(3700)
    ('1 min', '1 h 02 min')
    """
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def now() -> str:
    """Return the time of day, for the lines that say what was begun."""
    return time.strftime("%H:%M")
