"""Where there is no terminal, as in a job's log, a long test tells how far it is."""

import pytest

from lightning_modules import report
from lightning_modules.report import evaluation_progress


@pytest.mark.parametrize("shown", [True, False])
def test_a_line_every_half_minute(
    shown: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(report.time, "monotonic", lambda: now[0])
    with evaluation_progress("test", 200, shown) as progress:
        for _ in range(5):
            now[0] += 20
            progress.advance(10)
    lines = capsys.readouterr().err.splitlines()
    # At 40 and 80 s; the other ranks say nothing.
    assert lines == (
        [
            "test 20/200 records  0.5 records/s  6 min left",
            "test 40/200 records  0.5 records/s  5 min left",
        ]
        if shown
        else []
    )
