"""``instructedit fit``, ``validate`` and ``test``: what each does, in order.

Imports nothing heavy by itself: the signal handlers are in place before torch is imported.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from instructedit import signals

if TYPE_CHECKING:
    from lightning_modules.parser import EditorCLI


def fit(argv: Sequence[str]) -> None:
    """Meta-train an editor, or go on with its run; ends with the editor folder and the test table.

    A signal (SIGTERM, SIGUSR1, Ctrl-C) saves and stops at the end of the step, with exit status 0; the
    same command goes on.

    Args:
        argv: flags, see ``instructedit fit --help``.

    Raises:
        InputError: bad input of any kind, or a training that cannot go on.
    """
    signals.install()
    from lightning_modules.parser import EditorCLI

    cli = EditorCLI("fit", argv)
    _start(cli)
    trainer, module, data = cli.trainer, cli.model, cli.datamodule
    trainer.fit(module, datamodule=data, ckpt_path=_checkpoint(cli))
    if cli.stopping.stopped:
        _say_stopped(cli)
        return
    module.to(trainer.strategy.root_device)  # the Trainer has put it on the CPU
    cli.validation.catch_up(trainer, module)
    if trainer.is_global_zero:
        from lightning_modules.report import Stopped, finish, load_checkpoint

        try:
            finish(module, data, cli.directory, load_checkpoint(module, cli.directory))
        except Stopped:
            _say_stopped(cli)


def validate(argv: Sequence[str]) -> None:
    """Score a run's checkpoint on its validation records and print the table.

    Args:
        argv: flags, for instance ``["--run", "runs/demo", "--ckpt_path", "last"]``.
    """
    cli, step = _loaded("validate", argv)
    from instructedit.evaluation.tables import summarise, to_rich
    from lightning_modules.callbacks.validation import run_validation, summary, validation_examples
    from lightning_modules.report import evaluation_progress, table_console

    examples = validation_examples(cli.datamodule)
    with evaluation_progress("validation", sum(map(len, examples.values()))) as (bar, task):
        outcomes = run_validation(
            cli.model, cli.datamodule, examples, on_progress=lambda n, _total: bar.advance(task, n)
        )
    table_console().print(to_rich(summarise(outcomes), f"{cli.directory.path.name}, step {step}: validation"))
    print(f"val/score {summary(outcomes, cli.datamodule.tasks)['val/score']:.2f}")


def test(argv: Sequence[str]) -> None:
    """Export a run's checkpoint again and make its test table again.

    Args:
        argv: flags, for instance ``["--run", "runs/demo", "--ckpt_path", "best"]``.
    """
    cli, step = _loaded("test", argv)
    from lightning_modules.report import finish

    finish(cli.model, cli.datamodule, cli.directory, step)


def _start(cli: "EditorCLI") -> None:
    """Claim the run directory, load the base, record what the run stands on, add the W&B logger."""
    from instructedit.errors import InputError
    from lightning_modules.loggers import wandb_logger

    trainer, module, data = cli.trainer, cli.model, cli.datamodule
    if trainer.max_steps < 1:
        raise InputError(f"trainer.max_steps is {trainer.max_steps}. Set the number of optimiser steps.")
    cli.directory.claim(cli.resolved(), write=trainer.is_global_zero)
    data.load_pools(module.method)
    hashes = data.hashes()
    data.validation()  # an empty split is refused now, not at the first validation
    base = module.build(trainer.strategy.root_device)
    data.check(base)
    record = cli.directory.note(base.fingerprint, hashes, write=trainer.is_global_zero)
    if cli.run.wandb != "disabled":
        trainer.loggers = [*trainer.loggers, wandb_logger(cli.run, record["wandb_id"], cli.config.as_dict())]


def _checkpoint(cli: "EditorCLI") -> str | None:
    """What to go on from: the checkpoint asked for, else the run's newest, else nothing."""
    from instructedit.errors import InputError
    from lightning_modules.callbacks.checkpoints import BEST, find_checkpoint, read_checkpoint

    asked = cli.config.ckpt_path
    if asked not in (None, "last"):
        path = cli.directory.checkpoints / BEST if asked == "best" else Path(asked)
        read_checkpoint(path)
        return str(path)
    found = find_checkpoint(cli.directory.checkpoints)
    if found is None and asked:
        raise InputError(f"The run in {cli.directory.path} has no checkpoint. Leave --ckpt_path out to start it.")
    return str(found) if found else None


def _loaded(command: str, argv: Sequence[str]) -> "tuple[EditorCLI, int]":
    """Parse, and build model and data with a checkpoint's weights, without a Trainer running."""
    from lightning_modules.parser import EditorCLI
    from lightning_modules.report import load_checkpoint

    cli = EditorCLI(command, argv)
    device = cli.trainer.strategy.root_device
    cli.datamodule.build(cli.model.build(device), cli.model.method)
    step = load_checkpoint(cli.model, cli.directory, cli.config.ckpt_path)
    cli.model.to(device)
    return cli, step


def _say_stopped(cli: "EditorCLI") -> None:
    if cli.trainer.is_global_zero:
        step = cli.trainer.global_step
        print(f"stopped at step {step} by {signals.requested()}; run the same command again to go on", flush=True)
