"""What a job asks for, out of the flags of `submit`, the command's settings and the site's profile."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from instructedit.errors import InputError
from instructedit.scheduling.options import check_options
from instructedit.scheduling.profile import Profile
from instructedit.scheduling.settings import get, put
from instructedit.scheduling.values import check_value, time_seconds

MOST = 100_000
"""Of nodes, processes and requeues."""


@dataclass(frozen=True)
class Resources:
    """What a job asks for.

    Args:
        nodes: how many.
        tasks_per_node: processes on each: one a GPU.
        gpus_per_node: 0 for none.
        cpus_per_task: of each process.
        time: sbatch's; None for the partition's own.
        mem: of a node.
        partition: null for the cluster's default; so for the next two.
        account: whose budget pays.
        qos: the quality of service.
        max_requeues: how often it may be started again.
        options: further ones of sbatch.
    """

    nodes: int = 1
    tasks_per_node: int = 1
    gpus_per_node: int = 0
    cpus_per_task: int = 1
    time: str | None = None
    mem: str | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    max_requeues: int = 0
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asked:
    """What the flags of `submit` ask for; None where the profile or the command decides."""

    nodes: int | None = None
    gpus_per_node: int | None = None
    cpus_per_task: int | None = None
    mem: str | None = None
    time: str | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    max_requeues: int | None = None
    options: tuple[str, ...] = ()

    def check(self) -> None:
        """Refuse what cannot stand in a script.

        Raises:
            InputError: names the flag.
        """
        for name in ("mem", "time", "partition", "account", "qos"):
            value = getattr(self, name)
            if value is not None:
                check_value(name, value, f"--{name}")
        for name, least in (("nodes", 1), ("gpus_per_node", 0), ("cpus_per_task", 1), ("max_requeues", 0)):
            number = getattr(self, name)
            if number is not None and not least <= number <= MOST:
                raise InputError(f"--{name.replace('_', '-')} is {number}. Give {least} to {MOST}.")
        check_options(self.options, "--option")


def for_training(config: Mapping[str, Any], asked: Asked, profile: Profile) -> Resources:
    """What a training asks for: the flags' numbers, else those of its trainer section, else the profile's.

    Raises:
        InputError: they contradict each other, or the time limit leaves no time to save.
    """
    trainer = get(config, "trainer", {})
    accelerator, devices = trainer.get("accelerator", "auto"), _count(trainer.get("devices", "auto"))
    gpus = asked.gpus_per_node
    if gpus is None:
        gpus = 0 if accelerator == "cpu" else devices if devices is not None else profile.gpus_per_node
    _check_accelerator(gpus, accelerator)
    given = trainer.get("num_nodes")
    if asked.nodes is None and given is not None and not 1 <= given <= MOST:
        raise InputError(f"trainer.num_nodes is {given}. Give 1 to {MOST}, or --nodes.")
    return _resources(
        asked,
        profile,
        nodes=asked.nodes or given or 1,
        gpus_per_node=gpus,
        tasks_per_node=gpus or devices or 1,
    )


def _check_accelerator(gpus: int, accelerator: Any) -> None:
    if gpus and accelerator == "cpu":
        raise InputError(
            f"trainer.accelerator is cpu, but the job asks for {gpus} GPUs a node. Leave --gpus-per-node out, or stack "
            f"another trainer configuration, such as configs/trainer/gpus.yaml."
        )
    if not gpus and accelerator in ("gpu", "cuda"):
        raise InputError(f"trainer.accelerator is {accelerator}, but the job asks for no GPU. Give --gpus-per-node.")


def _count(devices: Any) -> int | None:
    """The number of devices a node; None for auto."""
    if isinstance(devices, list):
        return len(devices)
    text = str(devices)
    if "," in text:
        return len([part for part in text.split(",") if part.strip()])
    return int(text) if text.isdecimal() and int(text) else None


def for_one_process(words: Sequence[str], config: Mapping[str, Any], asked: Asked, profile: Profile) -> Resources:
    """What any other command asks for: one process, and one GPU where there are GPUs.

    Args:
        words: the command, ``("prepare", "--trunk")`` for instance.
        config: its settings.
        asked: the flags.
        profile: the site's.

    Raises:
        InputError: the time limit leaves no time to save.
    """
    gpus = min(1, profile.gpus_per_node if asked.gpus_per_node is None else asked.gpus_per_node)
    on_cpu = "cpu" in (get(config, "device"), get(config, "trainer.accelerator"))
    if tuple(words) == ("prepare",) or on_cpu:
        gpus = 0
    return _resources(asked, profile, nodes=1, gpus_per_node=gpus, tasks_per_node=1)


def _resources(asked: Asked, profile: Profile, **given: Any) -> Resources:
    chosen: dict[str, Any] = {
        name: getattr(asked, name) if getattr(asked, name) is not None else getattr(profile, name)
        for name in ("cpus_per_task", "mem", "time", "partition", "account", "qos", "max_requeues")
    }
    resources = Resources(**given, **chosen, options=asked.options)
    _check_time(resources, profile)
    return resources


def _check_time(resources: Resources, profile: Profile) -> None:
    if resources.time and time_seconds(resources.time) < 2 * profile.signal_seconds:
        raise InputError(
            f"The time limit {resources.time} is under twice the {profile.signal_seconds} s before its end at which "
            f"the job is told to save. Give more --time, or another signal_seconds in the profile."
        )


def with_resources(config: dict[str, Any], resources: Resources) -> None:
    """Set the processes of a training to those its job starts."""
    put(config, "trainer.num_nodes", resources.nodes)
    put(config, "trainer.devices", resources.tasks_per_node)
    if not resources.gpus_per_node and get(config, "trainer.accelerator", "auto") == "auto":
        put(config, "trainer.accelerator", "cpu")


def changed(resources: Resources, asked: Asked, config: Mapping[str, Any], profile: Profile) -> Resources:
    """The resources of an earlier job, with what the flags ask for in their place.

    Raises:
        InputError: a flag is refused.
    """
    asked.check()
    names = ("nodes", "cpus_per_task", "mem", "time", "partition", "account", "qos", "max_requeues", "gpus_per_node")
    given = {name: getattr(asked, name) for name in names if getattr(asked, name) is not None}
    given |= {"options": asked.options} if asked.options else {}
    if asked.gpus_per_node is not None:
        _check_accelerator(asked.gpus_per_node, get(config, "trainer.accelerator", "auto"))
        given["tasks_per_node"] = asked.gpus_per_node or 1
    new = replace(resources, **given)
    _check_time(new, profile)
    return new
