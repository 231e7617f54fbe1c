"""All tables of an evaluation in one folder."""

import csv
import json
from pathlib import Path

import pytest

from instructedit.errors import InputError
from instructedit.evaluation.metrics import METRICS, NAMES, UNITS
from instructedit.evaluation.report import MISSED, TITLES, numbers, write_tables
from instructedit.records import Outcome


def outcomes(names: tuple[str, ...] = NAMES) -> list[Outcome]:
    """Base gets r1 right, MEND gets everything right."""
    made = []
    for method in ("Base", "MEND"):
        for name in names:
            for record in ("r0", "r1"):
                right = method == "MEND" or record == "r1"
                value = 600.0 + right if UNITS.get(name) == "0.01 bit" else float(right)
                made.append(Outcome(record, "zsre", method, name, value))
    return made


def test_every_variant_gets_its_section_in_every_file(tmp_path: Path) -> None:
    stamp = {"base": "smollm2-135m", "commit": "abc", "dirty": "yes"}
    folder = tmp_path / "new" / "results"
    tables = write_tables(folder, outcomes(), title="Table 3", stamp=stamp, paper="gpt2-xl", held_out=["zsre"])
    assert [table.title for table in tables] == [*TITLES.values(), MISSED]
    assert tables[-1].lines[0].n == 1 and tables[-1].lines[0].cells["reliability"].mean == 0
    assert sorted(path.name for path in folder.iterdir()) == ["table.csv", "table.md", "table.tex"]
    markdown = (folder / "table.md").read_text()
    assert markdown.startswith("# Table 3\n\nbase smollm2-135m, commit abc, dirty yes\n\n## Token accuracy\n\n**DIRTY")
    assert markdown.count("\n## ") == 5 and markdown.count("**DIRTY") == 5 and "zsre (held out)" in markdown
    assert markdown.count("| paper, GPT2-XL |") == 2, "beside token accuracy alone"
    latex = (folder / "table.tex").read_text()
    assert latex.startswith("% Table 3\n% base smollm2-135m, commit abc, dirty yes\n% Needs \\usepackage{booktabs}\n")
    assert latex.count(r"\begin{table}") == 5 and len(set(latex.split("\\label{")[1:])) == 5
    rows = list(csv.DictReader((folder / "table.csv").open()))
    assert len(rows) == 2 * (len(NAMES) + len(METRICS))
    assert {row["records"] for row in rows} == {"all", "missed by Base"}


def test_sections_without_numbers_are_left_out(tmp_path: Path) -> None:
    made = [outcome for outcome in outcomes(("reliability",)) if outcome.method == "MEND"]
    assert [table.title for table in write_tables(tmp_path, made)] == ["Token accuracy"]
    assert (tmp_path / "table.md").read_text().startswith("## Token accuracy\n")
    right = [outcome for outcome in outcomes(("reliability", "reliability_exact")) if outcome.id == "r1"]
    assert [table.title for table in write_tables(tmp_path, right)] == ["Token accuracy", "Exact match"]


def test_what_cannot_be_made_leaves_the_files_as_they_were(tmp_path: Path) -> None:
    write_tables(tmp_path, outcomes())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match="Unknown base of the paper"):
        write_tables(tmp_path, outcomes(), paper="gpt9")
    with pytest.raises(InputError, match="two values"):
        write_tables(tmp_path, outcomes() * 2)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_title_of_two_lines_does_not_leave_its_comment(tmp_path: Path) -> None:
    write_tables(tmp_path, outcomes(("reliability",)), title="one\ntwo")
    assert (tmp_path / "table.tex").read_text().startswith("% one two\n")


def test_numbers_are_json_in_the_metrics_own_units(tmp_path: Path) -> None:
    found = json.loads(json.dumps(numbers(write_tables(tmp_path, outcomes()))))
    assert found["Token accuracy"]["zsre / Base"]["reliability"]["mean"] == 0.5
    assert found["Token accuracy"]["zsre / MEND"]["fluency"] == {"mean": 601, "low": 601, "high": 601, "n": 2}
