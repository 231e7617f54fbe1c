"""What tables look like in the terminal, in Markdown and as CSV."""

import csv
import io

from rich.console import Console

from instructedit.evaluation.formats import CSV_COLUMNS, to_csv, to_markdown, to_rich
from instructedit.evaluation.layout import Table, make_table
from instructedit.records import Outcome


def outcomes() -> list[Outcome]:
    """Two tasks, three methods; portability on one record of one task alone, fluency of one row."""
    made = [Outcome(f"r{number}", "recent", "MEND", "fluency", 610.0 + number) for number in range(2)]
    for task in ("recent", "zsre"):
        for method, gain in (("Base", 0.0), ("MEND", 0.3), ("InstructEdit (seen)", 0.5)):
            for number in range(4):
                value = 1.0 if number == 3 else gain + number / 10
                made.append(Outcome(f"r{number}", task, method, "reliability", value, 3, 1))
                made.append(Outcome(f"r{number}", task, method, "locality", 1 - gain))
            if task == "recent":
                made.append(Outcome("r0", task, method, "portability", 0.25))
    return made


def table(**around: object) -> Table:
    return make_table(outcomes(), "Test records", **around)  # type: ignore[arg-type]


def test_markdown() -> None:
    text = to_markdown(table())
    lines = text.splitlines()
    assert lines[0] == "## Test records"
    assert lines[2] == "| task | method | n | reliability | generalization | locality | portability | fluency |"
    assert lines[3] == "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    mend, base, editor = lines[4], lines[5], lines[6]
    assert mend.startswith("| recent | MEND | 4 | _55.0_ [")
    assert mend.endswith("| **70.0** [70.0, 70.0] | **25.0** [25.0, 25.0] (1) | 610.5 [610.0, 611.0] (2) |")
    assert base.startswith("| recent | Base | 4 | 32.5 [") and base.endswith("| 25.0 [25.0, 25.0] (1) | - |")
    assert editor.startswith("| recent | InstructEdit (seen) | 4 | **70.0** [")
    assert editor.endswith("| - | _50.0_ [50.0, 50.0] | **25.0** [25.0, 25.0] (1) | - |")
    assert "Best of a task bold, second best in italics" in lines[-1]


def test_names_do_not_break_a_markdown_row() -> None:
    text = to_markdown(make_table([Outcome("r", "a|b", "m\nn", "reliability", 1.0)]))
    assert "| a\\|b | m n | 1 | 100.0 [100.0, 100.0] |" in text


def test_paper_held_out_and_warnings_in_markdown() -> None:
    stamp = {"base": "gpt2-xl", "dirty": "yes", "partial": "7 of 8 edits"}
    lines = to_markdown(table(paper="gpt2-xl", held_out=("zsre",), stamp=stamp)).splitlines()
    assert lines[2].startswith("**DIRTY: ") and "7 of 8 edits" in lines[4]
    rows = [line for line in lines if line.startswith("|")]
    assert rows[2].startswith("| recent | MEND | 4 |")
    assert rows[3] == "| recent | paper, GPT2-XL |  | 85.6 | 52.8 | 57.9 | 42.3 |  |"
    assert rows[-1] == "| zsre (held out) | paper, GPT2-XL |  | 82.8 | 78.4 | 94.6 | 40.8 |  |"


def test_rich_fits_a_terminal_of_100_without_fluency() -> None:
    made = [outcome for outcome in outcomes() if outcome.metric != "fluency"]
    made.append(Outcome("r0", "zsre", "[b]", "reliability", 1.0))
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(to_rich(make_table(made, "Test records")))
    lines = [line.strip() for line in console.export_text().splitlines()]
    assert lines[0] == "Test records" and "bootstrap" in " ".join(lines)
    at = lines.index("zsre")
    assert lines[at + 5].split() == ["InstructEdit", "(seen)", "4", "70.0", "-", "50.0", "-"]
    assert lines[at + 6].startswith("[") and lines[at + 6].endswith("[50.0, 50.0]")
    assert lines[at + 7].split() == ["[b]", "1", "100.0", "-", "-", "-"]


def test_nothing_is_lost_in_a_terminal_that_is_too_narrow() -> None:
    console = Console(width=60, file=io.StringIO(), record=True)
    console.print(to_rich(table()))
    text = console.export_text()
    assert "…" not in text and text.count("610.5") == 1


def test_rich_marks_warns_and_shows_the_paper() -> None:
    console = Console(width=140, file=io.StringIO(), record=True, force_terminal=True, color_system="standard")
    stamp = {"dirty": True, "base": "smollm2-135m"}
    console.print(to_rich(table(paper="gpt2-xl", stamp=stamp, held_out=("zsre",))))
    styled = console.export_text(clear=False, styles=True)
    assert "\x1b[1m70.0\x1b[0m" in styled and "\x1b[4m55.0\x1b[0m" in styled
    lines = [" ".join(line.split()) for line in console.export_text().splitlines()]
    assert any(line.startswith("DIRTY") for line in lines) and "zsre (held out)" in lines
    assert "paper, GPT2-XL 85.6 52.8 57.9 42.3" in lines
    assert "smollm2-135m, another model" in " ".join(lines)


def test_csv_has_a_row_per_cell_in_the_unit_it_names() -> None:
    greedy = make_table([Outcome("r", "zsre", "MEND", "locality_greedy", 0.5)], variant="greedy", records="some")
    stamp = {"commit": "abc, def", "dirty": True}
    text = to_csv([table(paper="gpt2-xl", stamp=stamp, held_out=("zsre",)), greedy])
    rows = list(csv.DictReader(io.StringIO(text)))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert len(rows) == 2 * 3 * 2 + 3 + 1 + 1
    assert rows[0] | {"low": "", "high": ""} == {
        **{"task": "recent", "method": "MEND", "metric": "reliability", "variant": "", "mean": "55.0", "low": ""},
        **{"high": "", "n": "4", "paper": "85.62", "paper_note": "", "unit": "%", "records": "all"},
        **{"mark": "second", "held_out": "false", "commit": "abc, def", "warnings": "DIRTY, SEVERAL COMMITS"},
    }
    assert float(rows[0]["low"]) < 55 < float(rows[0]["high"])
    (fluency,) = [row for row in rows if row["metric"] == "fluency"]
    assert (fluency["mean"], fluency["unit"], fluency["n"], fluency["paper"]) == ("610.5", "0.01 bit", "2", "")
    assert [row["held_out"] for row in rows if row["task"] == "zsre"] == ["true"] * 6 + ["false"]
    last = rows[-1]
    assert [last[key] for key in ("variant", "mean", "records", "paper", "warnings")] == [
        "greedy",
        "50.0",
        "some",
        "",
        "",
    ]


def test_csv_says_which_of_the_papers_numbers_are_not_like_ours() -> None:
    made = [Outcome("r", task, "GRACE", "reliability", 1.0) for task in ("recent", "zsre")]
    rows = list(csv.DictReader(io.StringIO(to_csv([make_table(made, paper="gpt2-xl")]))))
    assert [(row["paper"], row["paper_note"]) for row in rows] == [
        ("99.68", "greedy generation"),
        ("0.0", "not comparable"),
    ]
