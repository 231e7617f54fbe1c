"""Offline runs uploaded with wandb's own `wandb sync`, to a stand-in of the server on this machine."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from instructedit.comparison.sync import sync_runs
from instructedit.errors import InputError
from instructedit.runs.progress import Progress, write_progress
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
    monkeypatch.setattr("instructedit.comparison.sync._send", sent.append)
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
