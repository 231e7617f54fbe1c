"""Whether a step may have the place it asks for: runs that are busy or done, groups and runs of one name."""

from dataclasses import replace
from pathlib import Path

from instructedit.errors import InputError
from instructedit.runs.progress import read_progress
from instructedit.runs.state import is_run, runs_in, state_of
from instructedit.scheduling.plan import Step
from instructedit.scheduling.values import control_characters
from instructedit.terminal import quoted

ALIVE = ("queued", "starting", "running", "requeued")


def check_place(step: Step) -> None:
    """Refuse a run that is busy or done, and a group in a run's place or the other way round.

    Raises:
        InputError: names the folder.
        SchedulerError: SLURM is installed and does not answer.
    """
    if control_characters(str(step.home)):
        raise InputError(f"{str(step.home)!r} holds a line break or another control character. Choose another name.")
    if step.command in ("validate", "test") and step.tasks[0].run is not None:
        run = step.tasks[0].run
        if not is_run(run) and run.resolve() not in [path.resolve() for path in step.made]:
            raise InputError(
                f"There is no run at {str(run)!r} to {step.command}. Give the settings of one, or --from_run."
            )
    if step.command != "fit":
        return
    if step.group and is_run(step.home):
        raise InputError(f"{step.home} is a run, so it cannot be a group of them. Choose another --run.name.")
    if not step.group and step.home.is_dir() and not is_run(step.home) and runs_in(step.home):
        raise InputError(f"{step.home} is a group of runs, so it cannot be a run. Choose another --run.name.")
    for task in step.tasks:
        if task.run is not None and task.run.is_dir() and not (step.group and _is_done(task.run)):
            check_free(task.run)


def _is_done(run: Path) -> bool:
    progress = read_progress(run)
    return progress is not None and progress.state == "done"


def without_done(step: Step, notes: list[str]) -> Step:
    """A group's step without the points that are done: a larger array goes on with a smaller one's runs.

    Args:
        step: any step.
        notes: grows by a line where some are left out.

    Raises:
        InputError: all are done.
    """
    done = [task.run for task in step.tasks if step.group and task.run is not None and _is_done(task.run)]
    if done and len(done) == len(step.tasks):
        raise InputError(f"All {len(done)} runs of {step.home} are done. Choose another --run.name, or other points.")
    if done:
        notes.append(f"note: left out, being done: {', '.join(run.name for run in done)}")
    return replace(step, tasks=tuple(task for task in step.tasks if task.run not in done))


def check_free(run: Path) -> None:
    """Refuse a run that something trains, or will, or that is done.

    Raises:
        InputError: names the run and its job.
        SchedulerError: SLURM is installed and does not answer.
    """
    state = state_of(run)
    if state.word in ALIVE:
        job = f"job {state.job.id}" if state.job else "a process"
        end = f"`scancel {state.job.id}`" if state.job else "Ctrl-C"
        raise InputError(
            f"{run} is {state.word}: {job} would train in the same directory. Wait for it, end it with {end}, or "
            f"choose another --run.name."
        )
    if state.word == "done":
        raise InputError(
            f"The run {run} is done. Choose another --run.name; `instructedit test --from_run {quoted(run)}` makes its "
            f"table again."
        )
