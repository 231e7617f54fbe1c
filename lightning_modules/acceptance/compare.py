"""Comparing the trainings of the acceptance: strategies with one process, an interrupted run with one left alone."""

import json
from collections.abc import Sequence
from typing import Any

import torch

from instructedit.base import SiteSpec, find_sites, load_base
from instructedit.hypernet.editor import EditorConfig, HyperEditor
from lightning_modules.acceptance.results import Result
from lightning_modules.acceptance.setting import SIGNAL_STEP, STEPS, Setting
from lightning_modules.callbacks.checkpoints import read_checkpoint

BOUNDS = {"ddp": 1e-3, "zero_2": 1e-3, "fsdp2": 1e-3, "zero_3": 1e-2}
"""How far a strategy may end from one process, in shares of the way the training went: sums in another order. ZeRO-3
cuts the base too. As the tests of several processes have it."""

NEAR = 1e-3
"""The same for a run on GPUs that was interrupted: their kernels may add up in another order each time."""


def compare_strategies(setting: Setting, names: Sequence[str]) -> list[Result]:
    """Compare each training with that of one process."""
    alone, start = checkpoint(setting, "alone"), first_weights(setting)
    way = vector(alone) - vector({"state_dict": start})
    travelled = float(way.norm())
    if not travelled > 0:
        return [Result(name, "FAIL", "the training has not moved the hypernetwork") for name in names]
    found = []
    for name in names:
        other = checkpoint(setting, name)
        apart = float((vector(other) - vector(alone)).norm()) / travelled
        told = f"{setting.ranks} ranks end {apart:.1e} of the way from one process (at most {BOUNDS[name]:g})"
        right = other["global_step"] == STEPS and apart <= BOUNDS[name]
        found.append(Result(name, "PASS" if right else "FAIL", told, {"apart": apart}))
    return found


def compare_interrupted(setting: Setting, control: str) -> Result:
    """Compare the run that was requeued with one that was left alone."""
    one, two = checkpoint(setting, control), checkpoint(setting, "requeue")
    starts = [start["step"] for start in json.loads((setting.runs / "requeue" / "run.json").read_text())["starts"]]
    if starts != [0, SIGNAL_STEP + 1]:
        told = f"the run has started at steps {starts}, not at 0 and then at {SIGNAL_STEP + 1}, where it was saved"
        return Result("requeue", "FAIL", told)
    same = all(torch.equal(value, one["state_dict"][key]) for key, value in two["state_dict"].items())
    states = [content["optimizer_states"][0]["state"] for content in (one, two)]
    same = same and all(
        torch.equal(value, states[0][n][key]) for n, own in states[1].items() for key, value in own.items()
    )
    metrics = [(setting.runs / name / "metrics.csv").read_bytes() for name in (control, "requeue")]
    went = f"told at step {SIGNAL_STEP + 1}, saved, requeued as job {setting.job}, went on from there"
    if same and metrics[0] == metrics[1]:
        return Result("requeue", "PASS", f"{went} and ended with the same bits as a run left alone", {"apart": 0.0})
    apart = float(
        (vector(two) - vector(one)).norm() / (vector(one) - vector({"state_dict": first_weights(setting)})).norm()
    )
    told = f"{went}, but ended {apart:.1e} of the way from a run left alone"
    if setting.accelerator == "gpu" and apart <= NEAR:
        told += ": as near as two runs left alone where GPU kernels add up in any order"
        return Result("requeue", "PASS", told, {"apart": apart})
    return Result("requeue", "FAIL", told, {"apart": apart})


def checkpoint(setting: Setting, name: str) -> dict[str, Any]:
    """The last checkpoint of a training."""
    return read_checkpoint(setting.runs / name / "checkpoints" / "last.ckpt", verify=True)


def first_weights(setting: Setting) -> dict[str, torch.Tensor]:
    """The hypernetwork that every training starts with, under its names in a checkpoint."""
    model = setting.experiment()["model"]
    torch.manual_seed(setting.experiment()["seed_everything"])
    sites = find_sites(load_base(setting.base), SiteSpec(**model["sites"]))
    editor = HyperEditor(sites, EditorConfig(**model["editor"]))
    return {f"editor.{name}": value.detach() for name, value in editor.named_parameters()}


def vector(content: dict[str, Any]) -> torch.Tensor:
    """All parameters of a checkpoint as one vector; the running moments, which are no parameters, left out."""
    state = content["state_dict"]
    learned = [name for name in sorted(state) if ".moments." not in name]
    return torch.cat([state[name].double().flatten() for name in learned])
