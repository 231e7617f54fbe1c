"""Prepared splits come back as written, take the same bytes twice, and name what exists where they are missing."""

import hashlib
from pathlib import Path

import pytest

from instructedit.errors import InputError
from instructedit.records import EditExample, EditRequest, Probe
from instructedit.tasks.prepared import read_prepared, stage_prepared, swap_prepared, write_prepared

EXAMPLES = [
    EditExample(
        EditRequest(
            prompt="The capital of Norland is",
            target="Ostby",
            id="norland-1",
            task="own",
            subject="Norland",
            more_targets=("Ostby town",),
            avoid=("Vestby", "Midby"),
            slots={"TOPIC": "Norland", "LABEL": "positive"},
            old_answer="Vestby",
        ),
        (
            Probe("rephrase", "Norland's capital is", "Ostby", ("Ostby", "Østby"), "Subject_Aliasing"),
            Probe("locality", "The capital of Sudland is", "Sudby", ("Sudby",)),
        ),
    ),
    EditExample(EditRequest(prompt="Who rules Norland?", target="Ada", id="norland-2", task="own")),
]


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_examples_come_back_as_written(tmp_path: Path) -> None:
    write_prepared(tmp_path, "own", {"train": EXAMPLES, "test": EXAMPLES[1:]}, {"card.json": "{}"})
    assert read_prepared(tmp_path, "own", "train") == EXAMPLES
    assert read_prepared(tmp_path, "own", "test") == EXAMPLES[1:]
    assert read_prepared(tmp_path, "own", "validation") == []
    assert (tmp_path / "own" / "card.json").read_text() == "{}"


def test_writing_twice_gives_the_same_bytes_and_leaves_nothing_old(tmp_path: Path) -> None:
    write_prepared(tmp_path / "a", "own", {"train": EXAMPLES}, {})
    write_prepared(tmp_path / "b", "own", {"train": EXAMPLES, "test": EXAMPLES}, {"old.txt": "x"})
    write_prepared(tmp_path / "b", "own", {"train": EXAMPLES}, {})
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")


@pytest.mark.parametrize("renames", range(4))
def test_a_stop_at_any_rename_never_leaves_old_beside_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    def stage(examples: list[EditExample]) -> None:
        for task in ("a", "b"):
            stage_prepared(tmp_path, task, {"train": examples}, {})

    def found() -> set[int]:
        return {len(read_prepared(tmp_path, task, "train")) for task in ("a", "b") if (tmp_path / task).exists()}

    stage(EXAMPLES)
    swap_prepared(tmp_path, ["a", "b"])
    stage(EXAMPLES[:1])
    assert found() == {2}
    rename, done = Path.rename, []

    def stopping(path: Path, target: Path) -> Path:
        if len(done) == renames:
            raise KeyboardInterrupt
        done.append(path)
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", stopping)
        with pytest.raises(KeyboardInterrupt):
            swap_prepared(tmp_path, ["a", "b"])
    assert len(done) == renames and len(found()) < 2
    stage(EXAMPLES[:1])
    swap_prepared(tmp_path, ["a", "b"])
    assert found() == {1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_missing_split_names_what_exists(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No folder of prepared tasks"):
        read_prepared(tmp_path / "nowhere", "own", "train")
    write_prepared(tmp_path, "own", {"train": EXAMPLES}, {})
    with pytest.raises(InputError, match=r"other/test .*there: own/test, own/train, own/validation.*--tasks other"):
        read_prepared(tmp_path, "other", "test")


def test_a_damaged_table_is_an_input_error(tmp_path: Path) -> None:
    write_prepared(tmp_path, "own", {"train": EXAMPLES}, {})
    for path in (tmp_path / "own" / "train").glob("*.arrow"):
        path.write_bytes(b"damaged")
    with pytest.raises(InputError, match="cannot be read.*Make it again"):
        read_prepared(tmp_path, "own", "train")
