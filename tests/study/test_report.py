"""The report on planted outcomes: verdicts, numbers, what is missing, and what must never get in."""

import csv
import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from instructedit.analysis.seeds import Pooled
from instructedit.base.smollm2 import HUB_ID
from instructedit.errors import InputError
from instructedit.study.compute import what_made
from instructedit.study.evidence import Evidence
from instructedit.study.gradients import gradients_there
from instructedit.study.numbers import Numbers
from instructedit.study.plan import read_study
from instructedit.study.report import all_claims, write_report
from instructedit.study.separation_claim import Separation, separation_table
from instructedit.study.verdict import Claim, Part, decide
from tests.study.made import PLAN, SECRET, Mean, flat, gradients_of, make

DRAWS = 100
SEEN = "InstructEdit (seen)"


def claims(folder: Path, mean: Mean = flat, without: Iterable[str] = (), figures: str = "none") -> dict[str, Claim]:
    study, results = make(folder / "results", mean, without)
    return {claim.key: claim for claim in all_claims(Evidence(Numbers(study, results, DRAWS)), folder / figures)}


@pytest.fixture(scope="module")
def nothing_planted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Claim]:
    """The claims where no method differs from any other."""
    return claims(tmp_path_factory.mktemp("flat"))


def plant(row: str, by: float, tasks: tuple[str, ...], metric: str = "reliability") -> Mean:
    """A row that is off by so much, on some tasks, in one metric."""

    def mean(run: str, of: str, task: str, name: str) -> float:
        return flat(run, of, task, name) + (by if (of, name) == (row, metric) and task in tasks else 0.0)

    return mean


def part(low: float, high: float, **given: object) -> Part:
    return Part("a number", Pooled((low + high) / 2, low, high, 10, 1), **given)  # type: ignore[arg-type]


MET, UNMET, OPPOSED, MISSING = part(0.1, 0.2), part(-0.1, 0.2), part(-0.2, -0.1), Part("a number", None)


@pytest.mark.parametrize(
    "parts, verdict",
    [
        ([MET, MET], "holds"),
        ([MET, UNMET], "holds in part"),
        ([MET, MET, OPPOSED], "holds in part"),
        ([MET, OPPOSED], "does not hold"),
        ([UNMET, OPPOSED], "does not hold"),
        ([MET, MISSING], "not tested yet"),
        ([OPPOSED, MISSING], "not tested yet"),
        ([], "not tested yet"),
        ([MET, part(-0.2, -0.1, counts=False)], "holds"),
        ([part(-0.2, -0.1, counts=False)], "not tested yet"),
        ([part(-0.2, -0.1, side="below")], "holds"),
        ([part(0.01, 0.03, side="below", bound=0.04)], "holds"),
        ([part(0.01, 0.05, side="below", bound=0.04)], "does not hold"),
    ],
)
def test_the_rule(parts: list[Part], verdict: str) -> None:
    assert decide(parts) == verdict


def test_a_planted_gain_holds_and_no_gain_does_not(tmp_path: Path, nothing_planted: dict[str, Claim]) -> None:
    trained = claims(tmp_path / "a", plant(SEEN, 0.2, ("recent", "counterfact", "convsent")))
    assert trained["reliability-trained"].verdict == "holds"
    assert trained["reliability-held-out"].verdict == "does not hold"
    assert trained["headline"].verdict == "holds"
    found = nothing_planted
    keys = ("reliability-trained", "reliability-held-out", "headline", "generalization", "best", "tasks", "transfer")
    assert {found[key].verdict for key in (*keys, "balance", "control-wrong", "control-empty")} == {"does not hold"}
    assert found["unseen"].verdict == "holds"  # nothing is lost


@pytest.mark.slow
def test_a_gain_on_one_task_holds_in_part_and_a_loss_is_said(tmp_path: Path) -> None:
    found = claims(tmp_path, plant(SEEN, 0.2, ("recent",)))
    assert found["reliability-trained"].verdict == "holds in part"
    assert [each.met for each in found["reliability-trained"].counted] == [True, False, False, True]
    lost = claims(tmp_path / "lost", plant(SEEN, -0.2, ("zsre",)))["reliability-held-out"]
    assert lost.verdict == "does not hold" and lost.counted[0].opposed


def test_the_three_gains_over_mend_have_the_papers_numbers(nothing_planted: dict[str, Claim]) -> None:
    found = nothing_planted
    assert [round(each.paper or 0, 2) for each in found["reliability-trained"].counted] == [0.08, 6.55, 10.76, 5.80]
    assert [round(each.paper or 0, 2) for each in found["reliability-held-out"].counted] == [42.04]
    assert [round(each.paper or 0, 2) for each in found["headline"].counted] == [14.86]


def test_claimed_is_only_what_the_papers_own_numbers_say(nothing_planted: dict[str, Claim]) -> None:
    found = nothing_planted
    counted = {
        key: [each.about for each in found[key].counted] for key in ("generalization", "locality", "portability")
    }
    assert counted == {
        "generalization": ["generalization, counterfact", "generalization, zsre (held out)"],
        "locality": ["locality, recent", "locality, counterfact"],
        "portability": ["portability, recent", "portability, counterfact"],
    }
    given_up = [round(each.paper or 0, 2) for each in found["given-up"].counted]
    assert given_up == [-2.31, -0.22, -4.24, -22.51, -23.11, -0.31]


def test_a_missing_run_is_not_tested_yet_and_named(tmp_path: Path) -> None:
    found = claims(tmp_path, plant(SEEN, 0.2, ("recent",)), without=["mend-0", "mend-1", "mend-2", "balance-full"])
    for key in ("reliability-trained", "headline", "best", "balance", "locality"):
        assert found[key].verdict == "not tested yet", key
    assert found["balance"].lacking == ("balance-full",)
    seed = claims(tmp_path / "seed", plant(SEEN, 0.2, ("recent",)), without=["mend-1", "mend-2"])["headline"]
    # Its number is there, of one seed of three: shown, and no verdict.
    assert seed.counted[0].met and seed.verdict == "not tested yet"
    assert found["grace"].verdict != "not tested yet"


def test_seeds_are_compared_in_pairs_of_those_that_both_have(tmp_path: Path) -> None:
    def mean(run: str, row: str, task: str, metric: str) -> float:
        return flat(run, row, task, metric) + {"0": 0.0, "1": 0.3, "2": 0.3}.get(run.rpartition("-")[2], 0.0)

    study, results = make(tmp_path, mean, without=["mend-1", "mend-2"])
    numbers = Numbers(study, results, DRAWS)
    gain = numbers.gain(numbers.row(SEEN), numbers.row("MEND"), ("recent",), "reliability")
    assert gain is not None and gain.n_seeds == 1
    assert gain.mean == pytest.approx(0.0, abs=1e-9)  # seeds 1 and 2 have no partner
    every = numbers.value(numbers.row(SEEN), ("recent",), "reliability")
    assert every is not None and (every.n_seeds, every.mean) == (3, pytest.approx(0.7))


@pytest.mark.slow
def test_an_unseen_instruction_may_lose_as_much_as_in_the_paper(tmp_path: Path) -> None:
    within = claims(tmp_path / "a", plant("InstructEdit (unseen)", -0.02, ("recent",), "generalization"))
    beyond = claims(tmp_path / "b", plant("InstructEdit (unseen)", -0.08, ("recent",), "generalization"))
    assert (within["unseen"].verdict, beyond["unseen"].verdict) == ("holds", "holds in part")


def test_controls_tell_whether_the_instruction_matters(tmp_path: Path) -> None:
    def mean(run: str, row: str, task: str, metric: str) -> float:
        high = metric == "reliability" and row in (SEEN, "InstructEdit (filler)")
        return flat(run, row, task, metric) + 0.2 * high

    found = claims(tmp_path, mean)
    assert found["control-wrong"].verdict == "holds"
    assert found["control-filler"].verdict == "does not hold"
    kept = [each for each in found["control-filler"].parts if "over MEND" in each.about]
    assert len(kept) == 2 and all(each.ours is not None and each.ours.low > 0.1 for each in kept)
    assert not found["control-filler"].of_paper


def test_transfer_and_tasks(tmp_path: Path) -> None:
    def mean(run: str, row: str, task: str, metric: str) -> float:
        away = run in ("mend-recent", "mend-counterfact", "mend-convsent") and run != f"mend-{task}"
        fewer = {"instructedit-recent": 0.3, "instructedit-recent-counterfact": 0.15}.get(run, 0.0)
        return flat(run, row, task, metric) - (0.3 if away else 0.0) - (fewer if task == "zsre" else 0.0)

    found = claims(tmp_path, mean)
    assert (found["transfer"].verdict, found["tasks"].verdict) == ("holds", "holds")
    drops = {each.paper for each in found["transfer"].counted}
    assert {25.50, 21.34, 7.33} <= drops
    assert [each.paper for each in found["tasks"].counted] == [43.0, 33.0]


def test_gradients_are_read_from_the_analysis_table(tmp_path: Path, nothing_planted: dict[str, Claim]) -> None:
    assert nothing_planted["gradients"].verdict == "not tested yet"
    table = tmp_path / "figures" / "gradients" / "differences.csv"
    table.parent.mkdir(parents=True)
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        head = ["editor", "gradients", "scale", "site", "measure", "value", "low", "high", "chance", "records"]
        writer.writerow(head)
        for measure, low in (("silhouette", 0.1), ("purity", 0.1), ("cosine_gap", -0.1)):
            for kind, scale, site, end in (
                ("transformed", "direction", "all", low),
                *(("raw", "direction", "all", 0.1), ("transformed", "size", "all", 0.1)),
                ("transformed", "direction", "model.layers.29.mlp.up_proj", 0.1),
            ):
                writer.writerow(["InstructEdit - MEND, all tasks", kind, scale, site, measure, 0.2, end, 0.3, "", 400])
        writer.writerow(["a - b", "transformed", "direction", "all", "silhouette", "", "", "", "", 400])  # no number
    gradients_of(read_study(PLAN), tmp_path / "figures")
    gradients = claims(tmp_path, figures="figures")["gradients"]
    assert gradients.verdict == "holds in part" and [part.met for part in gradients.counted] == [True, True, False]
    table.write_text("editor\nInstructEdit\n")
    with pytest.raises(InputError, match="separation"):
        claims(tmp_path, figures="figures")


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed",
    [
        {"records": 50},
        {"tasks": ["recent", "zsre"]},
        {"weights": {"instructedit-0": {"weights_sha256": "others"}}},
        {"editors": {"InstructEdit": {"recent": "mend-0"}}},
        {"editors": None},
    ],
)
def test_gradients_of_another_plan_or_other_editors_are_left_out(tmp_path: Path, changed: dict[str, object]) -> None:
    figures = tmp_path / "figures"
    study, results = make(tmp_path / "results")
    gradients_of(study, figures)
    assert gradients_there(study, results, figures)
    gradients_of(study, figures, **changed)
    assert not gradients_there(study, results, figures)
    head = "editor,gradients,scale,site,measure,value,low,high,chance,records\n"
    line = '"InstructEdit - MEND, all tasks",transformed,direction,all,{},0.2,0.1,0.3,,400\n'
    lines = [line.format(measure) for measure in ("silhouette", "purity", "cosine_gap")]
    (figures / "gradients" / "differences.csv").write_text(head + "".join(lines))
    (figures / "gradients" / "tsne.png").write_bytes(b"")
    claim = {claim.key: claim for claim in all_claims(Evidence(Numbers(study, results, DRAWS)), figures)}["gradients"]
    assert claim.verdict == "not tested yet"
    report = write_report(study, results, tmp_path / "REPORT.md", figures, draws=DRAWS).read_text()
    assert "tsne.png" not in report


def test_editors_measured_on_fewer_tasks_are_told_apart() -> None:
    lines = [Separation(name, "raw", "purity", Pooled(0.5, 0.4, 0.6, n, 1)) for name, n in (("all", 400), ("own", 300))]
    told = separation_table(lines)
    assert "| own | raw | 300 | 0.50 [0.40, 0.60] |" in told and "fewer tasks" in told
    assert "fewer tasks" not in separation_table(lines[:1])


def test_the_report_has_the_numbers_of_the_outcomes(tmp_path: Path) -> None:
    def mean(run: str, row: str, task: str, metric: str) -> float:
        return flat(run, row, task, metric) + (0.1234 if row == SEEN and metric == "reliability" else 0.0)

    study, results = make(tmp_path / "results", mean)
    text = write_report(study, results, tmp_path / "REPORT.md", tmp_path / "figures", draws=DRAWS).read_text()
    whole, text = text, text.split("### Teacher-forced")[1].split("### By greedy")[0]
    rows = {
        (cells[1].strip(), cells[2].strip()): cells for line in text.splitlines() if len(cells := line.split("|")) > 5
    }
    for task, row in (("recent", SEEN), ("counterfact", "MEND"), ("zsre (held out)", "GRACE"), ("convsent", "KE")):
        own = [
            outcome.value
            for run in study.runs
            if run.table
            for outcome in results.outcomes(run.name)
            if (outcome.task, outcome.method, outcome.metric) == (task.split()[0], row, "reliability")
        ]
        printed = re.search(r"\d+\.\d", rows[task, row][4])
        assert printed is not None and float(printed[0]) == pytest.approx(100 * np.mean(own), abs=0.051)
    gains = next(line for line in whole.splitlines() if line.startswith("| reliability, recent | +0.08"))
    assert gains.split("|")[3].strip().startswith("+12.3 [")


@pytest.mark.slow
def test_a_partial_study_says_so_at_the_top(tmp_path: Path) -> None:
    study, results = make(tmp_path / "results", without=["ke-0", "mend-1"])
    text = write_report(study, results, tmp_path / "REPORT.md", tmp_path / "figures", draws=DRAWS).read_text()
    assert text.split("\n\n")[1].startswith(
        f"> **PARTIAL: {len(study.runs) - 2} of {len(study.runs)} runs are there.** Missing: mend-1, ke-0."
    )
    assert "MEND 2 of 3" in text and "Missing runs: mend-1" in text
    verdicts = text.split("## Verdicts")[1].split("## What differs")[0]
    headline = next(line for line in verdicts.splitlines() if "gains in reliability over MEND" in line)
    assert headline.endswith("| 0 of 1 | 2 | **not tested yet** |")
    whole, everything = make(tmp_path / "whole")
    assert "PARTIAL" not in write_report(whole, everything, tmp_path / "W.md", tmp_path, draws=DRAWS).read_text()


def test_nothing_there_gives_a_report_in_which_nothing_is_tested(tmp_path: Path) -> None:
    study, results = make(tmp_path / "results", without=[run.name for run in make(tmp_path / "x")[0].runs])
    text = write_report(study, results, tmp_path / "REPORT.md", tmp_path / "figures", draws=DRAWS).read_text()
    verdicts = re.findall(r"\*\*(holds|holds in part|does not hold|not tested yet)\*\* \|$", text, re.M)
    assert len(verdicts) > 10 and set(verdicts) == {"not tested yet"}


@pytest.mark.slow
def test_the_same_results_give_the_same_bytes_without_texts_or_paths(tmp_path: Path) -> None:
    made = []
    for place in ("a", "b"):
        study, results = make(tmp_path / place / "results")
        made.append(write_report(study, results, tmp_path / place / "R.md", tmp_path / place / "f", draws=DRAWS))
    first, second = (path.read_bytes() for path in made)
    assert first == second
    assert SECRET.encode() not in first and str(tmp_path).encode() not in first


@pytest.mark.slow
def test_figures_are_linked_from_where_the_report_lies(tmp_path: Path) -> None:
    study, results = make(tmp_path / "results")
    for name in ("transfer/matrix.png", "tasks.png", "else.png"):
        (tmp_path / "results/figures" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "results/figures" / name).write_bytes(b"")
    report = write_report(study, results, tmp_path / "results/REPORT.md", tmp_path / "results/figures", draws=DRAWS)
    links = re.findall(r"!\[.*?\]\((.*?)\)", report.read_text())
    assert links == ["figures/transfer/matrix.png", "figures/tasks.png", "figures/else.png"]
    assert all((report.parent / link).is_file() for link in links)


@pytest.mark.slow
def test_runs_that_were_asked_other_things_are_named_at_the_top(tmp_path: Path) -> None:
    study, results = make(tmp_path / "results")
    report = write_report(study, results, tmp_path / "R.md", tmp_path / "f", draws=DRAWS)
    assert "MIXED" not in report.read_text()
    for name, data in (("base", "one"), ("grace", "one"), ("ft-l", "other")):
        path = tmp_path / "results" / name / "run.json"
        record = json.loads(path.read_text())
        record["evaluation"]["asked"] = {"a row": {"recent": {"data": data, "pool": None, "base": "b"}}}
        path.write_text(json.dumps(record))
    report = write_report(study, results, tmp_path / "R.md", tmp_path / "f", draws=DRAWS)
    assert "> **MIXED: not all runs were asked the same (recent: data).**" in report.read_text()


def test_compute_is_summed_over_the_runs(tmp_path: Path) -> None:
    study, results = make(tmp_path)
    made = what_made(results)
    trainings = sum(run.trains for run in study.runs)
    assert (made.trainings, made.training_hours, made.edits) == (trainings, trainings, 2000 * trainings)
    assert made.evaluation_hours == pytest.approx(len(study.runs) * 0.5)
    assert made.machines == ("cpu, 1 thread", "cpu, 2 threads")
    assert made.commits == ("a" * 12, "b" * 12) and made.versions == {"torch": ("2.0",)} and not made.dirty


@pytest.mark.slow
def test_the_setting_is_read_from_the_plan(tmp_path: Path) -> None:
    study, results = make(tmp_path / "results")
    text = write_report(study, results, tmp_path / "REPORT.md", tmp_path / "figures", draws=DRAWS).read_text()
    rows = {cells[1].strip(): cells[3] for line in text.splitlines() if len(cells := line.split("|")) == 5}
    assert "250 steps x 8 = 2,000" in rows["edits a training"]
    assert "256" in rows["rank of the hypernetwork"] and "InstructEdit: 0, 1, 2" in rows["seeds"]
    assert HUB_ID.rpartition("/")[2] in rows["base"] and rows["base"].endswith("in 4 bits, bfloat16 ")
    assert "7e-04" in rows["learning rates"]
