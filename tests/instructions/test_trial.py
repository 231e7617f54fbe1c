"""The Trial Editor: it scores every description on the same records, and is kept by what decides its numbers."""

from dataclasses import replace
from pathlib import Path

import pytest

from instructedit.errors import InputError
from instructedit.instructions.pools import load_pools
from instructedit.instructions.trial import TrialEditor, TrialPool, TrialRecords, Work
from instructedit.instructions.trial_settings import TrialSettings
from instructedit.tasks.prepared import read_prepared
from tests.instructions.scripted import descriptions

TEXTS = descriptions(3)


def editor(settings: TrialSettings, task: str = "counterfact") -> TrialEditor:
    return TrialEditor(task, "Facts", settings, TrialRecords(task, settings, load_pools()))


def test_it_scores_every_description_on_the_same_records(place: Path, trial: TrialSettings) -> None:
    seen: list[Work] = []
    scores, seconds = editor(trial).run(TEXTS, 0, seen.append)
    assert list(scores) == sorted(TEXTS) and seconds > 0
    known = {one.request.id for one in read_prepared("prepared", "counterfact", "validation")}
    for own in scores.values():
        assert set(own) == {"score", "reliability", "generalization", "locality"}
        assert all(set(values) == set(own["score"]) and len(values) == 3 for values in own.values())
        assert set(own["score"]) < known
        for id, value in own["score"].items():
            parts = [own[name][id] for name in ("reliability", "generalization", "locality")]
            assert value == pytest.approx(sum(parts) / 3, abs=1e-5) and 0 <= value <= 1
    assert Work("training", 2, 2) in seen and Work("scoring", 9, 9) in seen


@pytest.mark.slow
def test_the_same_gives_the_same_and_is_computed_once(place: Path, trial: TrialSettings) -> None:
    first = editor(trial).run(TEXTS, 0)
    seen: list[Work] = []
    assert editor(trial).run(TEXTS[::-1], 0, seen.append) == first and seen == []
    (kept,) = (place / "cache" / "trials").iterdir()
    kept.unlink()
    assert editor(trial).run(TEXTS, 0)[0] == first[0]
    # A kill while it was written leaves another name; anything else that cannot be read is made again.
    kept.write_text("{")
    assert editor(trial).run(TEXTS, 0)[0] == first[0]
    assert editor(trial).run(TEXTS, 1)[0] != first[0]


def test_the_key_is_all_that_decides_the_numbers(place: Path, trial: TrialSettings) -> None:
    key = editor(trial).key(TEXTS, 0)
    assert key == editor(replace(trial, edits_at_once=1, seeds=5)).key(TEXTS[::-1], 0)
    others = [
        editor(trial).key(TEXTS[:2], 0),
        editor(trial).key(TEXTS, 1),
        editor(replace(trial, beside=("recent",))).key(TEXTS, 0),
        editor(trial, "recent").key(TEXTS, 0),
        *(
            editor(replace(trial, **{name: value})).key(TEXTS, 0)
            for name, value in (("steps", 3), ("lr", 1e-3), ("each", True), ("records", 2), ("reworded", 0.5))
        ),
    ]
    assert len({key, *others}) == 1 + len(others)


@pytest.mark.slow
def test_an_editor_for_each_description_and_other_tasks_beside(place: Path, trial: TrialSettings) -> None:
    together = editor(replace(trial, beside=("recent", "convsent"), steps=3, batch=3))
    assert set(together.run(TEXTS[:2], 0)[0]) == set(TEXTS[:2])
    apart, seen = editor(replace(trial, each=True)), []  # type: ignore[var-annotated]
    alone, _ = apart.run(TEXTS[:2], 0, seen.append)
    assert [work.done for work in seen if work.phase == "training"] == [1, 2, 3, 4] and seen[0].total == 4
    # What stands beside it does not matter then.
    assert apart.run([TEXTS[1]], 0)[0][TEXTS[1]] == alone[TEXTS[1]]


def test_placeholders_are_filled(place: Path, trial: TrialSettings) -> None:
    scores, _ = editor(trial, "convsent").run(["Be [LABEL] about [TOPIC] in what you say."], 0)
    assert set(next(iter(scores.values()))) == {"score", "reliability", "locality"}
    with pytest.raises(InputError, match="needs a value for \\[MOOD\\]"):
        editor(trial, "convsent").run(["Be [MOOD] about [TOPIC] in what you say."], 0)


def test_a_task_without_training_records_is_refused(place: Path, trial: TrialSettings) -> None:
    with pytest.raises(InputError, match="'zsre' in prepared has no training records"):
        editor(trial, "zsre")
    with pytest.raises(InputError, match="Leave it out of beside"):
        editor(replace(trial, beside=("zsre",)))


def test_records_that_are_not_scored_may_not_be_named_either(place: Path, trial: TrialSettings) -> None:
    every = {
        one.request.id
        for split in ("train", "validation", "test")
        for one in read_prepared("prepared", "counterfact", split)  # type: ignore[arg-type]
    }
    assert {one.request.id for one in editor(trial).records.all_of("counterfact")} == every


def test_a_trial_pool_draws_from_all(trial: TrialSettings) -> None:
    pool = TrialPool("t", "T", tuple(TEXTS))
    assert pool.seen == tuple(TEXTS)
    for wrong in ((), ("a\nb",), ("same", "same")):
        with pytest.raises(InputError):
            TrialPool("t", "T", wrong)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"records": 1}, {"lr": 0}, {"warmup_steps": 99}, {"seeds": 0}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"trial.{next(iter(wrong))}"):
        TrialSettings(**wrong)  # type: ignore[arg-type]
