"""Two rows compared record by record: known differences, chance told from gain, and what it looks like."""

import io
import random

import pytest
from rich.console import Console

from instructedit.errors import InputError
from instructedit.evaluation import paired
from instructedit.evaluation.intervals import estimate, holm, sign_flip_p
from instructedit.evaluation.paired import compare_rows, find_row, paired_difference, to_markdown, to_rich
from instructedit.records import Outcome


def row(method: str, values: list[float], metric: str = "reliability", task: str = "recent") -> list[Outcome]:
    return [Outcome(f"r{number}", task, method, metric, value) for number, value in enumerate(values)]


def spread(n: int, seed: int = 0) -> list[float]:
    drawing = random.Random(seed)
    return [drawing.random() * 0.5 for _ in range(n)]


def test_a_constant_gain_is_found_to_the_last_digit_however_much_records_differ() -> None:
    base = spread(30)
    outcomes = [*row("A", [value + 0.25 for value in base]), *row("B", base)]
    found = paired_difference(outcomes, "A", "B", "reliability", "recent")
    assert (found.mean, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25)) and found.n == 30
    assert found.significant and found.p == 1 / 10_000
    back = paired_difference(outcomes, "B", "A", "reliability", "recent")
    assert (back.mean, back.low, back.high, back.p) == pytest.approx((-0.25, -0.25, -0.25, found.p))
    assert back.significant


def test_identical_rows_differ_by_nothing() -> None:
    found = paired_difference([*row("A", spread(20)), *row("B", spread(20))], "A", "B", "reliability", "recent")
    assert (found.mean, found.low, found.high, found.p) == (0, 0, 0, 1) and not found.significant


def test_only_records_that_both_have_count() -> None:
    outcomes = [*row("A", [0.5, 0.75, 1.0, 1.0]), *row("B", [0.25, 0.25])]
    outcomes += [*row("B", [0.0] * 4, "locality"), *row("B", [0.0] * 4, task="zsre")]
    found = paired_difference(outcomes, "A", "B", "reliability", "recent")
    assert (found.mean, found.n) == (0.375, 2)
    expected = estimate([0.25, 0.5])
    assert (found.low, found.high, found.p) == (expected.low, expected.high, sign_flip_p([0.25, 0.5]))


def test_the_interval_covers_the_true_difference_about_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired, "FLIPS", 9)  # the p-values are not looked at
    drawing = random.Random(1)
    covered = 0
    for trial in range(200):
        second = [drawing.gauss(0.4, 0.3) for _ in range(40)]
        first = [value + drawing.gauss(0.1, 0.2) for value in second]
        outcomes = [*row("A", first), *row("B", second)]
        found = paired_difference(outcomes, "A", "B", "reliability", "recent", draws=300, seed=trial)
        covered += found.low <= 0.1 <= found.high
    assert 0.89 <= covered / 200 <= 0.98


def test_unknown_rows_and_rows_without_common_records_are_refused() -> None:
    outcomes = [*row("MEND", [0.5]), *row("GRACE", [0.5], task="zsre")]
    with pytest.raises(InputError, match="Unknown row 'MENDD'. Did you mean 'MEND'"):
        paired_difference(outcomes, "GRACE", "MENDD", "reliability", "recent")
    with pytest.raises(InputError, match="no record of recent in common .* [(]0 and 1 records[)]"):
        paired_difference(outcomes, "GRACE", "MEND", "reliability", "recent")
    with pytest.raises(InputError, match="No other row has a record in common with MEND"):
        compare_rows(outcomes, "MEND")
    with pytest.raises(InputError, match="Unknown row 'Ft'"):
        compare_rows(outcomes, "Ft")


def test_case_matters_only_where_it_must() -> None:
    outcomes = [*row("MEND", [0.5]), *row("A", [0.5]), *row("a", [0.5])]
    assert (find_row(outcomes, "mend"), find_row(outcomes, "a"), find_row(outcomes, "A")) == ("MEND", "a", "A")
    with pytest.raises(InputError, match="Unknown row"):
        find_row([*row("Ab", [0.5]), *row("aB", [0.5])], "ab")


def three_rows() -> list[Outcome]:
    """Against B: A gains surely in one cell and perhaps in another; C is B."""
    base = spread(30)
    gain = [0.3, -0.2] * 10 + [0.05] * 10
    made = [*row("B", base), *row("A", [value + 0.3 for value in base]), *row("C", base)]
    made += [*row("B", base, "locality"), *row("A", [v + g for v, g in zip(base, gain, strict=True)], "locality")]
    return [*made, *row("B", [600.0] * 30, "fluency"), *row("A", [601.5] * 30, "fluency")]


def test_every_other_row_is_compared_in_every_cell_both_have() -> None:
    found = compare_rows(three_rows(), "b", metrics=("reliability", "locality"))
    assert [(cell.method, cell.metric, cell.against) for cell in found] == [
        ("A", "reliability", "B"),
        ("A", "locality", "B"),
        ("C", "reliability", "B"),
    ]
    for cell in found:
        assert cell.estimate == paired_difference(three_rows(), cell.method, "B", cell.metric, cell.task)
    assert [cell.p_holm for cell in found] == pytest.approx(holm([cell.estimate.p for cell in found]))
    assert [cell.verdict for cell in found] == ["yes", "no", "no"]


def test_variants_are_compared_by_their_own_names() -> None:
    made = [*row("A", [1.0, 0.0], "reliability_greedy"), *row("B", [0.0, 0.0], "reliability_greedy"), *three_rows()]
    (cell,) = compare_rows(made, "B", variant="greedy")
    assert (cell.metric, cell.estimate.mean, cell.estimate.n) == ("reliability", 0.5, 2)


def test_among_many_cells_one_small_p_is_not_enough() -> None:
    gain = [0.2, -0.1] * 8 + [0.2] * 4
    base = spread(20)
    made = row("B", base)
    made += row("A", [value + change for value, change in zip(base, gain, strict=True)])
    alone = compare_rows(made, "B")
    assert [cell.verdict for cell in alone] == ["yes"] and 0.005 < alone[0].estimate.p < 0.05
    for number in range(20):
        made += row(f"C{number}", [value + 0.2 * (-1) ** at for at, value in enumerate(base)])
    crowded = compare_rows(made, "B")
    assert crowded[0].estimate == alone[0].estimate and crowded[0].verdict == "alone"


def test_many_sure_gains_stay_significant_among_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired, "FLIPS", 99)
    made = row("B", [0.1] * 20)
    for number in range(6):
        made += row(f"A{number}", [0.3] * 20)
    # Of 99 patterns of signs the smallest p there is would be 0.01, six times that more than 0.05.
    assert {cell.verdict for cell in compare_rows(made, "B")} == {"yes"}


def test_markdown_says_the_difference_its_interval_and_the_verdict() -> None:
    lines = to_markdown(compare_rows(three_rows(), "B")).splitlines()
    assert lines[0] == "## Against B, record by record"
    assert lines[2] == "| task | row | metric | difference | n | p | Holm p | significant |"
    assert lines[4] == "| recent | A | reliability | +30.0 [+30.0, +30.0] | 30 | 0.0001 | 0.0004 | yes |"
    assert lines[6] == "| recent | A | fluency | +1.5 [+1.5, +1.5] | 30 | 0.0001 | 0.0004 | yes |"
    assert lines[7] == "| recent | C | reliability | 0.0 [0.0, 0.0] | 30 | 1.0000 | 1.0000 | no |"
    assert "row minus B" in lines[-1] and "the 4 cells" in lines[-1] and "sign-flip" in lines[-1]


def test_rich_shows_the_same_without_markup() -> None:
    outcomes = [Outcome(o.id, o.task, "[b]" if o.method == "A" else o.method, o.metric, o.value) for o in three_rows()]
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(to_rich(compare_rows(outcomes, "B")))
    lines = [" ".join(line.split()) for line in console.export_text().splitlines()]
    assert "task, row metric difference n p Holm p significant" in lines and "recent" in lines
    assert len(to_rich(compare_rows(outcomes, "B")).columns) == 7
    assert "[b] reliability +30.0 [+30.0, +30.0] 30 0.0001 0.0004 yes" in lines
    assert "C reliability 0.0 [0.0, 0.0] 30 1.0000 1.0000 no" in lines
