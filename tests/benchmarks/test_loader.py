import time
from pathlib import Path

import pytest

from instructedit.base import Base
from tests.benchmarks.scripts import last_line, load
from tests.lightning_modules.conftest import llama_folder, prepared

__all__ = ["llama_folder", "prepared"]

loader = load("loader")


@pytest.fixture
def data(prepared: Path, tiny_llama_base: Base) -> object:
    return loader.DataSource(loader.read(prepared), tiny_llama_base.tokenizer, 512, batch=4)


def test_an_empty_task_is_left_out(prepared: Path) -> None:
    assert {task: len(found) for task, found in loader.read(prepared).items()} == {"convsent": 16, "recent": 16}


@pytest.mark.slow
def test_the_demo_tasks_are_made_in_memory() -> None:
    assert all(len(found) > 100 for found in loader.read(None).values())


def test_every_part_has_a_rate(data: object) -> None:
    rates = data.rates(3, [0])  # type: ignore[attr-defined]
    assert [rate.what.split(" (")[0] for rate in rates] == [
        "sampling, steps in order",
        "sampling, steps at random",
        "collation",
        "loader, 0 workers",
    ]
    for rate in rates:
        assert rate.per_second == pytest.approx(4 / (rate.batch_ms / 1000))
    assert rates[0].per_second > rates[2].per_second, "drawing is quicker than tokenising"


def test_a_slow_tokenizer_shows_as_waiting(tiny_llama_base: Base, prepared: Path) -> None:
    def slow(*args: object, **settings: object) -> object:
        time.sleep(0.05)
        return tiny_llama_base.tokenizer(*args, **settings)

    data = loader.DataSource(loader.read(prepared), slow, 512, batch=2)
    (found,) = data.waiting(tiny_llama_base, rank=8, steps=3, workers=[0])
    assert 50 <= found.wait_ms < found.step_ms
    assert found.share == pytest.approx(found.wait_ms / found.step_ms, rel=0.3)
    assert found.total_share > 0.1


@pytest.mark.slow
def test_the_script_prints_tables_and_a_line_of_json(
    prepared: Path, llama_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--batch", "2", "--batches", "4", "--steps", "2", "--rank", "8", "--workers", "0", "1"]
    loader.main(["--base", str(llama_folder), "--data", str(prepared), *sizes])
    output = capfd.readouterr().out
    found = last_line(output)
    assert found["records"] == 32
    assert [waiting["workers"] for waiting in found["waiting"]] == [0, 1]
    assert all(0 < waiting["share"] < 1 for waiting in found["waiting"])
    assert found["bar_met"] == (found["waiting"][0]["share"] < 0.02)
    assert "| loader, 1 workers |" in output
