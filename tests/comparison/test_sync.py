"""Offline runs uploaded with wandb's own `wandb sync`, to a stand-in of the server on this machine."""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from instructedit.comparison.sync import offline_files, sync_runs
from instructedit.errors import InputError
from instructedit.runs.directory import RunDirectory
from instructedit.runs.progress import Progress, write_progress
from tests.comparison.test_wandb_files import begun, framed, history, start
from tests.lightning_modules.wandb_server import WandbServer

pytest.importorskip("wandb", reason="the extra `wandb` is not installed")

ROOT = Path(__file__).parents[2]
ID = "cafe0001"

TRAIN = f"""
import sys, wandb
quiet = wandb.Settings(console="off", silent=True)
run = wandb.init(mode="offline", dir=sys.argv[1], id="{ID}", entity="me", project="p", settings=quiet)
for step in range(int(sys.argv[2]), int(sys.argv[3])):
    run.log({{"train/loss": 1 / step}}, step=step)
run.finish()
"""


@pytest.fixture
def server() -> Iterator[WandbServer]:
    server = WandbServer()
    yield server
    server.close()


def run_at(path: Path) -> Path:
    path.mkdir()
    (path / "run.json").write_text(json.dumps({"wandb_id": ID}))
    return path


def train(run: Path, first: int, end: int) -> None:
    subprocess.run([sys.executable, "-c", TRAIN, str(run), str(first), str(end)], check=True)
    time.sleep(1.1)  # wandb names folders by the second


def sync(run: Path, url: str, key: str = "k" * 40) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"WANDB_BASE_URL": url, "WANDB_API_KEY": key, "NETRC": str(run / "netrc")}
    command = [sys.executable, "-m", "instructedit", "compare", "--sync", str(run)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_starts_are_sent_in_order_into_one_run_and_none_twice(tmp_path: Path, server: WandbServer) -> None:
    run = run_at(tmp_path / "run")
    train(run, 1, 4)
    train(run, 4, 7)
    done = sync(run, server.url)
    assert (done.returncode, done.stdout.strip()) == (0, f"{run}: 2 of 2 starts sent"), done.stderr
    assert [row["_step"] for row in server.history(ID)] == [1, 2, 3, 4, 5, 6] and list(server.runs) == [ID]
    asked = len(server.operations)
    assert "all 2 starts were sent before" in sync(run, server.url).stdout and len(server.operations) == asked
    train(run, 7, 9)
    done = sync(run, server.url)
    assert "1 of 1 starts sent, 2 before" in done.stdout
    assert [row["_step"] for row in server.history(ID)] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert "k" * 40 not in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("tried", [False, True])
def test_the_torn_end_of_a_killed_start_is_cut_off_and_no_step_is_sent_twice(
    tmp_path: Path, server: WandbServer, tried: bool
) -> None:
    run = run_at(tmp_path / "run")
    train(run, 1, 4)
    train(run, 4, 7)
    file = offline_files(run)[-1]
    file.write_bytes(file.read_bytes()[:-7])  # as a machine that went down leaves it: the last record, its end
    if tried:  # by hand; it stops at the torn end, and does not count the file as sent
        environment = os.environ | {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "k" * 40}
        command = [sys.executable, "-m", "wandb", "sync", *(str(file.parent) for file in offline_files(run))]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert "incomplete record" in done.stderr and not file.with_name(file.name + ".synced").exists()
    for said in ("all 2 starts were sent before" if tried else "2 of 2 starts sent", "all 2 starts were sent before"):
        done = sync(run, server.url)
        assert (done.returncode, done.stdout.strip()) == (0, f"{run}: {said}"), done.stderr
        assert [row["_step"] for row in server.history(ID)] == [1, 2, 3, 4, 5, 6]


def begun_run(path: Path) -> Path:
    """A run with an offline file that is whole; nothing in it matters here."""
    run = run_at(path)
    start(run / "wandb", "000001", framed([begun(), history(1)]))
    return run


@pytest.fixture
def sends(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What `wandb sync` is called with, instead of calling it; there is a key and a way to the server."""
    calls: list[list[str]] = []
    monkeypatch.setattr("instructedit.comparison.sync.require_access", lambda: None)
    monkeypatch.setattr("instructedit.comparison.sync.subprocess.run", lambda command, **_: calls.append(command))
    monkeypatch.setattr("instructedit.comparison.sync.QUIET_SECONDS", 0.01)
    return calls


def test_an_upload_that_was_broken_off_is_not_done_again(tmp_path: Path, sends: list[list[str]]) -> None:
    run = begun_run(tmp_path / "run")
    with pytest.raises(InputError, match=r"Not all was sent .*Run the same again\.$"):
        sync_runs([run])
    assert len(sends) == 1
    (file,) = offline_files(run)
    file.with_name(file.name + ".syncstate").touch()
    with pytest.raises(InputError, match=r"broken off.*repeat the steps.*--run.wandb online"):
        sync_runs([run])
    assert len(sends) == 1


def test_a_run_that_somebody_trains_is_left_alone(tmp_path: Path, sends: list[list[str]]) -> None:
    run = begun_run(tmp_path / "run")
    (file,) = offline_files(run)
    file.write_bytes(file.read_bytes() + b"half a record")
    torn = file.read_bytes()
    holder = RunDirectory(run)
    holder.lock()
    with pytest.raises(InputError, match="Another process is training"):
        sync_runs([run])
    assert file.read_bytes() == torn and not sends
    holder.unlock()
    with pytest.raises(InputError, match="Not all was sent"):
        sync_runs([run])
    assert file.read_bytes() == torn.removesuffix(b"half a record") and len(sends) == 1


def test_a_start_without_anything_in_it_is_taken_away(
    tmp_path: Path, sends: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_at(tmp_path / "run")
    start(run / "wandb", "000001", b"")
    sync_runs([run])
    assert "nothing was kept offline" in capsys.readouterr().out and not sends and not offline_files(run)


def test_a_killed_process_of_this_machine_trains_no_more(tmp_path: Path, sends: list[list[str]]) -> None:
    run = begun_run(tmp_path / "run")
    write_progress(run, Progress("running", 1, 10, host=platform.node(), pid=2**22 + 1))
    with pytest.raises(InputError, match="Not all was sent"):
        sync_runs([run])
    assert len(sends) == 1


@pytest.mark.slow
def test_what_could_not_be_sent_is_told(tmp_path: Path, server: WandbServer) -> None:
    run = run_at(tmp_path / "run")
    folder = run / "wandb" / f"offline-run-20260101_000000-{ID}"
    folder.mkdir(parents=True)
    (folder / f"run-{ID}.wandb").write_bytes(b"no such file")
    assert "cannot be reached" in sync(run, "http://127.0.0.1:1").stderr
    done = sync(run, server.url)
    assert done.returncode == 2 and f"Not all was sent of {run}" in done.stderr.splitlines()[-1]


def test_a_start_that_still_trains_waits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_at(tmp_path / "run")
    with pytest.raises(InputError, match="Nothing was kept offline"):
        sync_runs([run])
    folder = run / "wandb" / f"offline-run-20260101_000000-{ID}"
    folder.mkdir(parents=True)
    (folder / f"run-{ID}.wandb").touch()
    write_progress(run, Progress("running", 1, 10))
    sync_runs([run])
    assert "still trains" in capsys.readouterr().out


def test_a_run_with_online_starts_too_is_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_at(tmp_path / "run")
    for kind in ("offline-run-20260101_000000", "run-20260101_000001"):
        folder = run / "wandb" / f"{kind}-{ID}"
        folder.mkdir(parents=True)
        (folder / f"run-{ID}.wandb").touch()
    sent: list[object] = []
    monkeypatch.setattr("instructedit.comparison.sync._sent_now", sent.append)
    with pytest.raises(InputError, match=r"online.*--run.wandb online"):
        sync_runs([run])
    assert not sent


def test_without_a_key_nothing_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_at(tmp_path / "run")
    folder = run / "wandb" / f"offline-run-20260101_000000-{ID}"
    folder.mkdir(parents=True)
    (folder / f"run-{ID}.wandb").touch()
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(InputError, match="No key for Weights & Biases"):
        sync_runs([run])
