"""``instructedit fit``, ``validate`` and ``test``: what each does, in order.

Imports nothing heavy by itself: the signal handlers are in place before torch is imported.
"""

import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from instructedit import signals
from instructedit.runs.progress import read_progress, write_progress
from instructedit.scheduling.requeue import STATUS, current_job, requeue, used_up
from instructedit.terminal import quoted

if TYPE_CHECKING:
    from instructedit.tasks.prepared import PreparedSplit
    from lightning_modules.parser import EditorCLI
    from lightning_modules.wandb_logger import WandbRun

log = logging.getLogger(__name__)


def fit(argv: Sequence[str]) -> None:
    """Meta-train an editor, or go on with its run; ends with the editor folder and the test table.

    A signal (SIGTERM, SIGUSR1, Ctrl-C) saves and stops at the end of the step, with exit status 0; the
    same command goes on. In a job of `submit` the job goes on by itself, as often as it may; then the status is 3.

    Args:
        argv: flags, see ``instructedit fit --help``.

    Raises:
        InputError: bad input of any kind, or a training that cannot go on.
    """
    signals.install()
    # Read once, when torch is imported: DDP would warn in every run that it looks for unused parameters, which it does
    # for another reason (see strategies).
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from lightning_modules.processes import end_together

    with end_together():
        _fit(argv)


def _fit(argv: Sequence[str]) -> None:
    from lightning_modules.callbacks.checkpoints import check_same
    from lightning_modules.callbacks.stopping import Stopped
    from lightning_modules.parser import EditorCLI
    from lightning_modules.report import finish, load_checkpoint
    from lightning_modules.wandb_logger import WandbRun

    cli = EditorCLI("fit", argv)
    _check_restarts(cli)
    trainer, module, data = cli.trainer, cli.model, cli.datamodule
    tracked = WandbRun(cli.run, cli.directory)
    checkpoint = _start(cli, tracked)
    cli.heartbeat.begin(cli.checkpoints.begun, trainer)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
        if cli.stopping.stopped:
            raise Stopped
        trainer.optimizers = []  # their memory serves the test
        module.to(trainer.strategy.root_device)  # the Trainer has put it on the CPU
        cli.validation.make_up(trainer, module)
        trainer.strategy.barrier("best")  # rank zero may still be writing what all are going to read
        step = load_checkpoint(module, cli.directory)
        check_same(trainer, step, "test")
        alive = partial(cli.heartbeat.alive, "test")
        report = finish(module, data, cli.directory, step, trainer.global_rank, trainer.world_size, alive)
        cli.heartbeat.tell("done")
        best = {"val/best_score": cli.validation.best_score, "val/best_step": cli.validation.best_step}
        tracked.finished(report, {**best, "skipped_steps": module.skipped_steps, "tested_step": step})
    except Stopped:
        tracked.stopping()
        if trainer.is_global_zero:
            _stopped(cli)
    except KeyboardInterrupt:
        cli.heartbeat.tell("stopped", "interrupted")
        raise
    except BaseException as error:
        cli.heartbeat.tell("failed", " ".join(f"{type(error).__name__}: {error}".split()))
        raise
    finally:
        module.placed.flush()
        tracked.close(cli.heartbeat.throughput.latest.device_seconds)
        cli.directory.unlock()


def _check_restarts(cli: "EditorCLI") -> None:
    """End a job that was started again more often than it may be: the scheduler does that by itself too.

    Raises:
        SystemExit: it was; on all ranks.
    """
    job = current_job()
    reason = used_up(job) if job else ""
    if job and reason:
        if cli.trainer.is_global_zero:
            known = read_progress(cli.directory.path)
            if known is not None:
                mine = replace(known, job=job.id, restarts=job.restarts)
                write_progress(cli.directory.path, replace(mine, state="stopped", reason=reason))
            print(f"stopped: {reason}; {_by_hand(cli)}", flush=True)
        sys.exit(STATUS)


def _stopped(cli: "EditorCLI") -> None:
    """Tell what becomes of a run that was told to stop and has been saved; let its job start again.

    Raises:
        SystemExit: it stays as it is although nobody at a keyboard has asked for that.
    """
    at = f"stopped at step {cli.trainer.global_step} by {signals.requested() or 'a signal to another rank'}"
    job = current_job()
    if job is None:
        cli.heartbeat.tell("stopped", at)
        print(f"{at}; run the same command again to go on", flush=True)
        return
    cli.heartbeat.tell("requeued", at)  # before it is: the next start may come at once
    ending = requeue(job)
    if ending.requeued:
        print(f"{at}; {ending.told}", flush=True)
        return
    cli.heartbeat.tell("stopped", f"{at}; {ending.reason}")
    print(f"{at}; {ending.told}; {_by_hand(cli)}", flush=True)
    sys.exit(STATUS)


def _by_hand(cli: "EditorCLI") -> str:
    return f"`instructedit submit --resume {quoted(cli.directory.path)}` goes on with it"


def validate(argv: Sequence[str]) -> None:
    """Score a run's checkpoint on its validation records and print the table.

    Args:
        argv: flags, for instance ``["--from_run", "runs/demo", "--ckpt_path", "last"]``.
    """
    cli, step = _loaded("validate", argv, ("validation",))
    from instructedit.evaluation.formats import to_rich
    from instructedit.evaluation.layout import make_table
    from instructedit.evaluation.progress import EditProgress
    from lightning_modules.callbacks.validation import run_validation, summary, validation_examples
    from lightning_modules.report import table_console

    examples = validation_examples(cli.datamodule)
    with EditProgress(sum(map(len, examples.values())), unit="records") as progress:

        def advance(n: int, _total: int) -> None:
            progress.advance("validation", cli.model.method, n)

        outcomes = run_validation(cli.model, cli.datamodule, examples, on_progress=advance)
    table_console().print(to_rich(make_table(outcomes, f"{cli.directory.path.name}, step {step}: validation")))
    print(f"val/score {summary(outcomes, cli.datamodule.tasks)['val/score']:.2f}")


def test(argv: Sequence[str]) -> None:
    """Export a run's checkpoint again and make its test table again.

    Args:
        argv: flags, for instance ``["--from_run", "runs/demo", "--ckpt_path", "best"]``.
    """
    cli, step = _loaded("test", argv, ("test",), where_there=("validation",))
    from lightning_modules.report import finish

    finish(cli.model, cli.datamodule, cli.directory, step)


def _start(cli: "EditorCLI", tracked: "WandbRun") -> str | None:
    """Check everything, then write down what the run stands on; return the checkpoint to go on from.

    Nothing is written before every check has passed: a refused command leaves a run as it was.
    """
    from instructedit.errors import InputError, MismatchError
    from instructedit.runs.directory import changed_keys, science
    from lightning_modules.callbacks.checkpoints import read_checkpoint
    from lightning_modules.record_check import prepared_apart
    from lightning_modules.saved_state import OURS
    from lightning_modules.wandb_config import shown_config

    trainer, module, data = cli.trainer, cli.model, cli.datamodule
    for name in ("max_steps", "log_every_n_steps"):
        if getattr(trainer, name) < 1:
            raise InputError(f"trainer.{name} is {getattr(trainer, name)}. Set it to 1 or more.")
    module.check_steps(trainer.max_steps)
    module.placed.check_strategy(trainer.strategy, module.method)
    module.check_portions(trainer.strategy, data.micro_tokens)
    cli.directory.check(cli.resolved())
    module.science = science(cli.resolved())
    data.load_pools(module.method)
    hashes = data.hashes()
    base = module.build(trainer.strategy.root_device)
    cli.directory.check_facts(base.fingerprint, hashes)
    data.build(base, module.method)
    data.sampler.local_batch(0, trainer.global_rank, trainer.world_size)  # refuses a batch the ranks cannot share
    data.check(base)
    checkpoint, step = _checkpoint(cli), 0
    if checkpoint:
        content = read_checkpoint(Path(checkpoint))
        module.check_checkpoint(content)
        data.check_state(content["EditDataModule"])
        told = changed_keys(content[OURS].get("science", module.science), module.science)
        if told:
            raise MismatchError(f"The checkpoint {checkpoint} was made with other settings: {told}. Restore them.")
        step = content["global_step"]
    apart = prepared_apart(data.folder, [*data.tasks, *data.held_out])
    if apart and trainer.is_global_zero:
        log.warning(
            "%s: not prepared together with the other tasks of this run, so a text one trains on may be a test probe "
            "of another. Prepare all of them in one command.",
            ", ".join(apart),
        )
    cli.checkpoints.begun = step
    if trainer.is_global_zero:
        cli.directory.lock()
    record = cli.directory.begin(cli.resolved(), base.fingerprint, hashes, step, write=trainer.is_global_zero)
    if trainer.is_global_zero:
        started = f"going on at step {step} from {checkpoint}" if checkpoint else f"starting {cli.directory.path}"
        print(started, flush=True)
        if tracked.enabled:
            tracked.begin(shown_config(cli.resolved(), record, trainer.world_size), record["wandb_id"], step)
            trainer.loggers = [*trainer.loggers, tracked]
    return checkpoint


def _checkpoint(cli: "EditorCLI") -> str | None:
    """What to go on from: the checkpoint asked for, else the run's newest, else nothing."""
    from instructedit.errors import InputError
    from lightning_modules.callbacks.checkpoints import BEST, find_checkpoint, read_checkpoint

    asked, own = cli.config.ckpt_path, cli.directory.checkpoints
    if asked not in (None, "last"):
        path = own / BEST if asked == "best" else Path(asked)
        if path.resolve().parent == own.resolve() or not cli.directory.started:
            read_checkpoint(path, verify=True)
            return str(path)
        # The run began from it once: a job that is started again with the same command goes on.
        log.warning("--ckpt_path %s is where this run began; it goes on from its own newest checkpoint.", asked)
    found = find_checkpoint(cli.directory.checkpoints)
    if found is None and asked:
        raise InputError(f"The run in {cli.directory.path} has no checkpoint. Leave --ckpt_path out to start it.")
    return str(found) if found else None


def _loaded(
    command: str,
    argv: Sequence[str],
    splits: "Sequence[PreparedSplit]",
    where_there: "Sequence[PreparedSplit]" = (),
) -> "tuple[EditorCLI, int]":
    """Parse, check that the run is still what it was, and load a checkpoint's weights; trains and writes nothing.

    ``where_there`` are splits that are checked as well, and may be missing.
    """
    from instructedit.errors import InputError
    from lightning_modules.parser import EditorCLI
    from lightning_modules.report import load_checkpoint

    cli = EditorCLI(command, argv)
    device = cli.trainer.strategy.root_device
    cli.directory.check(cli.resolved())
    cli.model.placed.in_one_process()
    cli.datamodule.load_pools(cli.model.method)
    hashes = cli.datamodule.hashes(splits)
    for split in where_there:
        with suppress(InputError):
            hashes |= cli.datamodule.hashes((split,))
    cli.directory.check_facts(cli.model.build(device).fingerprint, hashes)
    step = load_checkpoint(cli.model, cli.directory, cli.config.ckpt_path)
    cli.model.to(device)
    return cli, step
