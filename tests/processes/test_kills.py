"""Interrupted again and again, at any moment, a run ends with the very bits of one that was left alone.

INSTRUCTEDIT_KILLS sets how many interruptions each strategy gets, INSTRUCTEDIT_KILL_SEED which ones.
"""

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from lightning_modules.callbacks.checkpoints import read_checkpoint
from tests.lightning_modules.test_resume import assert_same_run
from tests.processes.conftest import Place
from tests.processes.jobs import Job

STEPS = 24
RUN = {"trainer__max_steps": STEPS, "checkpoint__every_n_steps": 3, "validation__every_n_steps": 8}
KINDS = (
    "kill one",
    "kill all",
    "usr1",
    "term",
    "int",
    "kill in save",
    "kill in validation",
    "usr1 in validation",
    "at once",
    "early",
)
STOPS = {"term": signal.SIGTERM, "int": signal.SIGINT}
ENDING_SECONDS = 30.0
"""How soon the other ranks must have ended after one was killed."""


def newest(path: Path) -> int | None:
    """The step of the newest checkpoint file of a run; each of its files must be whole."""
    contents = [read_checkpoint(file, verify=True) for file in (path / "checkpoints").glob("*.ckpt")]
    return max((content["global_step"] for content in contents), default=None)


def interrupt(job: Job, marks: Path, kind: str, begun: int, chance: random.Random) -> None:
    """Wait for the moment and send the signal."""
    job.until(lambda: "going on at step" in job.output() or "starting" in job.output())
    if kind == "kill in save":
        job.until((marks / "saving").exists)
        time.sleep(chance.uniform(0, 0.15))
    elif "in validation" in kind:
        job.until((marks / "validating").exists)
        time.sleep(chance.uniform(0, 0.4))
    elif kind == "early":
        time.sleep(chance.uniform(0, 0.8))  # setting up, loading the checkpoint, the first step
    elif kind != "at once":
        step = begun + chance.randint(1, 5)
        job.until((marks / f"step-{step}").exists)
        time.sleep(chance.uniform(0, 0.1))
    rank = chance.randrange(len(job.processes))
    if kind.startswith("usr1"):
        job.kill(signal.SIGUSR1, chance.choice([None, rank]))
    elif kind in STOPS:
        job.kill(STOPS[kind], chance.choice([None, rank]))
    else:
        job.kill(signal.SIGKILL, rank if kind == "kill one" or chance.random() < 0.5 else None)


def survive(place: Place, strategy: str, ranks: int, kills: int, seed: int) -> Counter[str]:
    """Interrupt runs of a strategy so many times, and compare each with one left alone."""
    chance = random.Random(f"{seed} {strategy} {ranks}")
    place.start("alone", strategy, ranks, **RUN).succeeds()
    done: Counter[str] = Counter()
    number = 0
    deck: list[str] = []
    while done.total() < kills:
        number += 1
        name, path = f"killed-{number}", place.path(f"killed-{number}")
        marks = path.parent / f"{name}-marks"
        marks.mkdir(parents=True)
        finished = False
        while not finished:
            before = newest(path)
            for mark in marks.iterdir():
                mark.unlink()
            interrupting = done.total() < kills
            told = {"patch": "slow_everything", "folder": marks} if interrupting else {}
            job = place.start(name, strategy, ranks, **RUN, **told)
            # Each kind once before any comes again.
            deck = deck or chance.sample(KINDS, len(KINDS))
            kind = deck.pop() if interrupting else ""
            if interrupting:
                interrupt(job, marks, kind, before or 0, chance)
            at = time.monotonic()
            if interrupting and kind in ("at once", "early") and 137 in job.settled():
                # A rank that is gone before the ranks have met is its launcher's business: srun --kill-on-bad-exit,
                # torchrun and the program's own launcher end the others.
                job.kill(signal.SIGKILL)
            codes = job.wait(ENDING_SECONDS if interrupting else 150)
            took = time.monotonic() - at
            said = job.output()
            wanted = "starting " if before is None else f"going on at step {before} from"
            assert wanted in said, f"{kind}: expected {wanted!r}\n{said}"
            assert before is None or "starting " not in said
            finished = "training metrics" in said and set(codes) == {0}
            if interrupting and not finished:
                done[kind] += 1
                print(f"{strategy} x{ranks}: {kind} after step {before}, statuses {codes}, ended in {took:.1f} s")
                if kind.startswith(("usr1", *STOPS)):
                    assert set(codes) == {0} and "run the same command again to go on" in said, said
                else:
                    assert 137 in codes and 0 not in codes, (codes, said)
            assert not any(alive(pid) for pid in job.pids)
            assert (newest(path) or 0) >= (before or 0), f"{kind} has lost step {before}"
        assert_same_run(place.path("alone"), path)
        assert not list(path.rglob("*.partial"))
    return done


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("strategy", "ranks", "kills"),
    [
        pytest.param("auto", 1, 3, marks=pytest.mark.long, id="one"),
        pytest.param("ddp", 2, 3, marks=pytest.mark.slow, id="ddp"),
        pytest.param("zero_2", 2, 8, marks=pytest.mark.deepspeed, id="zero_2"),
        pytest.param("ddp", 4, 4, marks=pytest.mark.long, id="ddp-4"),
        pytest.param("fsdp2", 2, 4, marks=pytest.mark.long, id="fsdp2"),
    ],
)
def test_interrupted_runs_end_with_the_same_bits(strategy: str, ranks: int, kills: int, place: Place) -> None:
    seed = int(os.environ.get("INSTRUCTEDIT_KILL_SEED", "0"))
    kills = int(os.environ.get("INSTRUCTEDIT_KILLS", kills))
    started = time.monotonic()
    done = survive(place, strategy, ranks, kills, seed)
    print(f"seed {seed}: {strategy} on {ranks} survived {done.total()} interruptions {dict(done)}")
    print(f"in {time.monotonic() - started:.0f} s")
    assert done.total() == kills


@pytest.mark.long
@pytest.mark.parametrize(("strategy", "ranks"), [("auto", 1), ("ddp", 2)])
def test_a_kill_at_each_moment_of_a_save(strategy: str, ranks: int, place: Place) -> None:
    steps = {"trainer__max_steps": 8, "validation__every_n_steps": 8, "checkpoint__every_n_steps": 3}
    place.start("alone", strategy, ranks, **steps).succeeds()
    # The newest whole file after the kill, and its step; a part of another lies beside it.
    left = {
        "writing": ("last.ckpt", 3),
        "before the renames": ("last.ckpt", 3),
        "between the renames": ("step-00000003.ckpt", 3),
        "before the best": ("last.ckpt", 8),
    }
    for moment, (name, step) in left.items():
        run = moment.replace(" ", "-")
        path = place.path(run)
        job = place.start(run, strategy, ranks, patch="die_in_save", moment=moment, **steps)
        assert job.wait(ENDING_SECONDS + 30)[0] == 137, moment
        assert newest(path) == step and (path / "checkpoints" / name).exists(), moment
        assert list(path.rglob("*.partial")), moment
        said = place.start(run, strategy, ranks, **steps).succeeds().output()
        assert f"going on at step {step} from {path / 'checkpoints' / name}" in said, (moment, said)
        assert_same_run(place.path("alone"), path)
        assert not list(path.rglob("*.partial")), moment
