"""The command evaluate, on a tiny base on disk: what it writes, what it resumes, what enters a table."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from instructedit.base import Base
from instructedit.base.loading import base_fingerprint
from instructedit.instructions.controls import CONTROLS, WHICH
from instructedit.provenance import Revision
from tests.commands.conftest import CLEAN, OUT, Evaluate

DIRTY = Revision("d" * 40, dirty=True)
ROWS = ["Base", "MEND", "InstructEdit (seen)", "InstructEdit (unseen)"]


def lines(folder: Path) -> list[str]:
    return sorted((folder / "rows.jsonl").read_text(encoding="utf-8").splitlines())


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(folder)]


@pytest.mark.slow
def test_every_row_is_made_and_stamped(evaluate: Evaluate, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(tasks="recent, convsent", held_out="convsent") == 0
    found = rows(OUT)
    assert list(dict.fromkeys(sorted(row["method"] for row in found))) == sorted(ROWS)
    assert {row["base"] for row in found} == {base_fingerprint(str(place / "base"))[:16]}
    assert {row["commit"] for row in found} == {CLEAN.commit} and not any(row["dirty"] for row in found)
    # Four records a task; greedy on two of them; fluency on two of convsent and one of recent.
    counts = {(task, metric): 0 for task in ("recent", "convsent") for metric in ("reliability", "reliability_greedy")}
    counts |= {("recent", "fluency"): 0, ("convsent", "fluency"): 0}
    for row in found:
        if row["method"] == "MEND" and (row["task"], row["metric"]) in counts:
            counts[row["task"], row["metric"]] += 1
    assert list(counts.values()) == [4, 2, 4, 2, 1, 2]
    texts = [json.loads(line) for line in (OUT / "texts.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {text["method"] for text in texts} == set(ROWS)
    # No text of a record or of a model is in the rows.
    assert all({type(value) for value in row.values()} <= {str, int, float, bool} for row in found)
    assert not {"prompt", "text", "wanted"} & {key for row in found for key in row}
    known = json.loads((OUT / "run.json").read_text())
    assert set(known["seconds"]) == set(ROWS) and known["starts"][0]["edits"] == 32
    out = capsys.readouterr().out
    for name in ("table.md", "table.csv", "table.tex", "rows.jsonl", "texts.jsonl"):
        assert (OUT / name).is_file() and str(OUT / name) in out
    assert "MEND" in (OUT / "table.md").read_text() and "DIRTY" not in (OUT / "table.md").read_text()


@pytest.mark.slow
def test_a_portion_cut_short_is_made_again_and_nothing_else(
    evaluate: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert evaluate("--out", "whole") == 0
    whole = (tmp_path / "whole/rows.jsonl").read_bytes()
    asked: list[int] = []

    def counting(*args: Any, **kwargs: Any) -> Any:
        asked.append(len(args[2]))
        return real(*args, **kwargs)

    from instructedit.evaluation import work

    real = work.evaluate
    monkeypatch.setattr(work, "evaluate", counting)
    for kept in (0, len(whole) // 3, len(whole) - 1):
        folder = tmp_path / f"cut{kept}"
        folder.mkdir()
        for name in ("run.json", "texts.jsonl"):
            (folder / name).write_bytes((tmp_path / "whole" / name).read_bytes())
        (folder / "rows.jsonl").write_bytes(whole[:kept])
        asked.clear()
        assert evaluate("--out", folder) == 0
        assert lines(folder) == lines(tmp_path / "whole")
        assert sorted((folder / "texts.jsonl").read_bytes().splitlines()) == sorted(
            (tmp_path / "whole/texts.jsonl").read_bytes().splitlines()
        )
        # 4 rows of 2 portions each; those whose every line was kept are not made again.
        lost = whole[whole.rfind(b"\n", 0, kept) + 1 :].splitlines()
        assert len(asked) == len({portion(line) for line in lost}) > 0


def portion(line: bytes) -> tuple[str, int]:
    row = json.loads(line)
    return row["method"], row["chunk"]


PROGRAM = """
import sys
from instructedit.commands import evaluate
from instructedit.provenance import Revision
evaluate.revision = lambda: Revision("c" * 40, False)
from instructedit.cli import main
main(sys.argv[1:])
"""


@pytest.mark.long
def test_killed_at_once_and_started_again_it_has_the_rows_of_an_uninterrupted_one(
    evaluate: Evaluate, place: Path, tmp_path: Path
) -> None:
    assert evaluate("--out", "whole") == 0
    config = tmp_path / "config.yaml"
    argv = [sys.executable, "-c", PROGRAM, "evaluate", "--config", str(config), "--out", "killed"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    kills = 0
    for _ in range(4):
        process = subprocess.Popen(argv, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
        file = tmp_path / "killed/rows.jsonl"
        size = file.stat().st_size if file.exists() else 0
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if file.exists() and file.stat().st_size > size:
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.002)
        assert process.wait() in (0, -signal.SIGKILL)
    assert kills >= 2
    assert (tmp_path / "killed/rows.jsonl").read_bytes() and lines(tmp_path / "killed") != lines(tmp_path / "whole")
    assert evaluate("--out", "killed") == 0
    assert lines(tmp_path / "killed") == lines(tmp_path / "whole")


def test_with_every_row_there_no_base_is_loaded(evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> Base:
        raise AssertionError("loaded a base")

    assert evaluate() == 0
    (OUT / "table.md").unlink()
    monkeypatch.setattr("instructedit.base.loading.load_base", refuse)
    assert evaluate() == 0
    assert (OUT / "table.md").is_file()


def test_rows_of_other_settings_are_refused_with_what_differs(
    evaluate: Evaluate, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(methods=[{"method": "none"}]) == 0
    before = lines(OUT)
    capsys.readouterr()
    assert evaluate(methods=[{"method": "none"}], max_probes=2, fluency_tokens=7) == 2
    err = capsys.readouterr().err
    assert "other settings for Base on recent" in err and "fluency_tokens (6, now 7)" in err and "--out" in err
    assert evaluate(methods=[{"method": "none"}, {"method": "mend", "editor": str(place / "mend")}]) == 0
    assert set(before) < set(lines(OUT))


def test_changed_code_is_refused_before_the_first_edit_unless_allowed(
    evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("instructedit.commands.evaluate.revision", lambda: DIRTY)
    only_base = [{"method": "none"}]
    assert evaluate(methods=only_base) == 2
    assert "--allow_dirty true" in capsys.readouterr().err and not (OUT / "rows.jsonl").exists()
    assert evaluate("--allow_dirty", "true", methods=only_base) == 0
    assert all(row["dirty"] for row in rows(OUT))
    assert "DIRTY" in (OUT / "table.md").read_text() and "DIRTY" in (OUT / "table.tex").read_text()
    # Clean code now; the rows still are not.
    monkeypatch.setattr("instructedit.commands.evaluate.revision", lambda: CLEAN)
    (OUT / "table.md").unlink()
    assert evaluate(methods=only_base) == 2
    assert not (OUT / "table.md").exists()


def test_rows_of_several_commits_are_told(evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    assert evaluate("--only", "Base") == 0
    monkeypatch.setattr("instructedit.commands.evaluate.revision", lambda: Revision("e" * 40, dirty=False))
    assert evaluate() == 0
    table = (OUT / "table.md").read_text()
    assert "SEVERAL COMMITS" in table and "c" * 12 in table and "e" * 12 in table


@pytest.mark.slow
def test_missing_rows_make_no_table_unless_allowed(evaluate: Evaluate, capsys: pytest.CaptureFixture[str]) -> None:
    both = {"tasks": ["recent", "convsent"]}
    assert evaluate("--only", "base,InstructEdit", "--only_tasks", "recent", **both) == 0
    assert {(row["method"], row["task"]) for row in rows(OUT)} == {
        (name, "recent") for name in ("Base", "InstructEdit (seen)", "InstructEdit (unseen)")
    }
    told = capsys.readouterr().out
    assert "No table: 12 of 32 edits" in told and "MEND on recent" in told and not (OUT / "table.md").exists()
    assert evaluate("--only_table", "true", **both) == 2
    assert "12 of 32 edits" in capsys.readouterr().err
    assert evaluate("--only_table", "true", "--allow_partial", "true", **both) == 0
    assert "PARTIAL" in (OUT / "table.md").read_text()
    assert evaluate(**both) == 0
    assert "PARTIAL" not in (OUT / "table.md").read_text()


@pytest.mark.slow
def test_a_comparison_is_printed_and_written(evaluate: Evaluate, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("--against", "mend") == 0
    out = capsys.readouterr().out
    assert "InstructEdit (seen)" in (OUT / "against.md").read_text() and str(OUT / "against.md") in out


@pytest.mark.slow
def test_controls_are_added_to_a_finished_folder_and_empty_is_the_editor_without_instructions(
    evaluate: Evaluate, place: Path
) -> None:
    """The place's two editors are one: MEND has no pools, InstructEdit has."""
    assert evaluate() == 0
    before = lines(OUT)
    editor = {"method": "instructedit", "editor": str(place / "instructedit"), "instructions": list(WHICH)}
    methods = [{"method": "none"}, {"method": "mend", "editor": str(place / "mend")}, editor]
    assert evaluate(methods=methods) == 0
    assert set(before) < set(lines(OUT))
    values: dict[str, list[tuple[str, str, float]]] = {}
    for row in rows(OUT):
        values.setdefault(row["method"], []).append((row["id"], row["metric"], row["value"]))
    assert set(values) == {*ROWS, *(f"InstructEdit ({which})" for which in CONTROLS)}
    assert values["InstructEdit (empty)"] == values["MEND"]
    prompts: dict[str, set[str]] = {}
    for text in map(json.loads, (OUT / "texts.jsonl").read_text(encoding="utf-8").splitlines()):
        prompts.setdefault(text["method"], set()).add(text["prompt"])
    assert prompts["InstructEdit (empty)"] == prompts["MEND"] == prompts["Base"]
    instructed = [prompts[f"InstructEdit ({which})"] - prompts["Base"] for which in WHICH if which != "empty"]
    assert all(instructed) and sum(map(len, instructed)) == len(set().union(*instructed))
    table = (OUT / "table.md").read_text()
    assert all(f"InstructEdit ({which})" in table for which in CONTROLS)


@pytest.mark.slow
@pytest.mark.parametrize(("editing", "how"), [("together", "together"), ("sequence", "in sequence")])
def test_several_edits_in_one_base_are_rows_of_their_own(
    evaluate: Evaluate, place: Path, editing: str, how: str
) -> None:
    methods = [{"method": "none"}, {"method": "mend", "editor": str(place / "mend")}]
    assert evaluate(methods=methods, editing=editing, sizes=[1, 4]) == 0
    found = rows(OUT)
    assert {row["method"] for row in found} == {"Base", f"MEND, 1 {how}", f"MEND, 4 {how}"}
    kept = {
        name: [row["value"] for row in found if (row["method"], row["metric"]) == (name, "locality")]
        for name in (f"MEND, 1 {how}", f"MEND, 4 {how}")
    }
    assert all(len(values) == 4 for values in kept.values())
    assert len({json.dumps(values) for values in kept.values()}) == 2, "four edits in one base changed nothing"
    assert evaluate("--only", f"MEND, 4 {how}", methods=methods, editing=editing, sizes=[1, 3]) == 2


OWN = '''
from dataclasses import dataclass
from instructedit.methods.none import NoEdit

@dataclass(frozen=True)
class Nothing(NoEdit):
    """Edits nothing, with an option."""

    name: str = "Nothing"
    strength: float = 1.0
'''


def test_a_method_of_ones_own_is_named_by_its_place(
    evaluate: Evaluate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own_method_of_the_test.py").write_text(OWN)
    kind = "own_method_of_the_test:Nothing"
    own = {"method": kind, "name": "Ours", "options": {"strength": 5e-4}}
    assert evaluate(methods=[own]) == 0
    assert {row["method"] for row in rows(OUT)} == {"Ours"}
    assert json.loads((OUT / "run.json").read_text())["settings"]["Ours"]["recent"]["options"] == {"strength": 5e-4}
    for options, named in (({"strenth": 1}, "strength"), ({"strength": "much"}, "strength")):
        assert evaluate(methods=[own | {"options": options}]) == 2
        assert named in capsys.readouterr().err


def test_two_processes_cannot_write_to_one_folder(evaluate: Evaluate, capsys: pytest.CaptureFixture[str]) -> None:
    from instructedit.evaluation.ledger import Ledger

    with Ledger.opened(OUT):
        assert evaluate() == 2
    assert "Another evaluation" in capsys.readouterr().err


@pytest.mark.slow
def test_an_interrupt_says_how_to_go_on(
    evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from instructedit.evaluation import work

    real, calls = work.evaluate, []

    def stopped(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(work, "evaluate", stopped)
    assert evaluate() == 130
    assert "same command goes on" in capsys.readouterr().err
    assert len({row["chunk"] for row in rows(OUT)}) == 2
    assert evaluate() == 0
    # Only the stopped call is made twice.
    assert len(calls) == 1 + 8
