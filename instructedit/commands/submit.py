"""The command ``submit``: another command of this program as a SLURM job, an array of jobs, or a chain of them.

Knows the order of the work and what is told. What becomes a job, `instructedit.scheduling` decides.
"""

import os
import re
import shlex
import sys
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from instructedit.cli import switched_on, underscored
from instructedit.commands.parser import command_parser
from instructedit.errors import InputError
from instructedit.repeated import gathered
from instructedit.scheduling import slurm
from instructedit.scheduling.places import check_place, without_done
from instructedit.scheduling.plan import Step, make_steps
from instructedit.scheduling.profile import Profile, find_profile, read_profile, user_folder
from instructedit.scheduling.resources import Asked
from instructedit.scheduling.resume import steps_again
from instructedit.scheduling.submission import Job, Submitted, cancel_all, dependency, hand_in, make_jobs
from instructedit.scheduling.values import check_value

SEVERAL = ("--array", "--sweep", "--after", "--option")
"""Flags that may be given more than once."""

NUMBERS = ("--nodes", "--gpus_per_node", "--cpus_per_task", "--max_requeues", "--at_once")

SHOWN_POINTS = 6

USAGE = """instructedit submit [flags] -- COMMAND ... [--then COMMAND ...]
       instructedit submit [flags] --resume RUN"""

ABOUT = """Hand a command to SLURM: flags for the job stand before --, the command behind it, unchanged.

  instructedit submit --gpus-per-node 4 --time 12:00:00 -- fit --config my.yaml --config configs/trainer/gpus.yaml

--then COMMAND ... behind it submits one more job, which starts when the one before has ended well. Script, frozen
configuration and log lie in the run directory's slurm/ folder; `instructedit status RUN` watches the run."""


def submit(argv: Sequence[str]) -> None:
    """Submit what stands behind ``--`` with the flags before it.

    Args:
        argv: see ``instructedit submit --help``.

    Raises:
        InputError: a flag, the command or one of its settings is refused, or SLURM refuses the job.
    """
    own, words = list(argv), None
    if "--" in own:
        place = own.index("--")
        own, words = own[:place], own[place + 1 :]
    parser = command_parser(
        "submit",
        USAGE,
        ABOUT,
        f"Profiles: slurm/profiles, {user_folder()}, and those that come with this program. See docs/slurm.md.",
    )
    parser.add_function_arguments(_submit, skip={"words"}, as_group=False)
    flags = gathered(switched_on(_submit, underscored(own)), SEVERAL)
    _check_numbers(flags)
    alone = _alone(flags)
    if words is None and alone:
        raise InputError(f"{alone!r} stands before --. Write: instructedit submit [flags] -- fit --config FILE.")
    try:
        _submit(words=words, **parser.parse_args(flags).as_dict())
    except BrokenPipeError:
        raise
    except OSError as error:
        # A folder nobody may look into, a disk that is gone.
        where = f"{error.filename}: " if error.filename else ""
        raise InputError(f"Cannot submit: {where}{error.strerror or error}.") from error


def _submit(
    words: list[str] | None,
    profile: str | None = None,
    nodes: int | None = None,
    gpus_per_node: int | None = None,
    cpus_per_task: int | None = None,
    mem: str | None = None,
    time: str | None = None,
    partition: str | None = None,
    account: str | None = None,
    qos: str | None = None,
    max_requeues: int | None = None,
    option: list[str] = [],  # noqa: B006 - never changed; shown in --help
    array: list[str] = [],  # noqa: B006
    sweep: list[str] = [],  # noqa: B006
    at_once: int | None = None,
    after: list[str] = [],  # noqa: B006
    resume: str | None = None,
    dry_run: bool = False,
    no_preflight: bool = False,
) -> None:
    """Submit.

    Args:
        words: what stands behind ``--``; None where there is none.
        profile: the site profile, by name or path; else INSTRUCTEDIT_PROFILE, else default.
        nodes: nodes of a training; else trainer.num_nodes.
        gpus_per_node: GPUs of each node of a training, a process each; 0 for the CPU, with trainer.devices processes.
        cpus_per_task: CPUs of each process.
        mem: memory of a node, such as 64G.
        time: the time limit: minutes, HH:MM:SS or DAYS-HH:MM:SS. A training saves before it and goes on by itself.
        partition: the partition, or several separated by commas.
        account: whose budget pays.
        qos: the quality of service.
        max_requeues: how often a job may be started again.
        option: one more option of sbatch, as in --option=--exclusive; may be repeated.
        array: one training for each value, as in --array seed=0..4; they are runs of one group. Of `reproduce`, one
            task for each value, as in --array only=mend-0,mend-1.
        sweep: the same for any setting, as in --sweep model.lr=1e-4,2e-4; repeated, every combination.
        at_once: how many trainings of a group may run at the same time.
        after: the number of a job that must end well first; may be repeated.
        resume: continue a run that failed or was cancelled (or those of a group), and the rest of its chain, with the
            same configuration and resources; flags win.
        dry_run: show scripts and configurations; write and submit nothing.
        no_preflight: leave out the look at base, data, memory and disk before submission.
    """
    if at_once is not None and at_once < 1:
        raise InputError(f"--at-once is {at_once}. Give 1 or more.")
    asked = Asked(nodes, gpus_per_node, cpus_per_task, mem, time, partition, account, qos, max_requeues, tuple(option))
    numbers = [check_value("job", number, "--after") for text in after for number in text.split(",")]
    folder = _folder()
    site = read_profile(find_profile(profile))
    if resume is not None:
        if words or array or sweep:
            raise InputError("--resume RUN submits what the run was submitted with: give neither a command nor points.")
        _resume(resume, asked, site if profile else None, numbers, at_once, dry_run, no_preflight)
        return
    if not words:
        raise InputError("There is no command. Write: instructedit submit [flags] -- fit --config FILE.")
    if at_once is not None and not (array or sweep):
        raise InputError("--at-once is for the runs of a group: give it with --array or --sweep, or leave it out.")
    if not dry_run:
        _need_slurm()
    steps, notes = make_steps(words, asked, site, folder, [*sweep, *array], at_once)
    for step in steps:
        check_place(step)
    steps = [without_done(step, notes) for step in steps]
    if not no_preflight:
        notes += _look(steps, dry_run)
    notes += _overriding()
    jobs = make_jobs(steps)
    for note in notes:
        print(note, file=sys.stderr)
    if dry_run:
        _show(jobs, numbers)
    else:
        _tell(hand_in(jobs, numbers))


def _folder() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError as error:
        raise InputError("The folder you are in was removed. Change into one that exists, and submit there.") from error


def _overriding() -> list[str]:
    """A line for variables of the shell that sbatch takes before what stands in a script."""
    names = sorted(name for name in os.environ if name.startswith("SBATCH_"))
    told = "sbatch takes them before the script's own lines. Unset what is not meant."
    return [f"warning: this shell has {', '.join(names)}; {told}"] if names else []


def _alone(flags: Sequence[str]) -> str:
    """The first argument that is neither a flag nor a flag's value; empty for none."""
    rest = list(reversed(flags))
    while rest:
        argument = rest.pop()
        if argument[:1] != "-":
            return argument
        if "=" not in argument and argument not in ("-h", "--help") and rest:
            rest.pop()
    return ""


def _check_numbers(flags: Sequence[str]) -> None:
    """Refuse what is no whole number; the parser would tell more than a line about it."""
    for argument, after in zip_longest(flags, flags[1:], fillvalue=""):
        name, equals, value = argument.partition("=")
        text = value if equals else after
        if name in NUMBERS and not re.fullmatch(r"-?\d{1,18}", text, re.ASCII):
            raise InputError(f"{name.replace('_', '-')} is {text!r}. Give a whole number.")


def _need_slurm() -> None:
    if not slurm.installed():
        raise InputError(
            "SLURM's sbatch was not found on this machine. Submit on a login node of your cluster, or look at the "
            "script with --dry-run."
        )


def _look(steps: Sequence[Step], dry: bool) -> list[str]:
    from instructedit.scheduling.preflight.steps import look

    return look(steps, dry)


def _resume(
    name: str,
    asked: Asked,
    profile: Profile | None,
    after: Sequence[str],
    at_once: int | None,
    dry_run: bool,
    no_preflight: bool,
) -> None:
    if not dry_run:
        _need_slurm()
    again = steps_again(name, asked, profile, at_once)
    notes = [*again.notes, *([] if no_preflight else _look(again.steps, dry_run)), *_overriding()]
    jobs = make_jobs(again.steps)
    for note in dict.fromkeys(notes):
        print(note, file=sys.stderr)
    if dry_run:
        _show(jobs, after)
        return
    _tell(hand_in(jobs, after))
    # Only now: whatever SLURM says to this, the new jobs are told.
    for line in cancel_all(again.waiting):
        print(f"warning: {line}", file=sys.stderr)


def _show(jobs: Sequence[Job], after: Sequence[str]) -> None:
    waits = list(after)
    for job in jobs:
        waits += job.after
        print(f"==> {job.path}")
        print(job.script)
        for path, text in job.files.items():
            if path.suffix == ".yaml":
                print(f"==> {path}")
                print(text)
        print(f"==> {shlex.join(['sbatch', *dependency(waits), str(job.path)])}")
        waits = [f"JOB_OF_{job.stem.upper()}"]
    print("Nothing was written or submitted.", file=sys.stderr)


def _tell(submitted: Sequence[Submitted]) -> None:
    before = ""
    for one in submitted:
        job = one.job
        what = f"array {one.id}{f', {len(job.runs)} runs' if job.runs else ''}" if job.group else f"job {one.id}"
        print(f"{job.command}: {what}{f', after {before}' if before else ''}")
        print(f"  in     {job.home}")
        if job.group and job.runs:
            more = f" ... {job.runs[-1].name}" if len(job.runs) > SHOWN_POINTS else ""
            print(f"  runs   {' '.join(run.name for run in job.runs[:SHOWN_POINTS])}{more}")
        print(f"  log    {job.log(f'{one.id}_*' if job.group else one.id)}")
        before = one.id
    watched = list(dict.fromkeys(str(one.job.home) for one in submitted if one.job.runs))
    if watched:
        print(f"watch:   instructedit status {shlex.join(watched)}")
