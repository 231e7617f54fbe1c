"""What is kept of a study: only ids and numbers, and never those of another plan."""

import gzip
import json
from pathlib import Path

import pytest

from instructedit.errors import InputError
from instructedit.records import Outcome
from instructedit.study.plan import Study, StudyRun
from instructedit.study.results import OUTCOMES, RECORD, Results


def study(records: int = 2) -> Study:
    runs = (StudyRun("a", method="none"), StudyRun("b", method="ft-l"))
    return Study("s", runs, {"base": "tiny", "tasks": ["recent"], "records": records})


LINE = {
    "id": "r1",
    "task": "recent",
    "method": "Base",
    "metric": "reliability",
    "value": 0.5,
    "n_tokens": 2,
    "n_probes": 1,
}


def test_a_run_that_was_put_is_there_and_read_back(tmp_path: Path) -> None:
    results = Results(study(), tmp_path / "out")
    assert (results.done, results.missing) == ([], ["a", "b"])
    results.put(results.study.run("a"), [{**LINE, "text": "a record's text", "commit": "x"}], {"evaluation": {}}, "")
    again = Results(study(), tmp_path / "out")
    assert (again.done, again.missing) == (["a"], ["b"])
    assert again.outcomes("a") == [Outcome("r1", "recent", "Base", "reliability", 0.5, 2, 1)]
    assert again.record("a")["name"] == "a"
    assert b"text" not in gzip.decompress((tmp_path / "out" / "a" / OUTCOMES).read_bytes())


def test_the_same_outcomes_give_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        results = Results(study(), tmp_path / folder)
        results.put(results.study.run("a"), [LINE], {}, "")
    assert len({(tmp_path / folder / "a" / OUTCOMES).read_bytes() for folder in ("one", "two")}) == 1


def test_results_of_another_plan_are_refused_and_stay(tmp_path: Path) -> None:
    results = Results(study(), tmp_path)
    results.put(results.study.run("a"), [LINE], {}, "")
    with pytest.raises(InputError, match="another plan"):
        Results(study(records=3), tmp_path)
    assert Results(study(), tmp_path).done == ["a"]


def test_a_run_without_its_record_is_not_done(tmp_path: Path) -> None:
    results = Results(study(), tmp_path)
    results.put(results.study.run("a"), [LINE], {}, "")
    (tmp_path / "a" / RECORD).unlink()
    assert Results(study(), tmp_path).missing == ["a", "b"]
    with pytest.raises(InputError, match="not done"):
        results.record("a")


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_broken_record_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / RECORD).write_text(content)
    with pytest.raises(InputError, match="run.json"):
        Results(study(), tmp_path)


def test_broken_outcomes_are_told(tmp_path: Path) -> None:
    results = Results(study(), tmp_path)
    results.put(results.study.run("a"), [LINE], {}, "")
    for broken in (b"no gzip", gzip.compress(b"{}"), gzip.compress(json.dumps([1]).encode())):
        (tmp_path / "a" / OUTCOMES).write_bytes(broken)
        with pytest.raises(InputError, match="cannot be read"):
            Results(study(), tmp_path).outcomes("a")
