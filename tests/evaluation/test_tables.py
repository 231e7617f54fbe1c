"""Lines of a table: averages, variants, subsets; and outcomes kept in files."""

from pathlib import Path

import pytest

from instructedit.errors import InputError
from instructedit.evaluation.intervals import estimate
from instructedit.evaluation.metrics import METRICS, NAMES, VARIANTS
from instructedit.evaluation.tables import from_jsonl, missed_by, summarise, to_jsonl
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


def test_variant_seed_and_columns() -> None:
    line = summarise(outcomes(), variant="exact")[1]
    assert line.cells["reliability"].mean == 0.5
    assert set(line.cells) == {"reliability"}
    assert set(summarise(outcomes(), metrics=["locality"])[0].cells) == {"locality"}
    assert summarise(outcomes(), draws=10, seed=1) != summarise(outcomes(), draws=10, seed=2)
    assert summarise(outcomes(), draws=10) != summarise(outcomes(), draws=30)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_takes_its_own_numbers_and_leaves_out_what_has_none(variant: str) -> None:
    made = [Outcome("r0", "convsent", "MEND", name, float(place)) for place, name in enumerate(NAMES)]
    (line,) = summarise(made, variant=variant)
    metrics = METRICS if variant == "" else METRICS[:4]
    assert tuple(line.cells) == metrics
    for metric in metrics:
        assert line.cells[metric].mean == NAMES.index(f"{metric}_{variant}" if variant else metric)


def test_an_unknown_variant_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="greedy_exact"):
        summarise(outcomes(), variant="sampled")


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
