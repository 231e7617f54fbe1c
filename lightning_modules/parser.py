"""The command line of a run: what LightningCLI parses, and what it builds a Trainer of.

YAML sections: run, seed_everything, model, data, trainer, checkpoint, validation. Trainer settings
that would change what a step is, or that this program sets itself, are not offered.
"""

import logging
import os
import warnings
from argparse import ArgumentError
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from instructedit.cli import underscored
from instructedit.errors import InputError
from instructedit.runs.directory import RunConfig, RunDirectory
from lightning_modules.callbacks.checkpoints import AtomicCheckpointIO, Checkpoints
from lightning_modules.callbacks.heartbeat import Heartbeat
from lightning_modules.callbacks.progress import TrainingProgress
from lightning_modules.callbacks.stopping import StopOnSignal
from lightning_modules.callbacks.throughput import Throughput
from lightning_modules.callbacks.validation import Validation
from lightning_modules.edit_datamodule import EditDataModule
from lightning_modules.editor_module import EditorModule
from lightning_modules.loggers import MetricsCsv
from lightning_modules.processes import ProcessesConfig
from lightning_modules.strategies import check_launched, make_strategy
from lightning_modules.strategies.zero import AsTheyAre, Zero

FROM_RUN = "--from_run"

NOT_OFFERED = (
    "accumulate_grad_batches barebones check_val_every_n_epoch default_root_dir enable_checkpointing "
    "enable_model_registry enable_model_summary enable_progress_bar fast_dev_run limit_predict_batches "
    "limit_test_batches limit_train_batches limit_val_batches logger max_epochs max_time min_epochs min_steps "
    "num_sanity_val_steps overfit_batches plugins precision reload_dataloaders_every_n_epochs "
    "use_distributed_sampler val_check_interval"
)


class EditorCLI(LightningCLI):
    """Parses a run's configuration and builds model, data and Trainer, but runs nothing.

    Args:
        command: fit, validate or test, for the messages.
        argv: the arguments after it.

    Raises:
        InputError: a key or a value is refused.
    """

    def __init__(self, command: str, argv: Sequence[str]) -> None:
        _quiet()
        self.command = command
        super().__init__(
            EditorModule,
            EditDataModule,
            save_config_callback=None,
            seed_everything_default=0,
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            parser_kwargs={
                "prog": f"instructedit {command}",
                "description": "Settings of a run; --config files stack, later ones and flags win. "
                "--from_run DIR takes the configuration that lies in a run directory, in place of --config.",
                "exit_on_error": False,
            },
            args=named_run(spelled(argv)),
        )

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the one seed of a run."""
        parser.add_argument("--seed_everything", type=int, default=0, help="The seed of weights, order and choices.")

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add trainer, model and data."""
        skip = set(NOT_OFFERED.split())
        parser.add_class_arguments(
            Trainer, "trainer", fail_untyped=False, instantiate=False, sub_configs=True, skip=skip
        )
        parser.set_defaults({"trainer.log_every_n_steps": 1})
        parser.add_lightning_class_args(EditorModule, "model")
        parser.add_lightning_class_args(EditDataModule, "data")

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what is the run's own."""
        parser.add_class_arguments(RunConfig, "run")
        parser.add_class_arguments(ProcessesConfig, "processes")
        parser.add_lightning_class_args(Checkpoints, "checkpoint")
        parser.add_lightning_class_args(Validation, "validation")
        parser.add_argument("--ckpt_path", type=str | None, default=None, help="A checkpoint file, or last or best.")
        parser.link_arguments("seed_everything", "data.seed")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse without Lightning's warning about arguments given twice."""
        try:
            self.config = parser.parse_args(args)
        except ArgumentError as error:
            raise InputError(f"{error}. `{parser.prog} --help` lists the settings.") from error

    def before_instantiate_classes(self) -> None:
        """Name the run's directory; nothing is written yet."""
        self.run = RunConfig(**self.config.run.as_dict())
        self.directory = RunDirectory(self.run.path)

    def instantiate_classes(self) -> None:
        """Build everything; a refusal keeps its own words where the parser has wrapped it (an optional section)."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            if isinstance(error.__cause__, InputError):
                raise error.__cause__ from None
            raise

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the Trainer with our callbacks, checkpoint writer and CSV logger."""
        self.checkpoints: Checkpoints = self._get(self.config_init, "checkpoint")
        self.validation: Validation = self._get(self.config_init, "validation")
        self.validation.checkpoints = self.checkpoints
        self.stopping = StopOnSignal(self.checkpoints)
        self.csv = MetricsCsv(self.directory.metrics)
        settings = dict(self._get(self.config_init, "trainer"))
        progress = TrainingProgress()
        throughput = Throughput(self.directory.path, self.validation)
        self.heartbeat = Heartbeat(self.directory.path, throughput, self.checkpoints)

        def validated(n: int, total: int) -> None:
            progress.validated(n, total)
            self.heartbeat.alive("validation")

        self.validation.on_progress = validated
        own = [self.checkpoints, self.stopping, self.validation, progress, throughput, self.heartbeat]
        settings["callbacks"] = [*own, *_listed(settings.get("callbacks"))]
        if self.command != "fit":
            # Nothing is trained: one process does it, whatever the run was trained with.
            settings |= {"devices": 1, "num_nodes": 1, "strategy": "auto"}
        else:
            check_launched(settings, _launched())
        processes = ProcessesConfig(**self.config.processes.as_dict())
        timeout = timedelta(minutes=processes.timeout_minutes)
        settings["strategy"] = make_strategy(
            settings.get("strategy", "auto"), settings, timeout, processes.zero_3_persistence
        )
        plugins: list[Any] = [AtomicCheckpointIO(self.checkpoints.keep)]
        if isinstance(settings["strategy"], Zero):
            plugins.append(AsTheyAre())
        # torchrun comes first: started by srun, it launches the ranks, and its tasks are not they.
        if SLURMEnvironment.detect() and not TorchElasticEnvironment.detect():
            plugins.append(SLURMEnvironment(auto_requeue=False))  # Lightning's requeue can deadlock ranks
        settings |= {"plugins": plugins, "logger": [self.csv], "default_root_dir": str(self.directory.path)}
        settings |= {"max_epochs": -1, "use_distributed_sampler": False}
        settings |= dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
        try:
            return Trainer(**settings)
        except (MisconfigurationException, ValueError) as error:
            raise InputError(f"The trainer section cannot be used here: {error}") from error

    def resolved(self) -> str:
        """The whole configuration as YAML, defaults included."""
        text: str = self.parser.dump(self.config, skip_unset=False, skip_link_targets=False)
        content = yaml.safe_load(text)
        for key in ("ckpt_path", "config"):
            content.pop(key, None)
        return yaml.safe_dump(content, sort_keys=False)


BY_TASK = ("--data.balance.", "--data.caps.")
"""Flags that end in a task's name, whose dashes are its own."""


def spelled(argv: Sequence[str]) -> list[str]:
    """Spell flags with underscores: ``--data.held-out`` is ``--data.held_out``."""
    return [argument if argument.startswith(BY_TASK) else underscored([argument])[0] for argument in argv]


def named_run(argv: Sequence[str]) -> list[str]:
    """Replace ``--from_run DIR`` by the configuration that lies in a run directory.

    Raises:
        InputError: there is none.
    """
    given = list(argv)
    flags = [argument for argument in given if argument.partition("=")[0] == FROM_RUN]
    if not flags:
        return given
    place = given.index(flags[0])
    value = flags[0].partition("=")[2] or (given[place + 1 : place + 2] or [""])[0]
    rest = given[:place] + given[place + (2 if flags[0] == FROM_RUN else 1) :]
    path = Path(value)
    if not value or not (path / "config.yaml").is_file():
        raise InputError(
            f"No run at {value!r}: there is no config.yaml. Name a directory that `instructedit fit` made."
        )
    path = path.resolve()
    return ["--config", str(path / "config.yaml"), "--run.folder", str(path.parent), "--run.name", path.name, *rest]


def _launched() -> int | None:
    """How many processes a launcher has started; None where this program does that itself."""
    if TorchElasticEnvironment.detect():
        return int(os.environ["WORLD_SIZE"])
    return int(os.environ["SLURM_NTASKS"]) if SLURMEnvironment.detect() else None


def _listed(callbacks: Any) -> list[Any]:
    if callbacks is None:
        return []
    return list(callbacks) if isinstance(callbacks, list | tuple) else [callbacks]


def _quiet() -> None:
    """Let Lightning tell warnings only, and not those that are about choices made here on purpose."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    messages = (
        ".*does not have many workers.*",
        ".*lr_scheduler.step.*before.*",
        ".*LeafSpec.*deprecated.*",
        ".*`srun` command is available.*",  # on a login node, or under another launcher
        ".*torch.distributed.*is deprecated.*",  # DeepSpeed's names for collectives
    )
    for message in messages:
        warnings.filterwarnings("ignore", message=message)
