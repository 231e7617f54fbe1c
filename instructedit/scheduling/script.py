"""The job script: the template, what is quoted in it and how, and the names in it. Text only; nothing is written."""

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructedit.errors import InputError
from instructedit.scheduling.profile import Profile, shipped
from instructedit.scheduling.resources import Resources
from instructedit.scheduling.values import check_path, log_pattern, quoted

TEMPLATE = "job.sbatch.j2"


@dataclass(frozen=True)
class Script:
    """What a job script is made of.

    Args:
        command: the program's command.
        name: the job's name, of any characters; those that SLURM might take otherwise are replaced.
        folder: where it was submitted, absolute.
        logs: the folder of its log, absolute.
        arguments: of the program, the command first; of an array, without the configuration and what follows it.
        flags: of an array, the arguments behind the configuration.
        points: of an array, the configuration of each task.
        at_once: of an array, how many tasks may run at the same time; None for no limit.
    """

    command: str
    name: str
    folder: Path
    logs: Path
    arguments: tuple[str, ...]
    flags: tuple[str, ...] = ()
    points: tuple[str, ...] = ()
    at_once: int | None = None


def render(script: Script, job: Resources, profile: Profile) -> str:
    """Return a job script's text.

    Raises:
        InputError: a path cannot stand where sbatch reads it, or there is no template.
    """
    check_path(str(script.logs), "The folder for logs")
    for argument in (str(script.folder), *script.arguments, *script.flags, *script.points):
        if "\0" in argument:
            raise InputError(f"An argument holds a null character: {argument!r}. Remove it.")
    text: str = _template().render(
        title=" ".join(re.sub(r"[^A-Za-z0-9._+-]", "_", word) for word in ("instructedit", script.command)),
        job_name=job_name(script.name),
        log=log_pattern(str(script.logs), "%A_%a" if script.points else "%j"),
        job=job,
        profile=profile,
        requests=_requests(job, profile),
        array=f"0-{len(script.points) - 1}" + (f"%{script.at_once}" if script.at_once else ""),
        points=script.points,
        folder=str(script.folder),
        logs=str(script.logs),
        ended=script.command != "fit",
        launcher=_launcher(script, job, profile),
        srun_options=_srun_options(script, profile),
        python=profile.python or ("python" if profile.container else sys.executable),
        arguments=script.arguments,
        flags=script.flags,
    )
    return text.rstrip("\n") + "\n"


def job_name(name: str) -> str:
    """A job's name out of any text: other characters become ``_``, and it begins with a letter or digit.

    >>> job_name("a b; rm -rf %j")
    'a_b__rm_-rf__j'
    """
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:100].lstrip("-.") or "job"
    return re.sub("(?i)(het|pack)job", r"\1-job", plain)


def shell(text: str) -> str:
    """A text as one word of the shell."""
    return shlex.quote(text)


def _requests(job: Resources, profile: Profile) -> list[str]:
    kind = f"{profile.gpu_type}:" if profile.gpu_type else ""
    gpus = {"gpus-per-node": "--gpus-per-node=", "gres": "--gres=gpu:"}[profile.gpus_request]
    asked = [f"{gpus}{kind}{job.gpus_per_node}"] if job.gpus_per_node else []
    for name in ("mem", "time", "partition", "account", "qos"):
        value = getattr(job, name)
        asked += [f"--{name}={value}"] if value else []
    asked += [f"--constraint={quoted(profile.constraint)}"] if profile.constraint else []
    return [*asked, *(_option(option) for option in (*profile.sbatch_options, *job.options))]


def _option(option: str) -> str:
    name, equals, value = option.partition("=")
    return f"{name}={quoted(value)}" if equals else option


def _launcher(script: Script, job: Resources, profile: Profile) -> list[str]:
    container = profile.container
    if container is None or container.runtime != "apptainer":
        return []
    mounts = [f"--bind={mount}" for mount in (str(script.folder), str(script.logs.parent), *container.mounts)]
    if any("," in mount or ":" in mount for mount in mounts[:2]):
        raise InputError(f"{script.folder} or {script.logs.parent} has a comma or colon, which Apptainer cannot mount.")
    gpu = ["--nv"] if job.gpus_per_node else []
    return ["apptainer", "exec", *gpu, f"--pwd={script.folder}", *mounts, container.image]


def _srun_options(script: Script, profile: Profile) -> list[str]:
    container = profile.container
    if container is None or container.runtime != "pyxis":
        return list(profile.srun_options)
    folders = (str(script.folder), str(script.logs.parent))
    if any("," in folder or ":" in folder for folder in folders):
        raise InputError(f"{script.folder} or {script.logs.parent} has a comma or colon, which pyxis cannot mount.")
    mounts = [*(f"{folder}:{folder}" for folder in folders), *container.mounts]
    return [
        *profile.srun_options,
        f"--container-image={container.image}",
        f"--container-mounts={','.join(mount if ':' in mount else f'{mount}:{mount}' for mount in mounts)}",
        f"--container-workdir={script.folder}",
    ]


def _template() -> Any:
    import jinja2

    places = [folder for folder in shipped() if (folder / TEMPLATE).is_file()]
    if not places:
        raise InputError(f"The template {TEMPLATE} was not found in {' or '.join(map(str, shipped()))}. Install again.")
    loader = jinja2.FileSystemLoader(places)
    # Not HTML: what is quoted, and how, each place in the template says.
    environment = jinja2.Environment(
        loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    environment.filters |= {"q": shell, "sbatch": quoted}
    return environment.get_template(TEMPLATE)
