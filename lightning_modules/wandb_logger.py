"""A run in Weights & Biases: one, with one id, through all starts of a run directory.

W&B's step is the optimiser step. A row goes there whole, when the next step begins, because W&B takes nothing for a
step that is past. What a killed start did not get there is taken from metrics.csv; what a resumed run does again, to
the same bits, is not sent twice: of such a step W&B keeps the times of the first try. Whatever goes wrong over there is
told in one line and ends no training.
"""

import importlib.util
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any, Literal

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from instructedit import signals
from instructedit.comparison.wandb_access import plain, without_password
from instructedit.comparison.wandb_files import FOLDER, UnknownFormat, mend
from instructedit.errors import InputError
from instructedit.runs.directory import RunConfig, RunDirectory
from instructedit.terminal import quoted
from lightning_modules.callbacks.throughput import FILE as THROUGHPUT
from lightning_modules.callbacks.throughput import PREFIX
from lightning_modules.loggers import MetricsCsv
from lightning_modules.report import Report
from lightning_modules.wandb_results import editor_artifact, means, results_table

log = logging.getLogger(__name__)

INIT_SECONDS = 60
FINISH_SECONDS = 60
EDITOR_SECONDS = 900
"""How long the end of a run waits for its upload; the second where the editor is a part of it."""

FLUSH_SECONDS = 1
"""Between two writes of the offline file: so much is lost with a kill."""


class WandbRun(Logger):
    """Does nothing until ``begin``, and nothing at all where ``run.wandb`` is disabled and on other ranks than zero.

    Args:
        settings: the section ``run`` of the configuration.
        directory: the run's.

    Raises:
        InputError: it is not disabled, and the package is not installed.
    """

    def __init__(self, settings: RunConfig, directory: RunDirectory) -> None:
        super().__init__()
        self.settings, self.directory = settings, directory
        self.folder = directory.path / FOLDER
        self._run: Any = None
        self._sent = 0
        """The last step that W&B has."""
        self._step: int | None = None
        self._row: dict[str, float] = {}
        self._exit_code = 1
        if self.enabled and importlib.util.find_spec("wandb") is None:
            raise InputError("run.wandb needs the package wandb. Run `pip install 'instructedit[wandb]'`.")

    @property
    def enabled(self) -> bool:
        """Whether the run is to be in W&B at all."""
        return self.settings.wandb != "disabled"

    @property
    def name(self) -> str:
        """Loggers have a name."""
        return "wandb"

    @property
    def version(self) -> str:
        """The run directory is the version."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, *_args: Any, **_kwargs: Any) -> None:
        """``begin`` has sent the configuration."""

    # --- beginning ---------------------------------------------------------------------------------------------------
    def begin(self, config: Mapping[str, Any], run_id: str, step: int) -> None:
        """Start the run there, or go on with it; on rank zero, with the run directory locked.

        Args:
            config: what it shows as the run's configuration, nested.
            run_id: its id.
            step: the optimiser step this start goes on from.
        """
        if not self.enabled:
            return
        # Offline is to mean offline: wandb would report its own errors over the network.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        os.environ.setdefault("WANDB_SILENT", "true")  # what there is to say is said here
        # A process of wandb's that another program has started goes with that one, and keeps a killed run as in use.
        os.environ.pop("WANDB_SERVICE", None)
        # What is to be uploaded lies with the run: the machine that does it may not see this one's home folder.
        os.environ.setdefault("WANDB_DATA_DIR", str(self.folder.resolve()))
        try:
            earlier = mend(self.folder, run_id)
        except (UnknownFormat, OSError) as error:
            log.warning("Weights & Biases: cannot read %s; steps up to %d count as sent.", error, step)
            earlier = step
        if self.settings.wandb == "online":
            self._run = self._online(config, run_id)
        if self._run is not None:
            self._sent = self._run.starting_step - 1 if self._run.resumed else 0
            print(f"Weights & Biases: {without_password(self._run.url)}", flush=True)
            return
        self._run = self._safely(lambda: self._start("offline", config, run_id))
        self._sent = earlier
        if self._run is not None:
            sync = f"instructedit compare --sync {quoted(self.directory.path)}"
            print(f"Weights & Biases: offline; `{sync}` uploads the run when it has ended", flush=True)

    def _online(self, config: Mapping[str, Any], run_id: str) -> Any:
        """Start it online; None where there is no key or no way there."""
        import wandb

        try:
            if wandb.login(prompt=False, verify=False):
                return self._start("online", config, run_id)
            log.warning("Weights & Biases: no key here (`wandb login`, or WANDB_API_KEY); the run is kept offline.")
        except Exception as error:  # noqa: BLE001 - whatever it is, the training does not depend on it
            _release()
            log.warning("Weights & Biases cannot be reached (%s); the run is kept offline.", _line(error))
        return None

    def _start(self, mode: Literal["online", "offline"], config: Mapping[str, Any], run_id: str) -> Any:
        import wandb

        chosen = {
            # What the program prints and the code it runs stay here; the address of a git remote may hold a password.
            "console": "off",
            "disable_git": True,
            "disable_code": True,
            "symlink": False,
            "silent": True,
            "init_timeout": INIT_SECONDS,
            "finish_timeout": EDITOR_SECONDS if self.settings.wandb_editor else FINISH_SECONDS,
            "x_transaction_log_flush_interval": FLUSH_SECONDS,
        }
        known = {name: value for name, value in chosen.items() if name in wandb.Settings.model_fields}
        self.folder.mkdir(parents=True, exist_ok=True)
        run = wandb.init(
            mode=mode,
            dir=str(self.directory.path),
            id=run_id,
            resume="allow",  # offline it is for `wandb sync`, which would begin at the first row again
            entity=self.settings.wandb_entity,
            project=self.settings.wandb_project,
            group=self.settings.wandb_group,
            job_type="fit",
            tags=self.settings.wandb_tags,
            name=self.settings.name,
            config=dict(config),
            settings=wandb.Settings(**known),
        )
        run.define_metric("step", hidden=True)
        for names in ("train/*", "val/*", f"{PREFIX}*"):
            run.define_metric(names, step_metric="step")
        return run

    # --- rows --------------------------------------------------------------------------------------------------------
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add values to a step's row; the row of the step before is complete by now and goes off."""
        if self._run is None or step is None or step <= self._sent:
            return
        if self._step is None:  # the first values of this start
            earlier = self._written()
            for past in sorted(number for number in earlier if self._sent < number < step):
                self._send(past, earlier[past])
            self._row = earlier.get(step, {})
        elif step != self._step:
            self._send(self._step, self._row)
            self._row = {}
        self._step = step
        self._row.update(metrics)

    def _send(self, step: int, row: Mapping[str, float]) -> None:
        if self._run is not None:
            self._safely(lambda: self._run.log({**row, "step": step}, step=step, commit=True))
            self._sent = step

    def _send_rest(self) -> None:
        """Send the last row, which no step comes after; of a run that had no step left, what is missing over there."""
        rows = {self._step: self._row} if self._step is not None else self._written()
        for step in sorted(step for step in rows if step > self._sent):
            self._send(step, rows[step])

    def _written(self) -> dict[int, dict[str, float]]:
        """The rows that lie in the run directory, by step; this start has taken back what it does again."""
        found: dict[int, dict[str, float]] = {}
        for path, prefix in ((self.directory.metrics, ""), (self.directory.path / THROUGHPUT, PREFIX)):
            for step, row in MetricsCsv(path).values().items():
                found.setdefault(step, {}).update({prefix + name: value for name, value in row.items()})
        return found

    # --- the end -----------------------------------------------------------------------------------------------------
    def finished(self, report: Report | None, facts: Mapping[str, float]) -> None:
        """Send what a finished run has come to.

        Args:
            report: the test; rank zero's.
            facts: what else is to stand in the summary.
        """
        if self._run is not None and report is not None:
            self._exit_code = 0
            self._send_rest()
            self._safely(lambda: self._send_report(report, facts))

    def _send_report(self, report: Report, facts: Mapping[str, float]) -> None:
        self._run.summary.update({**facts, **means(report.outcomes)})
        if self.settings.wandb_results:
            self._run.summary.update({"results/test": results_table(report.outcomes)})
        if self.settings.wandb_editor:
            self._run.log_artifact(editor_artifact(self.settings.name, report))

    def stopping(self) -> None:
        """Tell that the run has been stopped by a signal and may go on."""
        if self._run is not None:
            self._safely(lambda: self._run.mark_preempting())

    def close(self, device_seconds: float) -> None:
        """End this start; the next one goes on with the same run.

        Args:
            device_seconds: of the whole run, see ``ThroughputValues``.
        """
        if self._run is None:
            return
        self._safely(lambda: self._end(device_seconds))
        if self._run is not None:
            self._run = None
            _release()

    def _end(self, device_seconds: float) -> None:
        self._run.summary.update({"gpu_hours": device_seconds / 3600})
        self._run.finish(exit_code=self._exit_code)

    def _safely(self, act: Callable[[], Any]) -> Any:
        """Do something over there; where it fails, go on without it."""
        try:
            return act()
        except Exception as error:  # noqa: BLE001 - as above
            self._run = None
            _release()
            # The scheduler's signal goes to wandb's own process too, which ends at once.
            told = log.debug if signals.requested() else log.warning
            told("Weights & Biases has failed (%s); the training goes on without it.", _line(error))
            return None


def _release() -> None:
    """End wandb's own process, which would otherwise be waited for, and complain, when this one ends."""
    import wandb

    try:
        wandb.teardown()
    except Exception as error:  # noqa: BLE001 - as above
        log.debug("Weights & Biases: %s", error)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {plain(error)}"[:200]
