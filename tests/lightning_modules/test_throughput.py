"""Rates, memory and device time of a run."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from instructedit.runs.progress import Progress, write_progress
from lightning_modules.callbacks import throughput
from lightning_modules.callbacks.throughput import Throughput, peak_memory, rates
from tests.lightning_modules.conftest import rows, write_experiment
from tests.processes.jobs import Job


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(throughput, "time", SimpleNamespace(monotonic=lambda: self.now))


def trainer_of(ranks: int, every: int = 1) -> Any:
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    return SimpleNamespace(
        global_step=0,
        world_size=ranks,
        log_every_n_steps=every,
        accumulate_grad_batches=2,
        strategy=strategy,
        loggers=[],
        datamodule=SimpleNamespace(batch=8),
    )


def step(measure: Throughput, trainer: Any, tokens: int) -> None:
    trainer.global_step += 1
    module: Any = SimpleNamespace(step_tokens=tokens)
    for place in (2 * trainer.global_step - 2, 2 * trainer.global_step - 1):  # two micro-batches
        measure.on_train_batch_start(trainer, module, None, place)
        measure.on_train_batch_end(trainer, module, None, None, place)


def test_a_step_is_counted_from_the_one_before_without_validations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, validation = Clock(monkeypatch), SimpleNamespace(seconds=0.0)
    measure, trainer = Throughput(tmp_path, validation), trainer_of(ranks=4)  # type: ignore[arg-type]
    measure.setup(trainer, None, "fit")  # type: ignore[arg-type]
    measure.on_train_start(trainer, None)  # type: ignore[arg-type]
    clock.now += 50  # a base is loaded, moments are started: no step
    measure.on_train_batch_start(trainer, None, None, 0)  # type: ignore[arg-type]
    clock.now += 2
    step(measure, trainer, tokens=100)
    assert measure.latest.seconds_per_step == 2 and measure.latest.edits_per_second == 4
    clock.now += 30
    validation.seconds += 30
    clock.now += 4  # loading data counts
    step(measure, trainer, tokens=500)
    latest = measure.latest
    assert (latest.seconds_per_step, latest.edits_per_second, latest.tokens_per_second) == (3, 16 / 6, 100)
    assert latest.device_seconds == 4 * 86  # four ranks waited, whatever they did
    found = rows(tmp_path / "throughput.csv")
    assert [row["step"] for row in found] == ["1", "2"]
    assert found[1]["seconds_per_step"] == "4.0" and found[1]["tokens_per_second"] == "125.0"
    clock.now += 10
    assert measure.latest.device_seconds == 4 * 96, "a test after the training counts too"


def test_a_row_tells_the_steps_since_the_one_before_and_latest_the_last_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, trainer = Clock(monkeypatch), trainer_of(ranks=1, every=20)
    measure = Throughput(tmp_path, SimpleNamespace(seconds=0.0))  # type: ignore[arg-type]
    measure.on_train_batch_start(trainer, None, None, 0)  # type: ignore[arg-type]
    for seconds in [1.0] * 20 + [3.0] * 20 + [5.0] * 12:
        clock.now += seconds
        step(measure, trainer, 1)
    found = [(row["step"], float(row["seconds_per_step"])) for row in rows(tmp_path / "throughput.csv")]
    assert found == [("20", 1.0), ("40", 3.0)]
    assert measure.latest.seconds_per_step == pytest.approx((20 * 3 + 12 * 5) / 32)


def test_device_time_goes_on_from_earlier_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    write_progress(tmp_path, Progress("requeued", 5, 9, device_seconds=100.0))
    measure = Throughput(tmp_path, SimpleNamespace(seconds=0.0))  # type: ignore[arg-type]
    assert measure.latest.device_seconds == 100
    write_progress(tmp_path, Progress("running", 5, 9, device_seconds=measure.latest.device_seconds))
    measure.setup(trainer_of(ranks=2), None, "fit")  # type: ignore[arg-type]
    clock.now += 7
    assert measure.latest.device_seconds == 114, "this start's own progress is not added again"


def test_memory_is_the_peak_of_this_process() -> None:
    before = peak_memory(torch.device("cpu"))
    assert 0.05 < before < 100
    held = torch.ones(64 * 2**20)  # 256 MiB
    assert peak_memory(torch.device("cpu")) >= before
    del held
    assert rates([(0.0, 1)], 1, before).edits_per_second > 0


@pytest.mark.long
def test_tokens_are_those_of_all_ranks_and_micro_batches(tmp_path: Path, prepared: Path, llama_folder: Path) -> None:
    tokens = {}
    for name, ranks, micro in (("one", 1, 4), ("parts", 1, 2), ("two", 2, 1)):
        config = write_experiment(tmp_path, prepared, llama_folder, name, data__micro_batch=micro, trainer__max_steps=3)
        Job(["--config", str(config), "--trainer.strategy", "ddp"], ranks, tmp_path / "logs" / name).succeeds()
        found = rows(tmp_path / "runs" / name / "throughput.csv")
        tokens[name] = [round(float(row["seconds_per_step"]) * float(row["tokens_per_second"])) for row in found]
    assert len(tokens["one"]) == 3 and min(tokens["one"]) > 500
    assert tokens["one"] == tokens["parts"] == tokens["two"]
