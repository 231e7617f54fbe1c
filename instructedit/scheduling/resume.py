"""Going on with runs that were submitted: their jobs once more, from what was kept of them."""

import dataclasses
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader

from instructedit.errors import InputError
from instructedit.runs.jobs import FOLDER, read_jobs
from instructedit.runs.state import find_runs
from instructedit.scheduling import slurm
from instructedit.scheduling.places import check_free
from instructedit.scheduling.profile import Profile, make_profile
from instructedit.scheduling.resources import Asked, Resources, changed, with_resources
from instructedit.scheduling.script import Script, render
from instructedit.scheduling.submission import Again, Job, again_text
from instructedit.scheduling.yaml_text import as_yaml


@dataclass(frozen=True)
class Chain:
    """A training and what follows it, ready to be handed in again.

    Args:
        jobs: in their order.
        waiting: jobs of before that wait for one that will not come.
    """

    jobs: tuple[Job, ...]
    waiting: tuple[str, ...] = ()


def chains_again(name: str, asked: Asked, profile: Profile | None) -> tuple[list[Chain], list[str]]:
    """Prepare the jobs of a run, or of all runs of a group that are not done, once more. Writes nothing.

    Args:
        name: a run directory, a name in the folder of all runs, or a group.
        asked: the flags, which win over the earlier resources.
        profile: in place of the earlier one, where there is one.

    Returns:
        What to hand in, and a line for each run of the group that is left out.

    Raises:
        InputError: nothing of it can go on.
    """
    runs = find_runs([name], Path("runs"))
    chains, left = [], []
    for run in runs:
        try:
            chains.append(_chain(run, asked, profile))
        except InputError as error:
            if len(runs) == 1:
                raise
            left.append(f"left out: {error}")
    if not chains:
        raise InputError(f"No run of {name!r} can go on: {left[0]}")
    return chains, left


def _chain(run: Path, asked: Asked, profile: Profile | None) -> Chain:
    again = _read(run, "fit")
    if again is None:
        raise InputError(
            f"{run} was never submitted. Submit it: instructedit submit -- fit --from_run {shlex.quote(str(run))}"
        )
    check_free(run)
    jobs, waiting = [_job(run, "fit", again, asked, profile)], []
    records = read_jobs(run)
    for stem in again.then:
        later, ids = _read(run, stem), [job.id for job in records if Path(job.script).stem == stem]
        state = slurm.show_job(ids[-1]) if ids and slurm.installed() else None
        if state is not None and state.state == "PENDING":
            waiting.append(ids[-1])
        if later is not None:
            jobs.append(_job(run, stem, later, asked, profile))
    return Chain(tuple(jobs), tuple(waiting))


def _read(run: Path, stem: str) -> Again | None:
    """What a task of a run was submitted with; None where it was not.

    Raises:
        InputError: the file cannot be read.
    """
    path = run / FOLDER / f"{stem}.json"
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        resources = Resources(**content["resources"] | {"options": tuple(content["resources"]["options"])})
        lists = {name: tuple(content[name]) for name in ("arguments", "then")}
        profile = make_profile(content["profile"], str(path))
        return Again(**content | lists | {"resources": resources, "profile": profile})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} cannot be read: {error}. Submit the run again from its configuration.") from error


def _job(run: Path, stem: str, again: Again, asked: Asked, profile: Profile | None) -> Job:
    """A task's job once more, with the flags' resources in place of the earlier ones.

    Raises:
        InputError: the frozen configuration is gone, or a flag is refused.
    """
    config = run / FOLDER / f"{stem}.yaml"
    files: dict[Path, str] = {}
    content: dict[str, Any] = {}
    frozen = any(argument.startswith("--config=") for argument in again.arguments)
    if frozen:
        try:
            content = get_loader("yaml")(config.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise InputError(f"{config} cannot be read: {error}. Submit the run again.") from error
    fit = again.command == "fit"
    wanted = asked if fit else dataclasses.replace(asked, nodes=None, gpus_per_node=None)
    earlier = again.resources
    if profile is not None:
        names = ("cpus_per_task", "mem", "time", "partition", "account", "qos", "max_requeues")
        earlier = dataclasses.replace(earlier, **{name: getattr(profile, name) for name in names})
    resources = changed(earlier, wanted, content, profile or again.profile)
    if fit and resources != again.resources:
        with_resources(content, resources)
        files[config] = as_yaml(content)
    now = dataclasses.replace(again, resources=resources, profile=profile or again.profile)
    files[run / FOLDER / f"{stem}.json"] = again_text(now)
    script = Script(
        command=again.command,
        name=run.name if fit else f"{run.name}-{stem}",
        folder=Path(again.folder),
        logs=(run / FOLDER).absolute(),
        arguments=again.arguments,
    )
    text = render(script, resources, now.profile)
    return Job(again.command, run, stem, text, resources, files, (run,) if fit else ())
