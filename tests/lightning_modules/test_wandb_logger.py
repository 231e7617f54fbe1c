"""What is sent to Weights & Biases, and when: a stand-in takes the place of its run."""

import sys
from pathlib import Path
from typing import Any

import pytest

from instructedit.errors import InputError
from instructedit.runs.directory import RunConfig, RunDirectory
from lightning_modules import wandb_logger
from lightning_modules.loggers import MetricsCsv
from lightning_modules.wandb_config import shown_config
from lightning_modules.wandb_logger import WandbRun


class Remote:
    """Keeps what it is given, like wandb: a row is whole when it comes, and none for a step that is past."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.summary: dict[str, Any] = {}
        self.exit_code: int | None = None
        self.preempting = self.broken = False

    def log(self, row: dict[str, float], step: int, commit: bool) -> None:
        if self.broken:
            raise ConnectionResetError("Connection lost")
        assert commit and row["step"] == step and (not self.rows or self.rows[-1][0] < step)
        self.rows.append((step, {name: value for name, value in row.items() if name != "step"}))

    def mark_preempting(self) -> None:
        self.preempting = True

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


def logger_of(tmp_path: Path, sent: int = 0) -> tuple[WandbRun, Remote]:
    run, remote = WandbRun(RunConfig("r", str(tmp_path), wandb="offline"), RunDirectory(tmp_path)), Remote()
    run._run, run._sent = remote, sent
    return run, remote


def test_a_row_goes_off_whole_when_the_next_step_begins(tmp_path: Path) -> None:
    run, remote = logger_of(tmp_path)
    run.log_metrics({"train/loss": 1.0}, 1)
    run.log_metrics({"throughput/edits_per_second": 9.0}, 1)
    assert remote.rows == []
    run.log_metrics({"train/loss": 2.0}, 2)
    run.log_metrics({"val/score": 50.0}, 2)
    assert remote.rows == [(1, {"train/loss": 1.0, "throughput/edits_per_second": 9.0})]
    run._send_rest()
    assert remote.rows[1:] == [(2, {"train/loss": 2.0, "val/score": 50.0})]


def test_a_resumed_run_sends_what_a_kill_has_kept_back_and_nothing_twice(tmp_path: Path) -> None:
    csv, rates = MetricsCsv(tmp_path / "metrics.csv"), MetricsCsv(tmp_path / "throughput.csv")
    for step in (1, 2, 3, 4):
        csv.log_metrics({"train/loss": float(step)}, step)
        rates.log_metrics({"edits_per_second": 10.0 * step}, step)
    run, remote = logger_of(tmp_path, sent=2)  # goes on at 4; the validation of that step was cut off
    csv.log_metrics({"val/score": 7.0}, 4)
    run.log_metrics({"val/score": 7.0}, 4)
    run.log_metrics({"train/loss": 5.0}, 5)
    row = {"train/loss": 4.0, "val/score": 7.0, "throughput/edits_per_second": 40.0}
    assert remote.rows == [(3, {"train/loss": 3.0, "throughput/edits_per_second": 30.0}), (4, row)]
    run, remote = logger_of(tmp_path, sent=5)  # goes on at 4, although W&B has seen 5
    run.log_metrics({"train/loss": 5.0}, 5)
    run.log_metrics({"train/loss": 6.0}, 6)
    run._send_rest()
    assert remote.rows == [(6, {"train/loss": 6.0})]


def test_a_run_without_a_step_left_sends_what_is_missing(tmp_path: Path) -> None:
    csv = MetricsCsv(tmp_path / "metrics.csv")
    for step in (1, 2, 3):
        csv.log_metrics({"a": float(step)}, step)
    run, remote = logger_of(tmp_path, sent=1)
    run._send_rest()
    assert remote.rows == [(2, {"a": 2.0}), (3, {"a": 3.0})]


def test_a_stopped_run_keeps_its_last_row_for_the_next_start(tmp_path: Path) -> None:
    run, remote = logger_of(tmp_path)
    run.log_metrics({"a": 1.0}, 1)  # its validation is still to come
    run.stopping()
    run.close(7200.0)
    assert remote.preempting and remote.exit_code == 1 and remote.rows == []
    assert remote.summary == {"gpu_hours": 2.0}


def test_a_failure_is_told_once_and_the_training_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run, remote = logger_of(tmp_path)
    remote.broken = True
    for step in range(1, 5):
        run.log_metrics({"a": 1.0}, step)
    run.stopping()
    run.close(1.0)
    assert [record.message for record in caplog.records] == [
        "Weights & Biases has failed (ConnectionResetError: Connection lost); the training goes on without it."
    ]


def test_disabled_means_that_nothing_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    run = WandbRun(RunConfig("r", str(tmp_path)), RunDirectory(tmp_path))
    run.begin({}, "abc", 0)
    run.log_metrics({"a": 1.0}, 1)
    run.finished(None, {})
    run.stopping()
    run.close(1.0)
    assert not list(tmp_path.iterdir())


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb_logger.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"instructedit\[wandb\]"):
        WandbRun(RunConfig("r", str(tmp_path), wandb="offline"), RunDirectory(tmp_path))


def test_the_configuration_is_nested_and_holds_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a-key")
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[1-2]")
    monkeypatch.setenv("SLURM_JWT", "a-token")
    starts = [{"commit": "old", "dirty": True, "versions": {}, "step": 0}]
    starts += [{"commit": "new", "dirty": False, "versions": {"torch": "2"}, "step": 5}]
    record = {"starts": starts, "fingerprint": "f", "data_sha256": {"recent/train": "h"}, "wandb_id": "x"}
    config = shown_config("model:\n  lr: 0.1\n  sites: {last_blocks: 2}\n", record, ranks=4)
    assert config["model"] == {"lr": 0.1, "sites": {"last_blocks": 2}}
    made = config["provenance"]
    assert (made["commit"], made["dirty"], made["ranks"]) == ("new", False, 4)
    assert made["starts"] == [{"step": 0, "commit": "old"}, {"step": 5, "commit": "new"}]
    assert made["slurm"] == {"job": "12", "nodes": "n[1-2]"}
    assert "a-key" not in str(config) and "a-token" not in str(config)
