"""Tables of outcomes: averages, subsets, and what they look like."""

import inspect
import io
from pathlib import Path

import pytest
from rich.console import Console

from instructedit.commands.prepare import prepare
from instructedit.errors import InputError
from instructedit.evaluation.intervals import estimate
from instructedit.evaluation.tables import (
    from_jsonl,
    missed_by,
    summarise,
    to_jsonl,
    to_markdown,
    to_rich,
)
from instructedit.records import Outcome


def outcomes() -> list[Outcome]:
    """Two tasks, two methods; portability on one record of one task alone; Base knows one record."""
    made = []
    for task in ("recent", "zsre"):
        for method, gain in (("Base", 0.0), ("Editor (seen)", 0.5)):
            for number in range(4):
                known = number == 3
                value = 1.0 if known else gain + number / 10
                made += [
                    Outcome(f"r{number}", task, method, "reliability", value, 3, 1),
                    Outcome(f"r{number}", task, method, "reliability_exact", float(known or (gain > 0 and number > 1))),
                    Outcome(f"r{number}", task, method, "locality", 1 - gain),
                ]
            if task == "recent":
                made.append(Outcome("r0", task, method, "portability", 0.25))
    return made


def test_averages_over_examples_in_order_of_appearance() -> None:
    lines = summarise(outcomes())
    assert [(line.task, line.method, line.n) for line in lines] == [
        ("recent", "Base", 4),
        ("recent", "Editor (seen)", 4),
        ("zsre", "Base", 4),
        ("zsre", "Editor (seen)", 4),
    ]
    assert lines[1].cells["reliability"] == estimate([0.5, 0.6, 0.7, 1.0])
    assert lines[1].cells["locality"].mean == 0.5
    assert lines[0].cells["portability"].n == 1
    assert "portability" not in lines[2].cells and "generalization" not in lines[0].cells


def test_methods_measured_one_after_the_other_stay_together_by_task() -> None:
    apart = sorted(outcomes(), key=lambda outcome: outcome.method)
    assert [line.task for line in summarise(apart)] == ["recent", "recent", "zsre", "zsre"]


def test_exact_seed_and_columns() -> None:
    line = summarise(outcomes(), exact=True)[1]
    assert line.cells["reliability"].mean == 0.5
    assert set(line.cells) == {"reliability"}
    assert set(summarise(outcomes(), metrics=["locality"])[0].cells) == {"locality"}
    assert summarise(outcomes(), draws=10, seed=1) != summarise(outcomes(), draws=10, seed=2)
    assert summarise(outcomes(), draws=10) != summarise(outcomes(), draws=30)


def test_the_examples_base_gets_wrong() -> None:
    kept = missed_by(outcomes())
    assert {outcome.id for outcome in kept} == {"r0", "r1", "r2"}
    assert {outcome.method for outcome in kept} == {"Base", "Editor (seen)"}
    assert summarise(kept)[1].cells["reliability"].mean == pytest.approx(0.6)
    assert {outcome.id for outcome in missed_by(outcomes(), "Editor (seen)")} == {"r0", "r1"}
    with pytest.raises(InputError, match="Nobody"):
        missed_by(outcomes(), "Nobody")


def test_an_id_is_missed_in_its_own_task_only() -> None:
    made = [
        Outcome("same", "a", "Base", "reliability_exact", 0.0),
        Outcome("same", "b", "Base", "reliability_exact", 1.0),
    ]
    assert missed_by(made) == made[:1]


def test_a_record_counted_twice_is_refused() -> None:
    with pytest.raises(InputError, match="two values of reliability"):
        summarise([*outcomes(), outcomes()[0]])


def test_markdown() -> None:
    text = to_markdown(summarise(outcomes()), "Test records")
    lines = text.splitlines()
    assert lines[0] == "## Test records"
    assert lines[2] == "| task | method | n | reliability | generalization | locality | portability |"
    assert lines[3] == "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
    assert lines[5].startswith("| recent | Editor (seen) | 4 | 70.0 [")
    assert lines[5].endswith("| - | 50.0 [50.0, 50.0] | 25.0 [25.0, 25.0] (1) |")
    assert lines[6].endswith("| - | 100.0 [100.0, 100.0] | - |")
    assert to_markdown(summarise([Outcome("r", "a|b", "m", "reliability", 1.0)])).count("a\\|b") == 1


def test_success_has_a_column_and_a_legend_where_a_row_has_it() -> None:
    without, also = outcomes(), [*outcomes(), Outcome("r0", "convsent", "Base", "success", 0.5)]
    assert "uccess" not in to_markdown(summarise(without))
    lines = to_markdown(summarise(also)).splitlines()
    assert lines[0] == "| task | method | n | reliability | generalization | locality | portability | success |"
    assert lines[2].endswith("| - |")
    assert lines[6] == "| convsent | Base | 1 | - | - | - | - | 50.0 [50.0, 50.0] |"
    assert "Success, of convsent alone" in lines[-1]
    assert "success" not in to_markdown(summarise(also, exact=True)).splitlines()[0]


def test_the_legend_says_what_the_columns_are_measured_on() -> None:
    legend = to_markdown(summarise(outcomes())).splitlines()[-1]
    for word in ("Subject_Aliasing", "unedited base", "--max-probes"):
        assert word in legend
    default = inspect.signature(prepare).parameters["max_probes"].default
    assert f"({default} by default)" in legend


def test_rich_fits_a_terminal_of_100() -> None:
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(to_rich(summarise([*outcomes(), Outcome("r0", "zsre", "[b]", "reliability", 1.0)]), "Test records"))
    lines = [line.strip() for line in console.export_text().splitlines()]
    assert lines[0] == "Test records" and "bootstrap" in " ".join(lines)
    at = lines.index("zsre")
    assert lines[at + 3].split() == ["Editor", "(seen)", "4", "70.0", "-", "50.0", "-"]
    assert lines[at + 4].startswith("[") and lines[at + 4].endswith("[50.0, 50.0]")
    assert lines[at + 5].split() == ["[b]", "1", "100.0", "-", "-", "-"]


def test_jsonl_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "results" / "test.jsonl"
    strange = Outcome("é\u2028x", "t", "m", "reliability", 1 / 3, 2, 1)
    to_jsonl(path, [*outcomes(), strange], {"commit": "abc", "dirty": True})
    assert from_jsonl(path) == [*outcomes(), strange]
    assert '"commit": "abc", "dirty": true' in path.read_text().split("\n")[0]
    to_jsonl(path, [strange])
    assert from_jsonl(path) == [strange]
    assert [each.name for each in path.parent.iterdir()] == ["test.jsonl"]


def test_bad_jsonl(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    with pytest.raises(InputError, match="No results"):
        from_jsonl(path)
    to_jsonl(path, outcomes())
    path.write_text(path.read_text() + '{"id": "r0"}\n')
    with pytest.raises(InputError, match=f"line {len(outcomes()) + 1} is not an outcome"):
        from_jsonl(path)
    with pytest.raises(ValueError, match="value"):
        to_jsonl(path, outcomes(), {"value": 1})
