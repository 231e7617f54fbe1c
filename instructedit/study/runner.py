"""Carries a study out, one run at a time: its training, its evaluation, and what of both is kept.

Every part is a command of this program that goes on where it was stopped, so a study does too: in the middle of a run
with the run's directory, between runs with the committed results alone. Several processes may work on one study side
by side; each takes a run that nobody else has.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from instructedit.checkpoints import CARD
from instructedit.errors import InputError
from instructedit.evaluation.ledger import Ledger
from instructedit.runs.directory import write_whole
from instructedit.runs.progress import read_progress
from instructedit.scheduling.yaml_text import as_yaml
from instructedit.study.calls import Call, NotDone
from instructedit.study.compute import ALIKE
from instructedit.study.plan import Study, StudyRun, flags
from instructedit.study.results import Results

STATES, LOCK = "trunk-states", "study.lock"
PLANNED = "planned.txt"
"""In a run's directory: the hash of the plan that its training was begun with."""


class Runner:
    """Makes the runs of a study that are missing.

    Args:
        study: the plan.
        results: where what is kept goes.
        folder: where run directories lie; the study's are in a folder of its name in it.
        call: runs a command.
        allow_dirty: whether evaluations may be made by changed code.
        threads: that the commands have; None for the environment's.
    """

    def __init__(
        self,
        study: Study,
        results: Results,
        folder: Path,
        call: Call,
        allow_dirty: bool = False,
        threads: int | None = None,
    ) -> None:
        self.study, self.results, self.call = study, results, call
        self.home = folder / study.name
        self.states = folder / STATES
        self.allow_dirty = allow_dirty
        self.threads = str(threads) if threads is not None else os.environ.get("OMP_NUM_THREADS", "")

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
            NotDone: it ended before its last step, or what lies there was trained by another plan.
        """
        if not run.trains:
            return
        self._claim(run)
        if self.trained(run):
            return
        stack = [argument for path in run.fit for argument in ("--config", path)]
        own = [f"--run.folder={self.home}", f"--run.name={run.name}", f"--model.store.folder={self.states}"]
        self.call(["fit", *stack, *own, *flags(run.set)])
        if not self.trained(run):
            raise NotDone(f"The training of {run.name} was stopped before its end.", 130, stopped=True)

    def _claim(self, run: StudyRun) -> None:
        """Note the plan that a training is begun with, or refuse the training of another one."""
        path, wanted = self.directory(run) / PLANNED, self.study.trained_with(run)
        if not path.is_file():
            write_whole(path, wanted + "\n")
        elif path.read_text(encoding="utf-8").strip() != wanted:
            raise NotDone(
                f"{self.directory(run)} was trained by another plan than that of {self.study.name} as it is now. "
                "Choose another --runs_folder, restore the plan, or delete that folder to train it again.",
                2,
            )

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
            "threads": self.threads,
            **{key: made[key] for key in ("fingerprint", "data_sha256", "starts") if key in made},
            "editor": {key: card[key] for key in ("weights_sha256", "steps", "results") if key in card},
        }

    def _asked(self, run: StudyRun) -> dict[str, Any]:
        """What made the rows, and by row and task what all runs must be asked alike."""
        starts: list[Any] = []
        seconds: dict[str, Any] = {}
        asked: dict[str, Any] = {}
        for name in self.study.evaluations(run):
            made = json.loads((self.directory(run) / name / "run.json").read_text(encoding="utf-8"))
            starts += made["starts"]
            seconds |= made["seconds"]
            for row, tasks in made["settings"].items():
                asked[row] = {task: {key: told[key] for key in ALIKE} for task, told in tasks.items()}
        return {"starts": starts, "seconds": seconds, "asked": asked}
