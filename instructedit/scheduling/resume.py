"""Going on with runs that were submitted: what of their chain is not done, as steps to be handed in once more.

Asks the run directories and SLURM what became of each step, and decides; writes nothing.
"""

import dataclasses
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructedit.errors import InputError
from instructedit.runs.directory import RunConfig
from instructedit.runs.state import find_runs, is_run
from instructedit.scheduling.again import Again, Link, read_again
from instructedit.scheduling.places import check_free
from instructedit.scheduling.plan import Step, Task, fit_in
from instructedit.scheduling.profile import Profile
from instructedit.scheduling.resources import Asked, Resources, changed
from instructedit.scheduling.schema import read_schema
from instructedit.scheduling.settings import Settings, get, merge
from instructedit.scheduling.standing import Standing, of_command, of_run, points
from instructedit.scheduling.values import check_length

FIT = "fit"
"""The name of a training's files."""

FROM_PROFILE = ("cpus_per_task", "mem", "time", "partition", "account", "qos", "max_requeues")


@dataclass(frozen=True)
class Continued:
    """What goes on.

    Args:
        steps: to be handed in, in their order.
        waiting: jobs of before that wait for one that will not come; to be cancelled when these are handed in.
        notes: one line each.
    """

    steps: tuple[Step, ...]
    waiting: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def steps_again(name: str, asked: Asked, profile: Profile | None, at_once: int | None = None) -> Continued:
    """Find what is not done of a run, or of a group, and of the chain it was submitted in.

    What stands before it and is done is left out; what waits or runs is waited for. What stands behind it is handed in
    too, but for trainings that are done.

    Args:
        name: a run directory, a name in the folder of all runs, or a group.
        asked: the flags, which win over the earlier resources.
        profile: in place of the earlier one, where there is one.
        at_once: of a group, how many runs may train at the same time; None for as many as before.

    Raises:
        InputError: nothing of it can go on, or it is not clear where.
        SchedulerError: SLURM is installed and does not answer.
    """
    asked.check()
    place = _place(name)
    again = read_again(place, FIT)
    if again is None:
        raise InputError(
            f"{place} was never submitted. Submit it: instructedit submit -- fit --from_run {shlex.quote(str(place))}"
            if is_run(place)
            else f"{place} holds runs that are no group of one submission. Name one of them."
        )
    if at_once is not None and is_run(place):
        raise InputError("--at-once is for the runs of a group. Leave it out.")
    own = _own_link(place, again)
    if not Path(again.folder).is_dir():
        raise InputError(f"{again.folder}, where {place} was submitted, is gone. Submit it from its configuration.")
    return _Resume(place, again, asked, profile, at_once).chain(own)


def _place(name: str) -> Path:
    check_length(name, "--resume")
    find_runs([name], Path("runs"))  # refuses what is nothing of this kind
    return next(path for path in (Path(name), Path("runs") / name) if path.is_dir())


def _own_link(place: Path, again: Again) -> int:
    """The place of a run, or a group, in its chain.

    Raises:
        InputError: it lies elsewhere than its job would train.
    """
    homes = {place.resolve(), place.resolve().parent if is_run(place) else place.resolve()}
    own = place.resolve()
    if again.frozen:
        config = Path(again.arguments[len(again.words)].partition("=")[2])
        own = config.parents[1].resolve()
    number = next(
        (n for n, link in enumerate(again.chain) if link.stem == FIT and again.seen(link.home).resolve() in homes), None
    )
    if number is not None and own == place.resolve():
        return number
    home = own if again.frozen else again.seen(next((link.home for link in again.chain if link.group), "."))
    what = "is a copy of" if home.exists() else "was moved here from"
    if (place / "config.yaml").is_file():
        way = f"Go on with it where it is: instructedit submit [flags] -- fit --from_run {shlex.quote(str(place))}"
        way += " (in the same W&B run as the other)." if home.exists() else "."
    else:
        way = "Submit it from its configuration, or give it its old place back."
    raise InputError(f"{place} {what} {home}, where its job would train. {way}")


class _Resume:
    """One call: what was asked for, and what has been found out."""

    def __init__(self, place: Path, again: Again, asked: Asked, profile: Profile | None, at_once: int | None) -> None:
        self.place, self.again, self.asked, self.profile, self.at_once = place, again, asked, profile, at_once
        self.steps: list[Step] = []
        self.waiting: list[str] = []
        self.notes: list[str] = []
        self._made: list[Path] = []

    def chain(self, own: int) -> Continued:
        """Go through the chain, in its order.

        Raises:
            InputError: nothing of it can go on.
        """
        alive: list[str] = []  # jobs in the queue that the next step waits for
        for number, link in enumerate(self.again.chain):
            home = self.again.seen(link.home)
            found = self._found(link, home, alone=number == own and self._single)
            todo, running = self._sorted(link, found)
            if number == own and self._single and running:
                check_free(self.place)
            if number == own and not self._single:
                self._note_left_out(found, todo)
            if todo:
                self.steps.append(self._step(link, home, todo, tuple(alive)))
                alive = running
            else:
                alive += running
            if number == own and self._single and link.group:
                others = {run: of for run, of in self._found(link, home).items() if run.resolve() != self._own}
                if any(of.word == "over" for of in others.values()):
                    self._note_cut_off(home, number)
                    break
                alive += [of.job for of in others.values() if of.job]
                self._made += others
        if not self.steps and self._single:
            check_free(self.place)
        if not self.steps:
            told = "; ".join(note.removeprefix("note: left out, ") for note in self.notes)
            raise InputError(f"Nothing of {self.place} can go on: its runs are left out, {told}.")
        return Continued(tuple(self.steps), tuple(self.waiting), tuple(self.notes))

    @property
    def _single(self) -> bool:
        return is_run(self.place)

    @property
    def _own(self) -> Path:
        return self.place.resolve()

    def _found(self, link: Link, home: Path, alone: bool = False) -> dict[Path, Standing]:
        """What became of a step, by runs; of another command, by the folder it lies in."""
        if link.stem != FIT:
            return {home: of_command(home, link.stem)}
        runs = [self.place] if alone else points(home) if link.group else [home]
        return {run: of_run(run) for run in runs}

    def _sorted(self, link: Link, found: dict[Path, Standing]) -> tuple[list[Path], list[str]]:
        """What of a step is to be handed in, and its jobs that go on."""
        todo: list[Path] = []
        running: list[str] = []
        for path, standing in found.items():
            # A job behind one that is handed in anew waits for the old one, which will not come.
            vain = standing.word == "waits" and (bool(self.steps) or standing.in_vain)
            # What is made of a training is made again after it; a training that is done is not.
            again = standing.word == "done" and bool(self.steps) and link.stem != FIT
            if standing.word == "over" or vain or again:
                todo.append(path)
                self.waiting += [standing.job] if vain else []
            elif standing.word != "done":
                if not standing.job:
                    check_free(path)  # it trains outside of SLURM: nothing can wait for it
                running.append(standing.job)
        return todo, running

    def _note_left_out(self, found: dict[Path, Standing], todo: Sequence[Path]) -> None:
        done = [run.name for run, standing in found.items() if standing.word == "done"]
        busy = [f"{run.name} ({of.job})" for run, of in found.items() if run not in todo and of.word != "done"]
        self.notes += [f"note: left out, being done: {', '.join(done)}"] if done else []
        self.notes += [f"note: left out, having a job: {', '.join(busy)}"] if busy else []

    def _note_cut_off(self, home: Path, number: int) -> None:
        """Tell that other runs of a group are not done, so that nothing behind it can come after this one."""
        behind = [later.stem for later in self.again.chain[number + 1 :]]
        if behind:
            told = f"{' and '.join(behind)} behind the group not submitted, as other runs of it are not done"
            self.notes.append(f"note: {told}. `instructedit submit --resume {shlex.quote(str(home))}` takes all.")

    def _step(self, link: Link, home: Path, todo: Sequence[Path], after: tuple[str, ...]) -> Step:
        group = link.group and not (self._single and self.place in todo)
        place = home if group or link.stem != FIT else todo[0]
        again = self._read(place, link.stem)
        fit = again.words == (FIT,)
        frozen = [self._settings(path, self._read(path, link.stem)) for path in todo] if fit or again.frozen else []
        resources, profile = self._resources(again, [settings.config for settings in frozen] if fit else [])
        if len({settings.flags for settings in frozen}) > 1:
            raise InputError(f"The runs of {home} were submitted with different flags. Resume them one by one.")
        tasks = [Task(self._run(path, again, settings), settings) for path, settings in zip(todo, frozen, strict=False)]
        for settings in frozen if fit else ():
            fit_in(settings.config, resources, profile, self.notes)
        step = Step(
            command=again.words[0],
            words=again.words,
            argv=() if frozen else again.arguments[len(again.words) :],
            tasks=tuple(tasks) or (Task(),),
            home=place,
            stem=link.stem,
            resources=resources,
            profile=profile,
            folder=Path(again.folder),
            group=group,
            made=tuple(self._made),
            writes=tuple(map(Path, again.writes)),
            chain=again.chain,
            at_once=(self.at_once or again.at_once) if group else None,
            after=after,
        )
        self._made += [again.seen(path) for path in again.writes]
        return step

    def _read(self, home: Path, stem: str) -> Again:
        again = read_again(home, stem)
        if again is None:
            raise InputError(f"{home / 'slurm' / stem}.json is gone. Submit the chain again from its configuration.")
        return again

    def _settings(self, home: Path, again: Again) -> Settings:
        """The settings that a task was submitted with, out of its frozen configuration.

        Raises:
            InputError: somebody has changed it, and it cannot be read.
        """
        schema = read_schema(" ".join(again.words))
        try:
            if schema is None or not again.frozen:
                raise InputError(f"{home} was submitted without one.")
            return merge(schema, again.arguments[len(again.words) :])
        except InputError as error:
            told = f"The frozen configuration of {home} cannot be taken: {error}"
            raise InputError(f"{told} Correct it, or submit the run again.") from error

    def _resources(self, again: Again, configs: Sequence[dict[str, Any]]) -> tuple[Resources, Profile]:
        """The earlier resources, with those of the flags, and of another profile, in their place."""
        asked, earlier = self.asked, again.resources
        if again.words != (FIT,):
            asked = dataclasses.replace(asked, nodes=None, gpus_per_node=None)
        profile = self.profile or again.profile
        if self.profile is not None:
            given = {name: getattr(self.profile, name) for name in FROM_PROFILE}
            earlier = dataclasses.replace(earlier, **given)
        resources = earlier
        for config in configs or ({},):
            resources = changed(earlier, asked, config, profile)
        return resources, profile

    def _run(self, path: Path, again: Again, settings: Settings) -> Path | None:
        if again.words == (FIT,):
            return path
        if again.words[0] not in ("validate", "test"):
            return None
        name, folder = (get(settings.config, f"run.{key}", "") for key in ("name", "folder"))
        return again.seen(str(RunConfig(name, folder or "runs").path))
