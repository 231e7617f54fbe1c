"""What stands in a table: marks, the paper's numbers, warnings, and the sentences below."""

import inspect
from dataclasses import replace

import pytest

from instructedit.commands.prepare import prepare
from instructedit.errors import InputError
from instructedit.evaluation.intervals import Estimate
from instructedit.evaluation.layout import FOOTNOTES, Table, make_table
from instructedit.evaluation.tables import Line
from instructedit.records import Outcome

HOW = ("together", "in sequence")


def line(method: str, task: str = "recent", **means: float) -> Line:
    cells = {metric: Estimate(mean, mean - 0.01, mean + 0.01, 4) for metric, mean in means.items()}
    return Line(task, method, 4, cells)


def marks(*lines: Line, metric: str = "reliability", task: str = "recent") -> dict[str, str]:
    found = Table(lines).marks
    return {method: mark for (of, method, name), mark in found.items() if (of, name) == (task, metric)}


def test_best_and_second_best_of_each_task_and_metric() -> None:
    lines = [
        line("A", reliability=0.5, locality=0.9),
        line("B", reliability=0.7, locality=0.8),
        line("C", reliability=0.6),
        line("A", "zsre", reliability=0.9),
        line("B", "zsre", reliability=0.1),
    ]
    assert marks(*lines) == {"B": "best", "C": "second"}
    assert marks(*lines, metric="locality") == {"A": "best", "B": "second"}
    assert marks(*lines, task="zsre") == {"A": "best", "B": "second"}


def test_base_and_rows_with_unseen_instructions_do_not_compete() -> None:
    lines = [
        line("Base", reliability=1.0),
        line("InstructEdit (unseen)", reliability=0.9),
        line("InstructEdit (seen)", reliability=0.8),
        line("MEND", reliability=0.7),
    ]
    assert marks(*lines) == {"InstructEdit (seen)": "best", "MEND": "second"}


def test_rows_of_controls_do_not_compete_however_many_edits_they_hold() -> None:
    lines = [line(f"InstructEdit ({which})", reliability=0.9) for which in ("wrong", "shuffled", "filler", "empty")]
    lines += [
        line(f"InstructEdit ({which}), 10 {how}", reliability=0.9) for which in ("empty", "unseen") for how in HOW
    ]
    assert marks(*lines) == {}
    rivals = [line("InstructEdit (seen), 10 together", reliability=0.8), line("Mine (empty) too", reliability=0.7)]
    assert marks(*lines, *rivals) == {"InstructEdit (seen), 10 together": "best", "Mine (empty) too": "second"}
    told = " ".join(Table((*lines[:2], *rivals)).notes("bold", "italic"))
    assert "rows named (unseen) or (wrong) or (shuffled) do not compete" in told
    assert "rows named (unseen) do not compete" in " ".join(Table(tuple(rivals)).notes("bold", "italic"))


def test_equal_values_share_a_mark_as_they_are_printed() -> None:
    # 96.31 and 96.34 are both printed as 96.3; 9.5 is less than 10.2 though its text sorts behind.
    lines = [line("A", reliability=0.9631), line("B", reliability=0.9634), line("C", reliability=0.095)]
    assert marks(*lines, line("D", reliability=0.102)) == {"A": "best", "B": "best", "D": "second"}
    assert marks(*lines[:2]) == {"A": "best", "B": "best"}


def test_one_row_alone_is_better_than_nobody() -> None:
    assert marks(line("Base", reliability=0.1), line("MEND", reliability=0.9)) == {}


def test_columns_keep_their_order_and_only_some_are_always_there() -> None:
    usual = ("reliability", "generalization", "locality", "portability")
    assert Table((line("A", locality=1.0),)).columns == usual
    assert Table((line("A", fluency=600.0, own=0.1), line("B", success=0.5))).columns == (
        *usual,
        "success",
        "fluency",
        "own",
    )


def test_a_variants_table_leaves_out_rows_that_were_not_measured_so() -> None:
    made = [Outcome("r", "recent", "A", "reliability_greedy", 1.0), Outcome("r", "zsre", "A", "reliability", 0.5)]
    assert [line.task for line in make_table(made, variant="greedy").lines] == ["recent"]
    assert [line.task for line in make_table(made).lines] == ["zsre"]


PAPER = Table(
    (
        line("GRACE", reliability=0.9, fluency=600.0),
        line("InstructEdit (seen)", generalization=0.9),
        line("GRACE", "zsre", reliability=0.9),
        line("MEND, 10 together", reliability=0.9),
        line("FT-L", "convsent", fluency=1.0),
    ),
    paper="gpt2-xl",
)


def test_the_papers_row_has_its_numbers_with_their_footnotes() -> None:
    assert PAPER.source == "paper, GPT2-XL"
    assert [PAPER.beside(each) for each in PAPER.lines] == [
        {"reliability": "99.7‡", "generalization": "1.6‡", "locality": "100.0‡", "portability": "17.7‡"},
        {"reliability": "85.7", "generalization": "51.7", "locality": "64.6", "portability": "47.4"},
        {"reliability": "0.0†", "generalization": "0.0†", "locality": "100.0†", "portability": "47.1†"},
        {},
        {"reliability": "7.5", "locality": "42.9", "fluency": "548.6"},
    ]
    told = " ".join(PAPER.notes("bold", "italic"))
    assert all(text in told for text in FOOTNOTES.values())
    assert not any(sign in " ".join(replace(PAPER, lines=PAPER.lines[1:2]).notes("", "")) for sign in FOOTNOTES)


def test_a_published_half_is_rounded_up() -> None:
    assert Table((line("InstructEdit (seen)", "convsent", fluency=1.0),), paper="gpt2-xl").beside(
        line("InstructEdit (seen)", "convsent")
    )["fluency"] == ("617.7"), "617.65 is published; the nearest float is less"


def test_the_papers_numbers_stand_only_beside_what_was_measured_like_them() -> None:
    greedy = replace(PAPER, variant="greedy")
    assert greedy.beside(PAPER.lines[0])["reliability"] == "99.7", "GRACE's came from generation"
    assert greedy.beside(PAPER.lines[1]) == {}
    for other in ("exact", "greedy_exact"):
        assert replace(PAPER, variant=other).beside(PAPER.lines[0]) == {}
    assert replace(PAPER, records="missed by Base").beside(PAPER.lines[0]) == {}
    assert replace(PAPER, paper="").beside(PAPER.lines[0]) == {}
    with pytest.raises(InputError, match="Unknown base of the paper 'gpt-2'"):
        replace(PAPER, paper="gpt-2").beside(PAPER.lines[0])


def test_another_base_than_the_papers_is_said_to_be_one() -> None:
    def told(**stamp: str) -> str:
        return " ".join(replace(PAPER, stamp=stamp).notes("bold", "italic"))

    assert "The base here is smollm2-135m, another model" in told(base="smollm2-135m")
    assert "another model" in told(), "an unknown base may be another"
    assert "another model" not in told(base="openai-community/gpt2-xl") and "arXiv 2402.16123" in told(base="gpt2-xl")
    assert "2402.16123" not in " ".join(replace(PAPER, paper="").notes("bold", "italic"))


@pytest.mark.parametrize(
    "stamp, warned",
    [
        ({}, []),
        ({"dirty": False, "partial": "", "commit": "abc"}, []),
        ({"dirty": "False", "partial": "no"}, []),
        ({"dirty": True}, ["DIRTY"]),
        ({"dirty": "yes", "partial": "380 of 400 edits"}, ["DIRTY", "PARTIAL"]),
        ({"partial": True}, ["PARTIAL"]),
        ({"commit": "abc, def"}, ["SEVERAL COMMITS"]),
    ],
)
def test_warnings(stamp: dict[str, object], warned: list[str]) -> None:
    found = Table((), stamp=stamp).warnings
    assert [warning.split(":")[0] for warning in found] == warned
    assert ("380 of 400 edits" in " ".join(found)) == ("380 of 400 edits" in stamp.values())


def test_the_legend_says_what_the_columns_are_measured_on() -> None:
    plain = " ".join(Table((line("A", reliability=1.0),)).notes("bold", "italic"))
    for word in ("Subject_Aliasing", "unedited base", "--max-probes", "teacher-forced"):
        assert word in plain
    default = inspect.signature(prepare).parameters["max_probes"].default
    assert f"({default} by default)" in plain
    assert not any(word in plain for word in ("uccess", "luency", "Best"))
    rich = Table((line("A", success=1.0), line("B", success=0.5, fluency=1.0)), variant="").notes("bold", "framed")
    assert "Success, of convsent alone" in " ".join(rich) and "Fluency is no percentage" in " ".join(rich)
    assert "Best of a task bold, second best framed" in " ".join(rich)
    assert "greedy continuation" in " ".join(Table((), variant="greedy").notes("", ""))
