"""Comparing the trainings of the acceptance: strategies with one process, an interrupted run with one left alone."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from instructedit.base import SiteSpec, find_sites, load_base
from instructedit.hypernet.editor import EditorConfig, HyperEditor
from lightning_modules.acceptance.results import Result
from lightning_modules.acceptance.setting import SIGNAL_STEP, STEPS, Setting
from lightning_modules.callbacks.checkpoints import read_checkpoint

GRADIENTS = {"ddp": 1e-3, "zero_2": 1e-3, "fsdp2": 1e-3, "zero_3": 1e-2}
"""How far Adam's mean gradients may be from those of one process, as a share of them: sums in another order, and ZeRO-3
cuts the base too. As the tests of several processes have it; half of each batch in place of all of it is 0.8 off."""

WAY = 5e-2
"""How far apart weights may end, as a share of the way they went. Adam steps as far for a tiny gradient as for a large
one, so the last bits of those near zero show here: about 1e-2 with a real base."""


@dataclass(frozen=True)
class Distance:
    """How far two trainings ended from each other.

    Args:
        gradients: between Adam's mean gradients, as a share of them.
        way: between weights, as a share of the way they went.
    """

    gradients: float
    way: float

    @property
    def told(self) -> str:
        """In words."""
        return f"mean gradients {self.gradients:.1e} apart, weights {self.way:.1e} of their way"

    @property
    def numbers(self) -> dict[str, float]:
        """For the results' file."""
        return {"gradients": self.gradients, "way": self.way}


def compare_strategies(setting: Setting, names: Sequence[str]) -> list[Result]:
    """Compare each training with that of one process."""
    alone, start = checkpoint(setting, "alone"), first_weights(setting)
    if not (weights(alone) - weights({"state_dict": start})).any():
        return [Result(name, "FAIL", "the training has not moved the hypernetwork") for name in names]
    found = []
    for name in names:
        other = checkpoint(setting, name)
        apart = distance(alone, other, start)
        told = f"{setting.ranks} ranks beside one: {apart.told} (at most {GRADIENTS[name]:g} and {WAY:g})"
        right = other["global_step"] == STEPS and apart.gradients <= GRADIENTS[name] and apart.way <= WAY
        found.append(Result(name, "PASS" if right else "FAIL", told, apart.numbers))
    return found


def compare_interrupted(setting: Setting, control: str) -> Result:
    """Compare the run that was requeued with one that was left alone."""
    one, two = checkpoint(setting, control), checkpoint(setting, "requeue")
    starts = [start["step"] for start in json.loads((setting.runs / "requeue" / "run.json").read_text())["starts"]]
    if starts != [0, SIGNAL_STEP + 1]:
        told = f"the run has started at steps {starts}, not at 0 and then at {SIGNAL_STEP + 1}, where it was saved"
        return Result("requeue", "FAIL", told)
    same = all(torch.equal(one["state_dict"][key], value) for key, value in two["state_dict"].items())
    same = same and all(torch.equal(adam(one, key), adam(two, key)) for key in ("exp_avg", "exp_avg_sq"))
    metrics = [(setting.runs / name / "metrics.csv").read_bytes() for name in (control, "requeue")]
    went = f"told in step {SIGNAL_STEP + 1}, saved, requeued as job {setting.job}, went on from there"
    if same and metrics[0] == metrics[1]:
        told = f"{went} and ended with the same bits as a run left alone"
        return Result("requeue", "PASS", told, {"gradients": 0.0, "way": 0.0})
    apart = distance(one, two, first_weights(setting))
    told = f"{went}, but ended elsewhere than a run left alone: {apart.told}"
    if setting.accelerator == "gpu" and apart.gradients <= GRADIENTS["ddp"] and apart.way <= WAY:
        told += "; no farther than GPU kernels that add up in any order may take it"
        return Result("requeue", "PASS", told, apart.numbers)
    return Result("requeue", "FAIL", told, apart.numbers)


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


def distance(one: dict[str, Any], other: dict[str, Any], start: dict[str, torch.Tensor]) -> Distance:
    """Measure two checkpoints, both of which began at the same weights."""
    gradients = adam(one, "exp_avg")
    way = weights(one) - weights({"state_dict": start})
    return Distance(
        float((adam(other, "exp_avg") - gradients).norm() / gradients.norm()),
        float((weights(other) - weights(one)).norm() / way.norm()),
    )


def weights(content: dict[str, Any]) -> torch.Tensor:
    """All parameters of a checkpoint as one vector; the running moments, which are no parameters, left out."""
    state = content["state_dict"]
    learned = [name for name in sorted(state) if ".moments." not in name]
    return torch.cat([state[name].double().flatten() for name in learned])


def adam(content: dict[str, Any], moment: str) -> torch.Tensor:
    """All of one of Adam's moments as one vector."""
    (optimizer,) = content["optimizer_states"]
    return torch.cat([optimizer["state"][n][moment].double().flatten() for n in sorted(optimizer["state"])])
