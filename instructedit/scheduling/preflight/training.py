"""Preflight: settings that a training refuses when it starts, and what it needs to be installed or launched."""

import importlib.metadata
import importlib.util
import netrc
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from instructedit.runs.directory import FREE, SCIENCE
from instructedit.scheduling.preflight.work import Finding, Work


def check_training(work: Work) -> Iterator[Finding]:
    """Look at settings that do not go together."""
    if work.kind != "training":
        return
    steps, strategy = int(work.get("trainer.max_steps")), str(work.get("trainer.strategy"))
    placement, method = work.get("model.placement"), work.get("model.method")
    for name in ("max_steps", "log_every_n_steps"):
        value = work.get(f"trainer.{name}")
        if int(value) < 1:
            yield Finding("error", f"trainer.{name} is {value}. Set it to 1 or more.")
    if 1 <= steps < int(work.get("model.warmup_steps")):
        told = (
            f"model.warmup_steps is {work.get('model.warmup_steps')}, but the run ends at step {steps}. Set it lower."
        )
        yield Finding("error", told)
    if work.get("model.trunk_device") == "cpu" and placement != "tail_only":
        told = f"model.trunk_device is cpu, but model.placement is {placement}. It goes with tail_only."
        yield Finding("error", told)
    if work.get("model.ke") is not None and method != "KE":
        told = f"model.ke is set, but model.method is {method}. Leave it out, or set model.method to KE."
        yield Finding("error", told)
    if work.command != "fit":
        return
    if placement == "sharded" and strategy not in ("zero_3", "zero_3_offload"):
        yield Finding(
            "error",
            f"model.placement is sharded, which zero_3 and zero_3_offload do; trainer.strategy is {strategy}. Set it "
            f"to one of them, or model.placement to replicated or tail_only.",
        )
    if placement == "sharded" and method == "KE":
        yield Finding("error", "KE cannot share a base between ranks. Set model.placement to replicated or tail_only.")
    if strategy.startswith("zero_") and work.get("trainer.gradient_clip_algorithm") == "value":
        yield Finding(
            "error",
            f"{strategy} clips gradients by their norm alone, but trainer.gradient_clip_algorithm is value. Set it to "
            f"norm, or trainer.strategy to ddp or fsdp2.",
        )


def check_launch(work: Work) -> Iterator[Finding]:
    """Compare the processes that are started with those that are expected, and look for the packages."""
    if work.command != "fit":
        if work.ranks > 1 and work.kind != "other":
            told = f"{work.command} works in one process, but {work.ranks} would be started. Ask for one node and GPU."
            yield Finding("error", told)
        return
    devices = work.get("trainer.devices")
    if isinstance(devices, int | str) and str(devices).isdecimal():
        wanted = int(devices) * int(work.get("trainer.num_nodes"))
        if wanted != work.ranks:
            yield Finding(
                "error",
                f"{work.ranks} processes would be started, but trainer.devices {devices} on "
                f"{work.get('trainer.num_nodes')} nodes ask for {wanted}. Leave both to submit's --nodes and "
                f"--gpus-per-node.",
            )
    if not work.elsewhere:
        yield from _packages(work)


def _packages(work: Work) -> Iterator[Finding]:
    """Look for what has to be installed where the job's Python is this one."""
    strategy = str(work.get("trainer.strategy"))
    if strategy.startswith("zero_") and importlib.util.find_spec("deepspeed") is None:
        told = f"trainer.strategy {strategy} needs the package deepspeed. Run `pip install 'instructedit[deepspeed]'`."
        yield Finding("error", told)
    elif work.get("model.placement") == "sharded" and importlib.util.find_spec("accelerate") is None:
        told = "model.placement sharded needs the package accelerate. Run `pip install 'instructedit[deepspeed]'`."
        yield Finding("error", told)
    if importlib.util.find_spec("lightning") is None:
        yield Finding("error", "fit needs the package lightning. Run `pip install 'instructedit[train]'`.")
    if work.get("trainer.accelerator") in ("gpu", "cuda"):
        try:
            version = importlib.metadata.version("torch")
        except importlib.metadata.PackageNotFoundError:
            return
        if version.endswith("+cpu"):
            yield Finding(
                "warning",
                f"trainer.accelerator is {work.get('trainer.accelerator')}, but torch {version} here is a build for "
                f"CPUs. Install one for CUDA, unless modules or setup lines of the profile bring another.",
            )


def check_run(work: Work) -> Iterator[Finding]:
    """Look at the run directory: another run's, or one without what is asked of it."""
    if work.kind != "training" or work.run is None or work.command not in ("fit", "validate", "test"):
        return
    checkpoints = work.run / "checkpoints"
    started = any(checkpoints.glob("*.ckpt"))
    asked = work.get("ckpt_path")
    if asked not in (None, "last", "best") and not Path(asked).is_file() and not work.is_made(asked):
        yield Finding("error", f"--ckpt_path {asked} does not exist. Name another checkpoint, or leave it out.")
    if not started and (work.command != "fit" or asked in ("last", "best")) and not work.is_made(work.run):
        both = f"Train it first; `instructedit submit -- fit ... --then {work.command} ...` does both."
        way = both if work.command != "fit" else "Leave --ckpt_path out to start it."
        yield Finding("error", f"The run in {work.run} has no checkpoint yet. {way}")
    if started:
        yield from _changed(work, work.run / "config.yaml")


def _changed(work: Work, path: Path) -> Iterator[Finding]:
    """Settings that differ from those the run was started with, as far as both were written down."""
    try:
        before = dict(_flat(yaml.safe_load(path.read_text(encoding="utf-8"))))
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return
    now = {key: value for key, value in _flat(work.config) if key.startswith(SCIENCE) and not key.startswith(FREE)}
    changed = [
        f"{key} ({before[key]!r}, now {value!r})"
        for key, value in now.items()
        if key in before and _plain(before[key]) != _plain(value)
    ]
    if changed:
        yield Finding(
            "error",
            f"The run directory {path.parent} belongs to another configuration: {', '.join(changed)}. Choose another "
            f"--run.name, or remove the directory.",
        )


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}{key}.")
    else:
        yield prefix.removesuffix("."), value


def _plain(value: Any) -> Any:
    """A value as it compares whoever has written it: 1, 1.0 and the text 1e-3 are numbers."""
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, bool) or value is None:
        return value
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


def check_wandb(work: Work) -> Iterator[Finding]:
    """Look for what Weights & Biases needs."""
    mode = work.get("run.wandb") if work.command == "fit" else "disabled"
    if mode == "disabled":
        return
    if not work.elsewhere and importlib.util.find_spec("wandb") is None:
        told = f"run.wandb is {mode}, which needs the package wandb. Run `pip install 'instructedit[wandb]'`."
        yield Finding("error", told)
    elif mode == "online" and work.offline:
        yield Finding(
            "warning",
            "run.wandb is online, but the compute nodes have no internet. Set it to offline, and upload the run "
            "afterwards with `wandb sync`.",
        )
    elif mode == "online" and not _has_key():
        yield Finding(
            "warning",
            "run.wandb is online, but there is no key here: the run is kept offline. Run `wandb login` first, or set "
            "WANDB_API_KEY, or upload it afterwards with `wandb sync`.",
        )


def _has_key() -> bool:
    """Whether this account has a key for Weights & Biases; it is looked for, never kept."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("://")[-1].split("/")[0].split(":")[0]
    path = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
