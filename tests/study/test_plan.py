"""A study's plan: what is read, what is refused, and what decides a run's numbers."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from instructedit.errors import InputError
from instructedit.study.plan import flags, read_study

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "study"

PLAN: dict[str, Any] = {
    "name": "small",
    "fit": ["fit.yaml"],
    "set": {"trainer.max_steps": 3},
    "evaluate": {"base": "tiny", "tasks": ["recent", "zsre"], "held_out": ["zsre"], "records": 2, "data": "data"},
    "table": {"greedy": 1},
    "runs": {
        "a": {"table": True, "instructions": ["seen"], "controls": ["unseen"]},
        "b": {"set": {"model.method": "MEND", "data.tasks": ["recent"]}},
        "none": {"method": "none", "table": True, "batch": 4},
    },
    "analyses": {"transfer": {"singles": {"recent": "b"}, "together": ["a"]}},
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fit.yaml").write_text("model: {method: InstructEdit, lr: 5e-4}\ndata: {tasks: [recent, zsre]}\n")


def written(**changes: Any) -> Path:
    path = Path("study.yaml")
    path.write_text(yaml.safe_dump({**PLAN, **changes}))
    return path


def test_a_run_has_the_shared_settings_and_its_own() -> None:
    study = read_study(written())
    a, b, none = study.runs
    assert a.set == {"trainer.max_steps": 3}
    assert b.set == {"trainer.max_steps": 3, "model.method": "MEND", "data.tasks": ["recent"]}
    assert (a.trained_as, b.trained_as, none.trains) == ("InstructEdit", "MEND", False)
    assert (a.setting("data.tasks"), b.setting("data.tasks")) == (["recent", "zsre"], ["recent"])
    assert a.setting("model.lr") == 5e-4  # a number, as the training reads it
    assert a.setting("model.rank", 7) == 7
    assert none.set == {} and none.fit == ()


def test_controls_are_asked_apart_and_never_what_the_table_asks() -> None:
    study = read_study(written())
    a, b, none = study.runs
    asked = study.evaluations(a, "somewhere/editor")
    assert [one.get("greedy") for one in asked.values()] == [1, None]
    assert [one["methods"][0]["instructions"] for one in asked.values()] == [["seen"], ["unseen"]]
    assert all(one["methods"][0]["editor"] == "somewhere/editor" for one in asked.values())
    assert list(study.evaluations(b)) == ["evaluation"] and "greedy" not in study.evaluations(b)["evaluation"]
    assert "editor" not in study.evaluations(none)["evaluation"]["methods"][0]
    assert study.rows(a) == ("InstructEdit (seen)", "InstructEdit (unseen)")
    assert (study.rows(b), study.rows(none)) == (("MEND",), ("Base",))


def test_what_decides_the_numbers_decides_the_digest() -> None:
    study = read_study(written())
    before = {run.name: study.digest(run) for run in study.runs}

    def changed(**changes: Any) -> set[str]:
        other = read_study(written(**changes))
        return {run.name for run in other.runs if other.digest(run) != before[run.name]}

    assert changed() == set()
    assert changed(evaluate={**PLAN["evaluate"], "data": "elsewhere"}) == set()
    assert changed(analyses={}, prepare="x", name="other") == set()
    assert changed(evaluate={**PLAN["evaluate"], "records": 3}) == {"a", "b", "none"}
    assert changed(table={"greedy": 2}) == {"a", "none"}
    assert changed(set={"trainer.max_steps": 4}) == {"a", "b"}
    Path("fit.yaml").write_text("model: {method: InstructEdit, lr: 6e-4}\ndata: {tasks: [recent, zsre]}\n")
    assert changed() == {"a", "b"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"runs": {}}, "has no runs"),
        ({"run": {}}, "key in study.yaml: 'run'"),
        ({"runs": {"a": {"instruction": ["seen"]}}}, "'instruction'"),
        ({"runs": {"a/b": {}}}, "no plain name"),
        ({"runs": {"a": {"method": "none", "set": {"x": 1}}}}, "a method and a training"),
        ({"runs": {"a": {}}, "fit": []}, "neither a method nor configurations"),
        ({"runs": {"a": {"set": {"run.name": "b"}}}}, "run.name, which the study sets itself"),
        ({"analyses": {"transfer": {"singles": {"recent": "c"}}}}, "'c'"),
        ({"runs": {"a": {"instructions": ["seen"], "controls": ["seen"]}}}, "has seen in instructions and in controls"),
        ({"analyses": {"transfers": {}}}, "'transfers'"),
        ({"evaluate": {**PLAN["evaluate"], "recordz": 2}}, "'recordz'"),
        ({"evaluate": {**PLAN["evaluate"], "records": 0}}, "records is 0"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match="(?s).*" + told.replace("/", "/")):
        read_study(written(**changes))


def test_flags_are_read_back_as_they_were() -> None:
    given = {"a": True, "b": None, "c": {"x": 0.5}, "d": "text", "e": [1, "two"]}
    read = {flag[2:].partition("=")[0]: yaml.safe_load(flag.partition("=")[2]) for flag in flags(given)}
    assert read == given


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_plans_hold_together(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONFIGS.parents[1])
    study = read_study(path)
    assert set(study.analyses) == {"gradients", "transfer", "tasks", "balance", "instructions", "sensitivity"}
    named = {name for parts in study.analyses.values() for name in _runs(parts)}
    # A run that is in no table and no analysis would be trained for nothing.
    assert {run.name for run in study.runs if not run.table} <= named
    for task, name in study.analyses["transfer"]["singles"].items():
        assert study.run(name).setting("data.tasks") == [task]
    for count, names in study.analyses["tasks"].items():
        assert {len(study.run(name).setting("data.tasks")) for name in names} == {int(count)}
    for run in study.runs:
        assert not set(run.setting("data.tasks", [])) & set(study.held_out)


def _runs(parts: Any) -> list[str]:
    if isinstance(parts, str):
        return [parts]
    return [name for part in (parts.values() if isinstance(parts, dict) else parts) for name in _runs(part)]
