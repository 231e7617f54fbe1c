"""Which settings differ, and which runs are one experiment with several seeds."""

from instructedit.comparison.runs import Cell, ComparedRun, Curve
from instructedit.comparison.sections import seeds
from instructedit.comparison.settings import differing, seed_groups, texts


def run(name: str, **config: object) -> ComparedRun:
    return ComparedRun(name, name, settings=texts(config))


def test_only_what_differs_and_null_is_as_good_as_absent() -> None:
    a = run("a", model={"lr": 1e-3, "sites": [1, 2], "new": None}, run={"name": "a"}, dtype="bf16")
    b = run("b", model={"lr": 0.001, "sites": [1, 3]}, run={"name": "b"}, extra=True)
    assert differing([a, b]) == {"model.sites": ["[1, 2]", "[1, 3]"], "dtype": ["bf16", "-"], "extra": ["-", "true"]}


def test_what_is_not_known_of_a_run_makes_no_difference() -> None:
    a = ComparedRun("a", "a", settings={"lr": "1"}, facts={"commit": "x", "data zsre/test": "1"})
    b = ComparedRun("b", "b", facts={"commit": "y"})
    assert differing([a, b]) == {"commit": ["x", "y"]}


def test_seeds_are_grouped_and_repeats_alone_are_not() -> None:
    runs = [
        run("a0", lr=1, seed_everything=0, data={"seed": 0}),
        run("b0", lr=2, seed_everything=0, data={"seed": 0}),
        run("a1", lr=1, seed_everything=1, data={"seed": 1}),
        run("b0 again", lr=2, seed_everything=0, data={"seed": 0}),
    ]
    assert [[each.name for each in group] for group in seed_groups(runs)] == [["a0", "a1"]]


def test_the_mean_and_spread_over_seeds() -> None:
    def made(seed: int, score: float, share: float | None) -> ComparedRun:
        cells = {} if share is None else {("zsre", "MEND", "reliability"): Cell(share)}
        curves = {"val/score": Curve([10], [score])}
        return ComparedRun(f"s{seed}", "", {"seed_everything": str(seed)}, curves=curves, cells=cells)

    section = seeds([made(0, 80.0, 0.5), made(1, 84.0, 0.6), made(2, 82.0, None)])
    assert section is not None and [text.value for text in section.rows[0]] == [
        "s0, s1, s2", "zsre", "3", "82.0 ± 2.0", "55.0 ± 7.1",
    ]  # fmt: skip
    assert section.rows[0][-1].under == "(2)"
    assert seeds([made(0, 80.0, 0.5)]) is None
