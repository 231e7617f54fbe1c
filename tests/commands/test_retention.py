"""The command retention: a curve on a tiny base on disk, as table, lines and picture; and what it refuses."""

import csv
import json
from pathlib import Path

import pytest

from instructedit.records import EditExample, EditRequest, Probe
from instructedit.tasks.prepared import write_prepared
from tests.editing.kinds import base_and_editor
from tests.lightning_modules.conftest import run

pytest.importorskip("matplotlib")


def example(n: int) -> EditExample:
    request = EditRequest(f"The secret height of tower {n} is", "ten", f"record-{n}", "counterfact", f"tower {n}")
    return EditExample(request, (Probe("locality", f"The secret river of {n} is", "long"),))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a base, an editor of it, a prepared task and a file of requests; the working directory."""
    base_and_editor(tmp_path, monkeypatch)
    write_prepared(Path("data"), "counterfact", {"test": [example(n) for n in range(8)]}, {})
    lines = [
        {"prompt": f"Tower {n} is", "target": "two", "id": f"l{n}", "instruction": "Change it.",
         "locality": [{"prompt": f"River {n} is", "target": "long"}]}
        for n in range(6)
    ]  # fmt: skip
    Path("requests.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path


def retention(*flags: str) -> int:
    return run("retention", *flags)


PREPARED = ("--editor", "editor", "--data", "data", "--task", "counterfact", "--out", "out/curve")


@pytest.mark.slow
def test_a_curve_of_prepared_records(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert retention(*PREPARED, "--counts", "3", "1", "--unrelated", "4") == 0
    told = capsys.readouterr()
    out = place / "out" / "curve"
    for words in (
        "one after another",
        "out/curve/retention.csv",
        "out/curve/retention.png and svg",
        "instructedit edit",
    ):
        assert words in told.out
    assert "6 of 6 edits" in told.err and "edits/s" in told.err and "left" in told.err
    rows = list(csv.DictReader((out / "retention.csv").read_text().splitlines()))
    assert [(row["how"], row["n"]) for row in rows] == [
        (how, n) for how in ("alone", "together", "sequence") for n in ("1", "3")
    ]
    assert {row["unrelated"] for row in rows[2:]} == {"4"}
    lines = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    assert len(lines) == 3 * 4 + 4 * 4 and {line["id"][:7] for line in lines} == {"record-"}
    known = json.loads((out / "run.json").read_text())
    assert known["counts"] == [1, 3] and known["records"] == 8 and known["editor"]["method"] == "InstructEdit"
    assert len(known["editor"]["weights_sha256"]) == 64 and known["task"] == "counterfact"
    # Ids and numbers only.
    assert all("secret" not in path.read_bytes().decode("latin-1") for path in out.iterdir())
    assert {path.name for path in out.iterdir()} == {"retention.csv", "rows.jsonl", "run.json"} | {
        "retention.png",
        "retention.svg",
    }
    # The same command again replaces its files with the same ones; another seed asks others.
    before = {name: (out / name).read_bytes() for name in ("retention.csv", "rows.jsonl", "retention.svg")}
    assert retention(*PREPARED, "--counts=[1,3]", "--unrelated", "4") == 0
    assert before == {name: (out / name).read_bytes() for name in before}
    assert retention(*PREPARED, "--counts", "1", "3", "--unrelated", "4", "--seed", "1") == 0
    assert before["rows.jsonl"] != (out / "rows.jsonl").read_bytes()


def test_a_curve_of_a_file_one_way_only(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--editor", "editor", "--data", "requests.jsonl", "--task", "counterfact", "--max-probes", "1")
    assert retention(*flags, "--counts", "2", "--how", "sequence", "--out", "curve", "--dtype", "float32") == 0
    rows = list(csv.DictReader(Path("curve/retention.csv").read_text().splitlines()))
    assert [row["how"] for row in rows] == ["alone", "sequence"] and rows[1]["unrelated"] == "4"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--counts", "9"], "There are 8 records, too few to edit 9 in"),
        (["--counts", "8"], "locality probe"),
        (["--counts", "0"], "1 or more; found 0"),
        (["--counts", "some"], "counts"),
        (["--how", "alone"], "how"),
        (["--unrelated", "0"], "1 or more"),
        (["--data", "nowhere"], "No file or folder nowhere"),
        (["--task", "recent"], "No prepared split recent/test"),
        (["--task", ""], "--task is missing"),
        (["--counts", "2", "--editor", "nowhere/at-all/x"], "No editor at"),
        (["--editor", ""], "--editor is missing"),
        (["--out", ""], "--out is missing"),
        (["--out", "requests.jsonl"], "is a file"),
        (["--counts", "2", "--device", "cuda"], "no GPU here"),
    ],
)
def test_what_is_refused(place: Path, capsys: pytest.CaptureFixture[str], flags: list[str], words: str) -> None:
    import torch

    if "cuda" in flags and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert retention(*PREPARED, *flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and words in line


def test_without_matplotlib_it_says_what_to_install(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert retention(*PREPARED) == 2
    assert "instructedit[analysis]" in capsys.readouterr().err
