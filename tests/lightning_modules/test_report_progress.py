"""Where there is no terminal, as in a job's log, the test at a run's end tells how far it is."""

from types import SimpleNamespace
from typing import Any

import pytest

from lightning_modules import report


@pytest.mark.parametrize("rank", [0, 1])
def test_rank_zero_tells_and_the_others_do_not(
    rank: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "stop_if_asked", lambda _module: None)
    module: Any = SimpleNamespace(method="InstructEdit")
    with report._watched(module, "test", 20, rank, None) as advance:
        advance(10)
        advance(10)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == (rank == 0)
    assert rank or lines[0].startswith("test, InstructEdit: 20 of 20 records, ")
