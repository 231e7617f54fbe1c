"""The table of definitions is whole, and the page shows the same one."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from instructedit.errors import InputError
from instructedit.evaluation.definitions import DEFINITIONS, Definition, explain, to_page
from instructedit.evaluation.generated import Generated
from instructedit.evaluation.metrics import LOOK_AHEAD, NAMES, UNITS

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")


def test_every_number_an_outcome_can_hold_is_defined_and_said_apart() -> None:
    assert tuple(DEFINITIONS) == NAMES
    assert all(getattr(each, field.name).strip() for each in DEFINITIONS.values() for field in fields(Definition))
    assert len({each.meaning for each in DEFINITIONS.values()}) == len(NAMES)
    for name, each in DEFINITIONS.items():
        assert ("percent" in each.range) == (name != "fluency") == (UNITS.get(name, "share") == "share")


def test_explain_holds_the_whole_row_and_what_its_letters_mean() -> None:
    for name, each in DEFINITIONS.items():
        text = explain(name)
        assert text.startswith(name + "\n")
        assert all(part in text for part in (each.formula, each.meaning, each.source, each.range))
        assert "x is an input" in text
    with pytest.raises(InputError, match="Unknown metric 'relyability'. Did you mean 'reliability'.*Known:"):
        explain("relyability")


def test_the_page_ends_in_the_modules_table() -> None:
    """Where this fails: replace what follows the heading Table by what ``to_page`` returns."""
    assert PAGE.split("\n## Table\n\n")[1] == to_page()
    rows = [line for line in to_page().splitlines() if line.startswith("| `")]
    assert len(rows) == len(NAMES)
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 6 for row in rows)


def test_the_settings_that_are_stated_are_the_defaults() -> None:
    settings = Generated()
    for name in ("fluency_tokens", "top_k", "seed"):
        assert f"`{name}` ({getattr(settings, name)})" in PAGE
    assert f"and {LOOK_AHEAD} more" in PAGE
    assert f"{settings.fluency_tokens} tokens, each drawn from the {settings.top_k} likeliest" in explain("fluency")
