"""The analyses of a study's runs: numbers against the rule that made the outcomes, what is missing, files."""

import csv
import dataclasses
from pathlib import Path

import pytest

from instructedit.analysis.balance import balance, shares
from instructedit.analysis.instructions import instructions, verdict
from instructedit.analysis.seeds import Pooled
from instructedit.analysis.sensitivity import sensitivity
from instructedit.analysis.sweep import Findings, Sweep, advice
from instructedit.analysis.tasks import tasks
from instructedit.analysis.transfer import transfer
from instructedit.errors import InputError
from instructedit.study.plan import Study, StudyRun, read_study
from instructedit.study.results import Results
from tests.analysis.made_study import PLAN, ROOT, make, without

ANALYSES = {f.__name__: f for f in (transfer, tasks, balance, instructions, sensitivity)}


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # the plan names configurations from there


@pytest.fixture
def study() -> Study:
    return read_study(PLAN)


def mean(found: Pooled | None) -> float:
    assert found is not None
    return found.mean


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_transfer_has_every_editor_on_every_task_and_the_drop(study: Study, tmp_path: Path) -> None:
    found = transfer(study, make(tmp_path / "results", records=12), tmp_path / "out")
    assert found.missing == ()
    assert [path.name for path in found.files] == [
        "transfer.csv",
        "transfer.png",
        "transfer.svg",
        "transfer-own.png",
        "transfer-own.svg",
    ]
    table = {(x["part"], x["against"], x["task"], x["metric"]): x for x in lines(found.files[0])}
    assert len(table) == len(found.numbers)
    editors = ["MEND on recent", "MEND on counterfact", "MEND on convsent", "MEND on all", "InstructEdit on all"]
    assert list(dict.fromkeys(key[0] for key in table)) == editors
    value = table["MEND on recent", "", "counterfact", "reliability"]
    own = table["MEND on counterfact", "", "counterfact", "reliability"]
    drop = table["MEND on recent", "MEND on counterfact", "counterfact", "reliability"]
    assert float(drop["value"]) == pytest.approx(float(value["value"]) - float(own["value"]), abs=1e-3)
    assert float(drop["low"]) < float(drop["value"]) < float(drop["high"]) < 0
    assert (value["paper"], own["paper"], drop["paper"]) == ("59.12", "84.62", "-25.5")
    assert (value["trained"], own["trained"], value["unit"], drop["unit"]) == ("no", "yes", "%", "points")
    # zsre has no editor of its own to be compared with, and convsent no rephrases.
    assert not any(key[1] and key[2] == "zsre" for key in table)
    assert table["MEND on recent", "", "convsent", "generalization"]["value"] == ""
    gain = table["InstructEdit on all", "MEND on recent", "recent", "reliability"]
    assert (gain["seeds"], table["InstructEdit on all", "", "recent", "reliability"]["seeds"]) == ("1", "3")


@pytest.mark.slow
def test_tasks_mark_what_was_trained_and_have_the_papers_curve(study: Study, tmp_path: Path) -> None:
    found = tasks(study, make(tmp_path / "results", records=12), tmp_path / "out")
    rows = [x for x in lines(tmp_path / "out/tasks.csv") if x["metric"] == "reliability" and not x["against"]]
    assert [x["trained"] for x in rows if x["task"] == "counterfact"] == ["no", "yes", "yes"]
    assert [x["trained"] for x in rows if x["task"] == "zsre"] == ["no"] * 3
    assert [x["paper"] for x in rows if x["task"] == "zsre"] == ["6", "49", "82"]
    assert [x["paper"] for x in rows if x["task"] == "convsent"] == [""] * 3
    assert mean(found.find("3", "zsre", "reliability", "1")) > 0.1
    assert any(said.startswith("Held-out zsre, reliability: 3 training tasks minus 1: +") for said in found.statements)


@pytest.mark.slow
def test_balance_compares_with_the_first_and_says_the_shares(study: Study, tmp_path: Path) -> None:
    def rule(run: StudyRun, row: str, task: str, metric: str) -> float:
        return 0.5 + 0.1 * (run.name == "balance-capped" and task == "zsre")

    found = balance(study, make(tmp_path / "results", rule=rule, records=12), tmp_path / "out")
    assert mean(found.find("capped", "zsre", "reliability", "full")) == pytest.approx(0.1, abs=0.06)
    assert mean(found.find("full", "in distribution", "reliability")) == pytest.approx(0.5, abs=0.12)
    section = Sweep(study, Results(study, tmp_path / "results"), "balance")
    assert shares(study, section.part("x", "balance-full")) == "3 / 9 / 88 %"
    assert shares(study, section.part("x", "instructedit-0")) == "40 / 40 / 20 %"


@pytest.mark.slow
def test_instructions_are_seen_minus_each_control(study: Study, tmp_path: Path) -> None:
    found = instructions(study, make(tmp_path / "results"), tmp_path / "out")
    assert mean(found.find("seen", "recent", "reliability", "empty")) == pytest.approx(0.16, abs=0.06)
    assert mean(found.find("seen", "in distribution", "generalization", "filler")) == pytest.approx(0.09, abs=0.04)
    assert (tmp_path / "out/instructions.md").read_text().count("| filler |") == 2
    assert found.statements[0].startswith("In distribution, reliability: the instruction does more than a text as long")


@pytest.mark.slow
def test_rows_that_are_not_asked_are_left_out(study: Study, tmp_path: Path) -> None:
    runs = tuple(dataclasses.replace(r, controls=("empty",)) if r.controls else r for r in study.runs)
    smaller = dataclasses.replace(study, runs=runs)
    found = instructions(smaller, make(tmp_path / "results", study=smaller, records=8), tmp_path / "out")
    assert {number.part for number in found.numbers} == {"seen", "unseen", "empty"}
    assert found.statements[0].endswith("cannot be said before the rows filler and empty are there.")
    bare = dataclasses.replace(study, analyses={"instructions": {"runs": ["mend-0"]}})
    with pytest.raises(InputError, match="not asked with seen"):
        instructions(bare, make(tmp_path / "bare", ["mend-0"], study=bare, records=8), tmp_path / "out")


@pytest.mark.parametrize(
    ("filler", "empty", "wrong", "said"),
    [
        ((0.02, 0.05), (0.03, 0.06), (0.01, 0.02), "the instruction does more than a text as long"),
        ((0.02, 0.05), (0.03, 0.06), (-0.01, 0.02), "Seen is not told apart from another task's instruction"),
        ((0.02, 0.05), (-0.03, 0.06), (0.01, 0.02), "is not shown to do more than the bare prompt"),
        ((-0.01, 0.02), (0.03, 0.06), (0.01, 0.02), "this shows a longer prompt, not the instruction"),
        ((-0.01, 0.02), (-0.03, 0.06), (0.01, 0.02), "no effect shown"),
        ((-0.01, 0.02), (-0.06, -0.03), (0.01, 0.02), "the bare prompt does better than the instruction"),
        ((-0.05, -0.02), (0.03, 0.06), (-0.04, -0.02), "the instruction hurts against a text as long"),
        ((-0.05, -0.02), (0.03, 0.06), (-0.04, -0.02), "Seen does WORSE than another task's instruction"),
    ],
)
def test_the_verdict_says_also_what_hurts_the_claim(
    filler: tuple[float, float], empty: tuple[float, float], wrong: tuple[float, float], said: str
) -> None:
    given = {"filler": filler, "empty": empty, "wrong": wrong}
    assert said in verdict({name: Pooled(sum(ends) / 2, *ends, 100, 3) for name, ends in given.items()})


@pytest.mark.slow
def test_sensitivity_compares_with_the_value_that_every_setting_has(study: Study, tmp_path: Path) -> None:
    def rule(run: StudyRun, row: str, task: str, metric: str) -> float:
        return 0.5 - 0.2 * (run.name == "rank-64" and metric == "locality")

    found = sensitivity(study, make(tmp_path / "results", rule=rule, records=12), tmp_path / "out")
    assert mean(found.find("rank: 64", "held out", "locality", "rank: 256")) == pytest.approx(-0.2, abs=0.06)
    assert found.find("rank: 256", "held out", "locality", "rank: 256") is None
    assert {number.against for number in found.numbers} == {
        "",
        "weight of the edit loss: 0.1",
        "rank: 256",
        "direction: none",
        "sites: last 3",
    }
    # Settings may have more seeds than others: each compares with its own part.
    three, one = found.find("direction: site", "recent", "reliability", "direction: none"), "rank: 256"
    assert three is not None and three.n_seeds == 3
    other = found.find("rank: 512", "recent", "reliability", one)
    assert other is not None and other.n_seeds == 1
    assert sum("against" in statement for statement in found.statements) == 7


def test_a_usual_value_that_is_not_plain_is_not_guessed(study: Study, tmp_path: Path) -> None:
    results = make(tmp_path / "results", ["instructedit-0", "rank-64", "edit-0.3"], records=4)
    for section in (
        {"rank": {"64": "rank-64", "256": "instructedit-0"}},  # one setting alone has no such
        {"rank": {"64": "rank-64"}, "weight": {"0.1": "instructedit-0", "0.3": "edit-0.3"}},
        {"rank": {"a": "instructedit-0", "b": ["instructedit-0", "rank-64"]}, "weight": {"0.1": "instructedit-0"}},
    ):
        planned = dataclasses.replace(study, analyses={"sensitivity": section})
        found = sensitivity(planned, results, tmp_path / "out")
        assert {number.against for number in found.numbers} == {""}
        assert [statement.partition(":")[0] for statement in found.statements] == [
            "No value is compared with the usual one"
        ]


PARTIAL = ("mend-counterfact", "instructedit-1", "instructedit-recent-counterfact", "balance-full", "rank-64")


@pytest.mark.slow
@pytest.mark.parametrize("name", ANALYSES)
def test_a_partial_sweep_draws_what_is_there_and_names_the_rest(name: str, study: Study, tmp_path: Path) -> None:
    results = make(tmp_path / "results", without(study, *PARTIAL), records=8)
    found = ANALYSES[name](study, results, tmp_path / "out")
    assert found.missing and set(found.missing) <= set(PARTIAL)
    assert all(path.stat().st_size > 0 for path in found.files)
    rows = [x for x in lines(tmp_path / f"out/{name}.csv") if x["missing"]]
    # A part without any run has empty cells; one that lacks a seed has the other ones'.
    for row in rows:
        assert set(row["missing"].split()) <= set(found.missing)
    svg = next(path for path in found.files if path.suffix == ".svg").read_text()
    assert "NOT MADE YET" in svg
    wanted = {"transfer": "MEND on counterfact", "tasks": "2", "balance": "full", "sensitivity": "rank: 64"}
    if name in wanted:
        own = [x for x in rows if x["part"] == wanted[name] and x["metric"] == "reliability"]
        assert own and all(x["value"] == x["low"] == x["seeds"] == "" for x in own)
    else:
        assert {x["seeds"] for x in rows if x["value"]} == {"2"}


def test_nothing_there_is_refused_with_the_command(study: Study, tmp_path: Path) -> None:
    results = make(tmp_path / "results", ["base"], records=4)
    for analysis in ANALYSES.values():
        with pytest.raises(InputError, match=r"Nothing to draw.*`instructedit reproduce --study P --out .* --only "):
            analysis(study, results, tmp_path / "out", "P")
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="no section analyses.tasks"):
        tasks(dataclasses.replace(study, analyses={}), results, tmp_path / "out")


@pytest.mark.slow
def test_the_same_results_give_the_same_bytes(study: Study, tmp_path: Path) -> None:
    results = make(tmp_path / "results", ["instructedit-recent"], records=8)
    first, again = (tasks(study, results, tmp_path / name) for name in ("a", "b"))
    for one, other in zip(first.files, again.files, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_planned_seeds_are_paired_also_where_some_are_missing(study: Study, tmp_path: Path) -> None:
    def rule(run: StudyRun, row: str, task: str, metric: str) -> float:
        return 0.3 + 0.2 * int(run.name[-1])  # by seed; methods do not differ

    there = ["instructedit-0", "instructedit-2", "mend-1", "mend-2"]
    results = make(tmp_path / "results", there, rule, records=30)
    sweep = Sweep(study, results, "transfer")
    ours = sweep.part("ours", ["instructedit-0", "instructedit-1", "instructedit-2"])
    theirs = sweep.part("theirs", ["mend-0", "mend-1", "mend-2"])
    gain = sweep.gain(ours, theirs, "recent", "reliability")
    assert mean(gain.found) == pytest.approx(0.0, abs=0.05)
    assert gain.found is not None and gain.found.n_seeds == 1
    assert gain.missing == ("mend-0", "instructedit-1")


def test_advice_names_runs_as_flags_take_them(study: Study, tmp_path: Path) -> None:
    usual = Results(study, f"results/study/{study.name}")
    assert advice("p.yaml", usual, []) == []
    assert advice("p.yaml", usual, ["a", "b"]) == [
        "missing a, b",
        "make    instructedit reproduce --study p.yaml --only a,b",
        "or      instructedit submit --array only=a,b -- reproduce --study p.yaml    (on SLURM)",
    ]
    assert f"--out {tmp_path} --only a" in advice("p.yaml", Results(study, tmp_path), ["a"])[1]


def test_a_row_that_a_run_lacks_is_refused(study: Study, tmp_path: Path) -> None:
    sweep = Sweep(study, Results(study, tmp_path), "transfer")
    with pytest.raises(InputError, match="no row 'InstructEdit \\(seen\\)'"):
        sweep.part("mixed", ["instructedit-0", "mend-0"])
    with pytest.raises(InputError, match="names no run for 'none'"):
        sweep.part("none", [])


def test_findings_without_a_number_have_none() -> None:
    assert Findings("tasks", (), ()).find("1", "zsre", "reliability") is None
