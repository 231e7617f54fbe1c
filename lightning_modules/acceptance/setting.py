"""Where the acceptance runs and with what: the job's shape and the user's variables. Loads no torch."""

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from instructedit.errors import InputError, unknown

VARIABLE = "INSTRUCTEDIT_ACCEPTANCE_"
PHASES = ("ranks", "strategies", "requeue")
STEPS = 8
SIGNAL_STEP = 3
"""The ranks are told to stop in the middle of the step after so many."""


@dataclass(frozen=True)
class Setting:
    """The job's shape and the user's choices.

    Args:
        folder: the state folder, on a file system that all nodes share.
        job: the job's id.
        restarts: how often the job was started again.
        nodes: how many nodes it has.
        ranks_per_node: and tasks on each.
        accelerator: ``cpu`` where the job has no GPUs, or by choice.
        asked: whether the accelerator was the user's choice.
        base: the base that is trained on.
        python: the command that starts Python on the nodes, as words.
        phases: those to run.
        minutes: how long one ``srun`` may take.
    """

    folder: Path
    job: str
    restarts: int
    nodes: int
    ranks_per_node: int
    accelerator: Literal["gpu", "cpu"]
    asked: bool
    base: str
    python: tuple[str, ...]
    phases: tuple[str, ...]
    minutes: float

    @property
    def ranks(self) -> int:
        """All tasks."""
        return self.nodes * self.ranks_per_node

    @property
    def runs(self) -> Path:
        """The folder of the trainings."""
        return self.folder / "runs"

    @classmethod
    def from_environment(cls, python: str) -> "Setting":
        """Read SLURM's variables and ours.

        Args:
            python: the Python of this process, where no other is named.

        Raises:
            InputError: this is no job, or a variable has a value that is none.
        """
        get = os.environ.get
        if "SLURM_JOB_ID" not in os.environ:
            raise InputError("The acceptance runs in a job of SLURM. Start it with: sbatch slurm/acceptance.sbatch")
        job = os.environ["SLURM_JOB_ID"]
        accelerator = get(f"{VARIABLE}ACCELERATOR", "auto")
        if accelerator not in ("auto", "gpu", "cpu"):
            raise unknown(f"{VARIABLE}ACCELERATOR", accelerator, ("auto", "gpu", "cpu"))
        gpus = any(get(name) for name in ("SLURM_GPUS_ON_NODE", "SLURM_JOB_GPUS", "SLURM_GPUS_PER_NODE"))
        phases = tuple(part.strip() for part in get(f"{VARIABLE}PHASES", ",".join(PHASES)).split(",") if part.strip())
        for phase in phases:
            if phase not in PHASES:
                raise unknown(f"phase in {VARIABLE}PHASES", phase, PHASES)
        folder = get(f"{VARIABLE}FOLDER") or f"{get('SLURM_SUBMIT_DIR', '.')}/acceptance-{job}"
        try:
            return cls(
                folder=Path(folder).resolve(),
                job=job,
                restarts=int(get("SLURM_RESTART_COUNT") or 0),
                nodes=int(get("SLURM_JOB_NUM_NODES") or 1),
                ranks_per_node=int(get("SLURM_NTASKS_PER_NODE") or 1),
                accelerator="gpu" if accelerator == "gpu" or (accelerator == "auto" and gpus) else "cpu",
                asked=accelerator != "auto",
                base=get(f"{VARIABLE}BASE") or "smollm2-135m",
                python=tuple(shlex.split(get(f"{VARIABLE}PYTHON") or shlex.quote(python))),
                phases=tuple(phase for phase in PHASES if phase in phases),
                minutes=float(get(f"{VARIABLE}MINUTES") or 15),
            )
        except ValueError as error:
            raise InputError(f"A variable of the job is no number: {error}.") from error

    def experiment(self) -> dict[str, Any]:
        """The training whose results are compared: a few steps of InstructEdit on the demo tasks."""
        tasks = ["demo-recent", "demo-counterfact"]
        return {
            "run": {"folder": str(self.runs)},
            "seed_everything": 0,
            "model": {
                "base": self.base,
                "dtype": "float32",
                "sites": {"last_blocks": 2},
                "editor": {"rank": 16},
                "lr": 1e-3,
                "warmup_steps": 2,
                "schedule": "linear",
            },
            "data": {
                "folder": str(self.folder / "data"),
                "tasks": tasks,
                "batch": self.ranks * max(1, -(-4 // self.ranks)),
                "validation_records": 2,
                "test_records": 2,
            },
            "trainer": {
                "max_steps": STEPS,
                "accelerator": self.accelerator,
                "gradient_clip_val": 100.0,
                "deterministic": "warn",
            },
            "validation": {"every_n_steps": STEPS},
            "checkpoint": {"every_n_steps": STEPS},
            # A rank whose fellow is gone is not waited for.
            "processes": {"timeout_minutes": 5.0, "zero_3_persistence": 0},
        }

    def interrupted(self, marker: Path) -> dict[str, Any]:
        """The same training, told by SLURM to stop in its midst unless the marker is there."""
        changed = dict(self.experiment())
        callback: Mapping[str, Any] = {
            "class_path": "lightning_modules.acceptance.told.AsksToBeTold",
            "init_args": {"step": SIGNAL_STEP, "marker": str(marker)},
        }
        changed["trainer"] = {**changed["trainer"], "callbacks": [callback]}
        return changed
