"""The paper's numbers: as printed there, found by our rows' names, and adding up to its headline."""

import pytest

from instructedit.errors import InputError
from instructedit.evaluation.metrics import METRICS
from instructedit.evaluation.paper import (
    PAPER_BASES,
    PAPER_METHODS,
    SEEN_TO_UNSEEN,
    TABLE_3,
    PaperCell,
    headline_gain,
    is_paper_base,
    paper_number,
)


def test_every_row_has_every_method_and_names_that_exist() -> None:
    assert len(TABLE_3) == 27 and all(len(values) == len(PAPER_METHODS) for values in TABLE_3.values())
    for base, task, metric in [*TABLE_3, *SEEN_TO_UNSEEN]:
        assert base in PAPER_BASES and metric in METRICS and task in ("recent", "counterfact", "convsent", "zsre")
    assert not any(task == "convsent" for base, task, _ in TABLE_3 if base == "llama-2-7b")


def test_the_three_headline_gains_come_out() -> None:
    assert round(headline_gain("gpt2-xl", held_out=True), 2) == 14.86
    assert round(headline_gain("gpt2-xl", held_out=False), 2) == 5.80
    assert round(headline_gain("llama-2-7b", held_out=False), 2) == 0.83


def test_the_unedited_base_agrees_with_itself_in_the_paper_too() -> None:
    assert {values[0] for (_, _, metric), values in TABLE_3.items() if metric == "locality"} == {100}


def test_graces_held_out_row_equals_base_and_is_not_comparable() -> None:
    for base in PAPER_BASES:
        for metric in METRICS[:4]:
            cell = paper_number(base, "zsre", "GRACE", metric)
            unedited = paper_number(base, "zsre", "Base", metric)
            assert cell is not None and unedited is not None and cell.value == unedited.value
            assert (cell.comparable, unedited.comparable) == (False, True)
    assert paper_number("gpt2-xl", "recent", "GRACE", "reliability") == PaperCell(99.68, greedy=True)


@pytest.mark.parametrize(
    "row, value",
    [
        ("MEND", 74.26),
        ("InstructEdit", 80.81),
        ("InstructEdit (seen)", 80.81),
        ("InstructEdit (unseen)", 80.4),
        ("MEND (seen)", None),
        ("MEND, 10 together", None),
        ("My method", None),
    ],
)
def test_rows_find_their_number(row: str, value: float | None) -> None:
    assert paper_number("gpt2-xl", "counterfact", row, "reliability") == (None if value is None else PaperCell(value))


def test_what_is_not_published_is_none_and_another_base_is_refused() -> None:
    assert paper_number("llama-2-7b", "convsent", "MEND", "reliability") is None
    assert paper_number("llama-2-7b", "recent", "InstructEdit (unseen)", "reliability") is None
    assert paper_number("gpt2-xl", "demo-counterfact", "MEND", "reliability") is None
    assert paper_number("gpt2-xl", "recent", "MEND", "success") is None
    with pytest.raises(InputError, match="Did you mean 'gpt2-xl'"):
        paper_number("gpt2xl", "recent", "MEND", "reliability")


@pytest.mark.parametrize(
    "paper, base, same",
    [
        ("gpt2-xl", "openai-community/gpt2-xl", True),
        ("gpt2-xl", "gpt2", False),
        ("llama-2-7b", "/models/Llama-2-7b-hf/", True),
        ("llama-2-7b", "meta-llama/Llama-2-7b-chat-hf", False),
        ("gpt2-xl", "smollm2-135m", False),
    ],
)
def test_the_papers_base_is_known_by_its_name(paper: str, base: str, same: bool) -> None:
    assert is_paper_base(paper, base) == same
