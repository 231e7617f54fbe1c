"""A site profile: what every job on one cluster needs, read from YAML once and checked before anything is written.

Knows the file and its fields. Which of them a flag replaces, `instructedit.scheduling.plan` decides; how they stand in
a script, `instructedit.scheduling.script`.
"""

import dataclasses
import os
import re
import site
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from platformdirs import user_config_path

from instructedit.errors import InputError, unknown
from instructedit.scheduling.keys import check_name, check_text
from instructedit.scheduling.options import check_options, check_srun_options
from instructedit.scheduling.values import MAXIMUM, check_length, check_value, control_characters

DEFAULT = "default"
VARIABLE = "INSTRUCTEDIT_PROFILE"
"""Names the profile where --profile does not."""

MOST_SIGNAL_SECONDS = 65535
"""SLURM's own limit."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_SCRATCH = re.compile(r"(?:[A-Za-z0-9_./@+-]|\$[A-Za-z_][A-Za-z0-9_]*|\$\{[A-Za-z_][A-Za-z0-9_]*\})+\Z")


@dataclass(frozen=True)
class Container:
    """The container a job's program runs in.

    Args:
        runtime: apptainer, or pyxis (srun's --container-image).
        image: a file, or an image as the runtime names it.
        mounts: further folders to see inside, as ``PATH`` or ``PATH:INSIDE``; the submission folder is always seen.
    """

    runtime: Literal["apptainer", "pyxis"] = "apptainer"
    image: str = ""
    mounts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Profile:
    """What every job on one cluster needs; all fields have defaults, and a flag of `submit` wins over its field.

    Args:
        partition: null for the cluster's own default; the same for account, qos and constraint.
        account: whose budget pays.
        qos: the quality of service.
        constraint: features the nodes must have.
        time: the time limit, as sbatch takes it: minutes, HH:MM:SS or DAYS-HH:MM:SS.
        mem: memory of a node, for instance 64G.
        cpus_per_task: CPUs of each process.
        gpus_per_node: GPUs of a training where neither --gpus-per-node nor its trainer.devices says how many.
        gpus_request: how this cluster is asked for GPUs: --gpus-per-node=N, or --gres=gpu:N.
        gpu_type: the type in that request, for instance a100.
        gpu_memory_gib: memory of one GPU, for the preflight's estimate.
        max_requeues: how often a job may be started again.
        signal_seconds: how long before the time limit a job is told to save and stop.
        modules: names for `module load`, in order.
        environment: variables for the job; no keys or tokens.
        setup: lines of shell, before the program starts; written into the script as they are.
        scratch: a folder for temporary files, made on each node; may name variables such as $SLURM_JOB_ID.
        container: the container the program runs in.
        python: the Python that runs the program; null for the one that submits (in a container: python).
        offline: whether compute nodes reach no internet: nothing is downloaded there, and W&B writes to files.
        sbatch_options: further options of sbatch, for instance --exclusive.
        srun_options: further options of srun.
        free_space_command: prints the free space in GiB, where folders have quotas; for the preflight.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    time: str | None = None
    mem: str | None = None
    cpus_per_task: int = 4
    gpus_per_node: int = 1
    gpus_request: Literal["gpus-per-node", "gres"] = "gpus-per-node"
    gpu_type: str | None = None
    gpu_memory_gib: float | None = None
    max_requeues: int = 20
    signal_seconds: int = 300
    modules: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    setup: tuple[str, ...] = ()
    scratch: str | None = None
    container: Container | None = None
    python: str | None = None
    offline: bool = False
    sbatch_options: tuple[str, ...] = ()
    srun_options: tuple[str, ...] = ()
    free_space_command: str | None = None


def find_profile(name: str | None) -> Path:
    """Find a profile by its name, or take it as a path.

    Args:
        name: as --profile has it; None for the one that INSTRUCTEDIT_PROFILE names, else the default one.

    Raises:
        InputError: there is none.
    """
    asked = name or os.environ.get(VARIABLE) or DEFAULT
    check_length(asked, "The profile")
    if "/" in asked or asked.endswith((".yaml", ".yml")):
        if not Path(asked).is_file():
            raise InputError(f"No profile at {asked!r}: there is no such file. Give a file, or a profile's name.")
        return Path(asked)
    folders = profile_folders()
    for folder in folders:
        if (folder / f"{asked}.yaml").is_file():
            return folder / f"{asked}.yaml"
    known = {path.stem for folder in folders for path in folder.glob("*.yaml")}
    raise unknown("profile", asked, known, f"Write one, such as {user_folder() / 'NAME.yaml'}, or give a path.")


def user_folder() -> Path:
    """Where a user's own profiles lie."""
    return user_config_path("instructedit") / "profiles"


def profile_folders() -> list[Path]:
    """Where profiles are looked for, in this order."""
    return [Path("slurm/profiles"), user_folder(), *(folder / "profiles" for folder in shipped())]


def shipped() -> list[Path]:
    """Where the templates and profiles of this package may lie: beside it in a checkout, else where pip puts them."""
    prefixes = (Path(sys.prefix), Path(site.getuserbase()))
    return [Path(__file__).parents[2] / "slurm", *(prefix / "share" / "instructedit" / "slurm" for prefix in prefixes)]


def read_profile(path: Path) -> Profile:
    """Read and check a profile.

    Raises:
        InputError: it cannot be read, or a field is wrong; names both.
    """
    try:
        # Every value as the text it is: an HH:MM:SS stays one, and so does a variable's "yes".
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except RecursionError as error:
        raise InputError(f"The profile {path} cannot be read: its brackets are too deep. Correct it.") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"The profile {path} cannot be read: {error}") from error
    return make_profile(content or {}, str(path))


def make_profile(content: Any, source: str) -> Profile:
    """Build a profile of a mapping of texts, lists and mappings.

    Raises:
        InputError: a field is unknown or wrong.
    """
    profile: Profile = _built(Profile, content, f"The profile {source}")
    _check(profile, f"The profile {source}")
    return profile


def as_content(profile: Profile) -> dict[str, Any]:
    """A profile as JSON holds it; ``make_profile`` takes it back."""
    return dataclasses.asdict(profile)


def _built(kind: Any, content: Any, source: str) -> Any:
    if not isinstance(content, Mapping):
        raise InputError(f"{source} holds {content!r} where fields and values were expected, as in `time: 60`.")
    fields = {one.name: one for one in dataclasses.fields(kind)}
    for key in content:
        if key not in fields:
            near = get_close_matches(str(key), fields, n=1)
            told = f" Did you mean {near[0]!r}?" if near else ""
            raise InputError(f"{source} has an unknown field {key!r}.{told} Fields: {', '.join(fields)}.")
    return kind(**{key: _value(fields[key].type, value, key, source) for key, value in content.items()})


def _value(kind: Any, value: Any, key: str, source: str) -> Any:
    """A field's value of what stands in the file: texts, or what `as_content` has made of one."""

    def wrong(wanted: str) -> InputError:
        return InputError(f"{source}: {key} is {value!r}. Give {wanted}.")

    choices = get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        if value is None or value in ("null", "~", ""):
            return None
        return _value(choices[0], value, key, source)
    if get_origin(kind) is Literal:
        if value not in choices:
            raise wrong("one of " + ", ".join(choices))
        return value
    if get_origin(kind) is tuple:
        value = [] if value in ("", "null", "~") else value
        value = value.splitlines() if isinstance(value, str) and key == "setup" else value
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise wrong("a list of texts")
        return tuple(value)
    if get_origin(kind) is Mapping:
        value = {} if value in ("", "null", "~") else value
        if not isinstance(value, Mapping) or not all(isinstance(item, str) for item in value.values()):
            raise wrong("names and values")
        return dict(value)
    if dataclasses.is_dataclass(kind):
        return _built(kind, value, f"{source}, {key}")
    text = str(value)
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise wrong("true or false")
        return text.lower() == "true"
    if kind in (int, float):
        try:
            number = kind(text)
        except ValueError as error:
            raise wrong("a whole number" if kind is int else "a number") from error
        if not 0 <= number <= MAXIMUM:
            raise wrong(f"a number from 0 to {MAXIMUM}")
        return number
    if not isinstance(value, str):
        raise wrong("a text")
    return value


def _check(profile: Profile, source: str) -> None:
    """Refuse what would mean something else in a script."""
    for key in ("partition", "account", "qos", "constraint", "time", "mem", "gpu_type"):
        value = getattr(profile, key)
        if value is not None:
            check_value(key, value, f"{source}: {key}")
    if profile.cpus_per_task < 1:
        raise InputError(f"{source}: cpus_per_task is {profile.cpus_per_task}. Give 1 or more.")
    if not 1 <= profile.signal_seconds <= MOST_SIGNAL_SECONDS:
        told = f"Give 1 to {MOST_SIGNAL_SECONDS}, enough to save in."
        raise InputError(f"{source}: signal_seconds is {profile.signal_seconds}. {told}")
    for name, value in profile.environment.items():
        if not _NAME.match(name):
            raise InputError(f"{source}: environment has {name!r}, which is no variable's name. Use A-Z, 0-9 and _.")
        check_name(name, f"{source}: environment")
        check_text(value, f"{source}: environment: {name}")
        if "\0" in value:
            raise InputError(f"{source}: environment: {name} holds a null character. Remove it.")
    for item in profile.modules:
        if not item or control_characters(item):
            raise InputError(f"{source}: modules has {item!r}. Give texts of one line.")
    check_options(profile.sbatch_options, f"{source}: sbatch_options")
    check_srun_options(profile.srun_options, f"{source}: srun_options")
    for line in profile.setup:
        check_text(line, f"{source}: setup")
    if profile.scratch is not None and not _SCRATCH.match(profile.scratch):
        raise InputError(
            f"{source}: scratch is {profile.scratch!r}. Give a folder of plain characters and variables, such as "
            f"/scratch/$USER/$SLURM_JOB_ID."
        )
    if profile.container is not None:
        texts = (profile.container.image, *profile.container.mounts)
        if not profile.container.image or any(control_characters(text) for text in texts):
            raise InputError(f"{source}: container needs an image, and texts of one line.")
        if any("," in text for text in profile.container.mounts):
            raise InputError(f"{source}: container.mounts has a comma, which separates mounts. List them one by one.")
