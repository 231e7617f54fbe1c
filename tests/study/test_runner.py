"""Carrying a study out with commands that only pretend: the order, what is left out, and what a stop leaves behind."""

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from instructedit.evaluation.ledger import Ledger, Portion
from instructedit.records import Outcome
from instructedit.runs.progress import Progress, write_progress
from instructedit.study.calls import NotDone, in_processes, in_this_process
from instructedit.study.outlook import remaining
from instructedit.study.plan import Study, StudyRun
from instructedit.study.results import Results
from instructedit.study.runner import Runner

STUDY = Study(
    "s",
    (
        StudyRun("a", fit=("fit.yaml",), set={"seed_everything": 1}, instructions=("seen",), controls=("unseen",)),
        StudyRun("none", method="none"),
    ),
    {"base": "tiny", "tasks": ["recent"], "records": 1},
)


class Commands:
    """Does what the commands leave on disk, and keeps what was asked; ``stops`` are the calls that end early."""

    def __init__(self, stops: Sequence[int] = ()) -> None:
        self.asked: list[list[str]] = []
        self.stops = stops

    def __call__(self, words: Sequence[str]) -> None:
        self.asked.append(list(words))
        stopped = len(self.asked) in self.stops
        flags = dict(word[2:].partition("=")[::2] for word in words if "=" in word)
        if words[0] == "fit":
            run = Path(flags["run.folder"]) / flags["run.name"]
            (run / "editor").mkdir(parents=True, exist_ok=True)
            write_progress(run, Progress("stopped" if stopped else "done", 2, 4, device_seconds=60.0))
            if not stopped:
                (run / "editor" / "card.json").write_text('{"weights_sha256": "abc", "base": "x"}')
                (run / "run.json").write_text('{"commit": "c", "wandb_id": "secret"}')
                (run / "config.yaml").write_text("model: {}\n")
            return
        content = yaml.safe_load(Path(words[words.index("--config") + 1]).read_text())
        row = content["methods"][0]
        with Ledger.opened(Path(words[words.index("--out") + 1])) as ledger:
            name = f"InstructEdit ({row['instructions'][0]})" if "instructions" in row else "Base"
            if not ledger.rows:
                told = {"data": "d1", "pool": "p" if "instructions" in row else None, "base": "b", "dtype": "float32"}
                ledger.note({"starts": [{"commit": "c"}], "seconds": {name: {"recent": 5.0}}})
                ledger.note({"settings": {name: {"recent": told}}})
                ledger.append(
                    Portion(name, "recent", 0), [Outcome("r", "recent", name, "reliability", 1.0)], {"config": "x"}
                )
        if stopped:
            raise NotDone("`instructedit evaluate` was stopped.", 130, stopped=True)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fit.yaml").write_text("data: {batch: 8, tasks: [recent]}\n")


def runner(commands: Commands) -> Runner:
    return Runner(STUDY, Results(STUDY, Path("results")), Path("runs"), commands)


def made(commands: Commands, name: str) -> None:
    one = runner(commands)
    run = STUDY.run(name)
    with one.held(run) as mine:
        assert mine
        one.make(run)


def test_a_training_is_followed_by_its_evaluations_and_kept() -> None:
    commands = Commands()
    made(commands, "a")
    assert [words[0] for words in commands.asked] == ["fit", "evaluate", "evaluate"]
    assert "--seed_everything=1" in commands.asked[0] and "--run.folder=runs/s" in commands.asked[0]
    results = Results(STUDY, Path("results"))
    assert results.done == ["a"]
    assert [outcome.method for outcome in results.outcomes("a")] == ["InstructEdit (seen)", "InstructEdit (unseen)"]
    record = results.record("a")
    assert (record["training"]["edits"], record["training"]["seconds"]) == (32, 60.0)
    assert record["training"]["editor"] == {"weights_sha256": "abc"}
    assert "secret" not in json.dumps(record)
    assert len(record["evaluation"]["seconds"]) == 2
    asked = {"data": "d1", "pool": "p", "base": "b"}
    assert record["evaluation"]["asked"]["InstructEdit (unseen)"]["recent"] == asked


def test_the_threads_kept_are_those_the_training_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    for threads, kept in ((2, "2"), (None, "7")):
        results = Results(STUDY, Path(f"results-{kept}"))
        one = Runner(STUDY, results, Path(f"runs-{kept}"), Commands(), threads=threads)
        with one.held(STUDY.run("a")):
            one.make(STUDY.run("a"))
        assert results.record("a")["training"]["threads"] == kept


def test_a_method_without_training_trains_nothing() -> None:
    commands = Commands()
    made(commands, "none")
    assert [words[0] for words in commands.asked] == ["evaluate"]
    assert Results(STUDY, Path("results")).record("none")["training"] is None


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_stopped_anywhere_the_next_start_goes_on(stop: int) -> None:
    with pytest.raises(NotDone) as caught:
        made(Commands([stop]), "a")
    assert caught.value.stopped
    assert Results(STUDY, Path("results")).done == []
    commands = Commands()
    made(commands, "a")
    # A training that is done is not asked for again.
    assert [words[0] for words in commands.asked] == ["fit"] * (stop == 1) + ["evaluate", "evaluate"]
    assert Results(STUDY, Path("results")).done == ["a"]


def test_a_training_of_another_plan_is_refused_and_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = Commands([2])  # trained, but not evaluated
    with pytest.raises(NotDone):
        made(commands, "a")
    Path("fit.yaml").write_text("data: {batch: 4, tasks: [recent]}\n")
    with pytest.raises(NotDone, match="another plan") as caught:
        made(commands, "a")
    assert caught.value.status == 2 and not caught.value.stopped and len(commands.asked) == 2
    Path("fit.yaml").write_text("# the same\ndata: {batch: 8, tasks: [recent]}\n")
    made(commands, "a")
    assert Results(STUDY, Path("results")).done == ["a"]


def test_an_evaluation_without_one_of_its_rows_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Study, "rows", lambda self, run: ("Base", "GRACE"))
    with pytest.raises(NotDone, match="has no GRACE"):
        made(Commands(), "none")
    assert Results(STUDY, Path("results")).done == []


def test_a_run_is_held_by_one_process() -> None:
    first, second = runner(Commands()), runner(Commands())
    with first.held(STUDY.run("a")) as mine, second.held(STUDY.run("a")) as theirs:
        assert mine and not theirs
    with second.held(STUDY.run("a")) as theirs:
        assert theirs


def test_what_is_left_is_told_from_what_was_done() -> None:
    assert remaining(Results(STUDY, Path("results")), STUDY.runs) is None
    made(Commands(), "a")
    # One row of 5 seconds.
    assert remaining(Results(STUDY, Path("results")), [STUDY.run("none")]) == pytest.approx(5.0)
    assert remaining(Results(STUDY, Path("results")), [STUDY.run("a")]) == pytest.approx(60.0 + 2 * 5.0)


def test_a_refused_command_in_this_process_is_not_done_with_its_status() -> None:
    with pytest.raises(NotDone, match="no_such_flag") as caught:
        in_this_process(["evaluate", "--no_such_flag", "1"])
    assert (caught.value.status, caught.value.stopped) == (2, False)


@pytest.mark.slow
def test_a_process_that_ends_badly_or_is_stopped_is_told(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(NotDone) as caught:
        in_processes(1)(["evaluate", "--no_such_flag", "1"])
    assert (caught.value.status, caught.value.stopped) == (2, False)
    script = (
        "import os, signal, sys, threading\n"
        "from instructedit.study import calls\n"
        "calls.sys.executable = sys.argv[1]\n"
        "threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
        "try:\n"
        "    calls.in_processes()(['fit'])\n"
        "except calls.NotDone as error:\n"
        "    print(error.stopped)\n"
    )
    child = tmp_path / "child"
    child.write_text("#!/bin/sh\ntrap 'echo saved; exit 0' TERM\nwhile :; do sleep 0.1; done\n")
    child.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", script, str(child)], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["saved", "True"], done.stderr
    assert signal.getsignal(signal.SIGTERM) == before
