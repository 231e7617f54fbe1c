"""What ``--editors`` may say, and which editors do not go together; cards alone, no weights."""

from dataclasses import replace
from pathlib import Path

import pytest

from instructedit.analysis.editors import parse_editors, read_editors
from instructedit.base import Base
from instructedit.checkpoints import EditorCard, save_editor
from instructedit.errors import InputError
from tests.core import editor_on

TASKS = ("recent", "zsre")


def test_one_folder_for_all_tasks_or_one_for_each() -> None:
    given = ["A=runs/a:1/editor", "me/B=me/on-the-hub", "one = recent:runs/r,zsre:runs/z"]
    assert parse_editors(given[:2], TASKS) == {
        "A": {"recent": "runs/a:1/editor", "zsre": "runs/a:1/editor"},
        "me/B": {"recent": "me/on-the-hub", "zsre": "me/on-the-hub"},
    }
    assert parse_editors(given[2:], TASKS) == {"one": {"recent": "runs/r", "zsre": "runs/z"}}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["runs/a"], "is not NAME=FOLDER"),
        (["A="], "is not NAME=FOLDER"),
        (["=runs/a"], "is not NAME=FOLDER"),
        (["A=runs/a", "A=runs/b"], "name 'A' twice"),
        (["A=recent:r,recent:s"], "names a task twice"),
        (["A=recent:r,convsent:s"], "convsent is not among --tasks"),
    ],
)
def test_what_cannot_be_read(given: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_editors(given, TASKS)


def test_editors_that_do_not_go_together(tiny_gpt2_base: Base, tmp_path: Path) -> None:
    editor, _ = editor_on(tiny_gpt2_base)
    card = EditorCard.of(editor, tiny_gpt2_base, tasks=["recent"], pools=None)
    a, b, c = (str(tmp_path / name) for name in "abc")
    save_editor(Path(a), editor, card)
    save_editor(Path(b), editor, replace(card, fingerprint="0" * 64, base="another"))
    save_editor(Path(c), editor, replace(card, sites=card.sites[:-1]))
    both = {name: dict.fromkeys(TASKS, a) for name in "xy"}
    x, y = read_editors(both)
    assert (x.name, y.name) == ("x", "y") and x.tasks == TASKS and not x.alone and x.trained_on == {"recent"}
    for wrong, words in (
        ({}, "--editors is missing"),
        ({"x": {"recent": a}}, "x has 1 task"),
        (both | {"z": dict.fromkeys(TASKS, b)}, "is of base 'another', the one in .*a of 'tiny-gpt2'"),
        (both | {"z": dict.fromkeys(TASKS, c)}, "do not edit the same sites"),
        (both | {"z": dict.fromkeys(TASKS, str(tmp_path / "none"))}, "No editor at"),
    ):
        with pytest.raises(InputError, match=words):
            read_editors(wrong)
