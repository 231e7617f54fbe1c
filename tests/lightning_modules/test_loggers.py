"""metrics.csv across restarts."""

from pathlib import Path

import pytest

from instructedit.errors import InputError
from lightning_modules.loggers import MetricsCsv
from tests.lightning_modules.conftest import rows


def test_a_step_has_one_row_and_a_new_metric_a_column(tmp_path: Path) -> None:
    log = MetricsCsv(tmp_path / "metrics.csv")
    log.log_metrics({"a": 1.0}, 1)
    log.log_metrics({"a": 2.0}, 2)
    log.log_metrics({"b": 0.1}, 2)
    log.log_metrics({"a": float("nan")}, 3)
    assert rows(tmp_path / "metrics.csv") == [
        {"step": "1", "a": "1.0", "b": ""},
        {"step": "2", "a": "2.0", "b": "0.1"},
        {"step": "3", "a": "nan", "b": ""},
    ]


def test_rewind_drops_what_is_done_again(tmp_path: Path) -> None:
    log = MetricsCsv(tmp_path / "metrics.csv")
    for step in (1, 2, 3):
        log.log_metrics({"a": float(step)}, step)
    other = MetricsCsv(tmp_path / "metrics.csv")
    other.rewind(2)
    other.log_metrics({"b": 7.0}, 2)  # the validation a killed run owes
    other.log_metrics({"a": 9.0}, 3)
    assert [tuple(row.values()) for row in rows(tmp_path / "metrics.csv")] == [
        ("1", "1.0", ""),
        ("2", "2.0", "7.0"),
        ("3", "9.0", ""),
    ]
    other.rewind(0)
    assert rows(tmp_path / "metrics.csv") == []


def test_it_goes_on_without_rewind(tmp_path: Path) -> None:
    MetricsCsv(tmp_path / "metrics.csv").log_metrics({"a": 1.0}, 1)
    MetricsCsv(tmp_path / "metrics.csv").log_metrics({"b": 2.0}, 1)
    MetricsCsv(tmp_path / "metrics.csv").log_metrics({"a": 3.0}, 2)
    assert [tuple(row.values()) for row in rows(tmp_path / "metrics.csv")] == [("1", "1.0", "2.0"), ("2", "3.0", "")]


def test_a_part_of_a_row_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    whole = "step,a\n" + "".join(f"{step},{step}.0\n" for step in range(1, 17))
    for rest in ("1", "17,0.", "\0\0\0", ",\n"):  # a full disk cut off row 17, or a power cut left zeros
        path.write_text(whole + rest)
        MetricsCsv(path).rewind(16)
        assert path.read_text().split() == whole.split(), repr(rest)


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Cannot write .*metrics\.csv"):
        MetricsCsv(tmp_path / "gone" / "metrics.csv").log_metrics({"a": 1.0}, 1)
