"""What came of a study: a folder for each run that is done, small enough to commit, so that it goes on anywhere.

``FOLDER/RUN/rows.jsonl.gz`` has one line an outcome (record ids and numbers, no texts), ``run.json`` says what made it,
``config.yaml`` is its training's configuration. A run without ``run.json`` is not done.
"""

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from instructedit.errors import InputError
from instructedit.evaluation.ledger import ROWS
from instructedit.records import Outcome
from instructedit.runs.directory import write_whole
from instructedit.study.plan import Study, StudyRun

RECORD, OUTCOMES, CONFIG = "run.json", f"{ROWS}.gz", "config.yaml"

_KEPT = tuple(field.name for field in fields(Outcome))


class Results:
    """The results folder of one study.

    Args:
        study: the plan.
        folder: where they lie; need not exist.

    Raises:
        InputError: a run in it was made by another plan.
    """

    def __init__(self, study: Study, folder: Path | str) -> None:
        self.study = study
        self.folder = Path(folder)
        self._outcomes: dict[str, list[Outcome]] = {}
        for run in study.runs:
            record = self._record(run.name)
            if record is not None and record.get("digest") != study.digest(run):
                raise InputError(
                    f"{self.folder / run.name} was made by another plan than that of {study.name} as it is now. Choose "
                    "another --out, restore the plan, or delete that folder to make the run again."
                )

    @property
    def done(self) -> list[str]:
        """The runs that are there, in the plan's order."""
        return [run.name for run in self.study.runs if self.has(run.name)]

    @property
    def missing(self) -> list[str]:
        """The runs that are not there yet, in the plan's order."""
        return [run.name for run in self.study.runs if not self.has(run.name)]

    def has(self, name: str) -> bool:
        """Return whether a run is done."""
        return (self.folder / name / RECORD).is_file()

    def outcomes(self, name: str) -> Sequence[Outcome]:
        """Return every outcome of a run.

        Raises:
            InputError: it is not done, or its file cannot be read.
        """
        if name not in self._outcomes:
            path = self.folder / name / OUTCOMES
            try:
                lines = gzip.decompress(path.read_bytes()).decode().splitlines()
                self._outcomes[name] = [Outcome(**json.loads(line)) for line in lines]
            except (OSError, EOFError, ValueError, TypeError) as error:
                raise InputError(f"{path} cannot be read ({error}). Delete {path.parent} to make it again.") from error
        return self._outcomes[name]

    def record(self, name: str) -> Mapping[str, Any]:
        """Return what made a run: its ``run.json``.

        Raises:
            InputError: it is not done.
        """
        found = self._record(name)
        if found is None:
            raise InputError(f"Run {name!r} of {self.study.name} is not done. Make it with `instructedit reproduce`.")
        return found

    def put(self, run: StudyRun, outcomes: Sequence[Mapping[str, Any]], record: Mapping[str, Any], config: str) -> Path:
        """Write a run that is done; the record last, as it settles it.

        Args:
            run: the run.
            outcomes: lines of its evaluation's ledger; only an outcome's own fields are kept.
            record: what made them.
            config: the configuration of its training; empty without one.
        """
        folder = self.folder / run.name
        text = "".join(json.dumps({key: line[key] for key in _KEPT if key in line}) + "\n" for line in outcomes)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # mtime=0: the same outcomes give the same bytes.
            (folder / OUTCOMES).write_bytes(gzip.compress(text.encode(), mtime=0))
            if config:
                (folder / CONFIG).write_text(config, encoding="utf-8")
            whole = {"name": run.name, "digest": self.study.digest(run), **record}
            write_whole(folder / RECORD, json.dumps(whole, indent=2) + "\n")
        except OSError as error:
            raise InputError(f"Cannot write to {folder} ({error.strerror}). Choose another --out.") from error
        self._outcomes.pop(run.name, None)
        return folder

    def _record(self, name: str) -> dict[str, Any] | None:
        path = self.folder / name / RECORD
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read ({error}). Delete {path.parent} to make it again.") from error
        if not isinstance(content, dict):
            raise InputError(f"{path} holds no record of a run. Delete {path.parent} to make it again.")
        return content
