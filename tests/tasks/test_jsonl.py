"""A user's own file: what a line may hold, how it is split, and what is set aside."""

import json
from pathlib import Path
from typing import Any

import pytest

from instructedit.errors import InputError
from instructedit.records import EditExample
from instructedit.tasks import load_task
from instructedit.tasks.base import Reject
from instructedit.tasks.jsonl import Jsonl

LINE = {
    "prompt": "Our office is in",
    "target": "Ostby",
    "rephrases": ["The city of our office is"],
    "locality": [{"prompt": "The capital of Norland is", "target": ["Vestby", "Vestby city"]}],
    "portability": [{"prompt": "The river near our office is", "target": "Osta"}],
    "subject": "office",
    "id": "office-1",
    "slots": {"TOPIC": "office"},
    "old_answer": "Vestby",
    "split": "train",
}


def write(path: Path, *lines: Any) -> str:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return f"jsonl:own={path}"


def read(name: str) -> dict[str, tuple[list[EditExample], list[Reject]]]:
    found = {}
    for split in ("train", "test"):
        items = list(load_task(name).read(Path("unused"), split))  # type: ignore[arg-type]
        examples = [item for item in items if isinstance(item, EditExample)]
        found[split] = (examples, [item for item in items if isinstance(item, Reject)])
    return found


def test_every_field_of_a_line_arrives(tmp_path: Path) -> None:
    found = read(write(tmp_path / "own.jsonl", LINE))
    (example,), rejects = found["train"]
    request = example.request
    assert (request.prompt, request.target, request.id, request.task) == (
        "Our office is in",
        "Ostby",
        "office-1",
        "own",
    )
    assert (request.subject, request.slots, request.old_answer) == ("office", {"TOPIC": "office"}, "Vestby")
    assert [(p.kind, p.prompt, p.target, p.aliases) for p in example.probes] == [
        ("rephrase", "The city of our office is", "Ostby", ("Ostby",)),
        ("portability", "The river near our office is", "Osta", ("Osta",)),
        ("locality", "The capital of Norland is", "Vestby", ("Vestby", "Vestby city")),
    ]
    assert not rejects and found["test"] == ([], [])


def test_lines_without_split_are_split_by_a_stable_hash(tmp_path: Path) -> None:
    lines = [{"prompt": f"Fact {i} is", "target": "so"} for i in range(300)]
    first, again = read(write(tmp_path / "a.jsonl", *lines)), read(write(tmp_path / "b.jsonl", *lines[::-1]))
    prompts = {split: {e.request.prompt for e in first[split][0]} for split in first}
    assert {split: {e.request.prompt for e in again[split][0]} for split in again} == prompts
    assert len(prompts["train"]) + len(prompts["test"]) == 300
    assert 30 <= len(prompts["test"]) <= 90
    assert len(list(Jsonl("own", str(tmp_path / "a.jsonl"), test_share=0.0).read(Path(), "test"))) == 0


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("{not json", "not JSON"),
        ("[1]", "not an object"),
        ({"prompt": "p"}, "no field 'target'"),
        ({"prompt": "p", "target": " "}, "'target' is empty"),
        ({"prompt": "p", "target": "t", "split": "dev"}, "neither train nor test"),
        ({"prompt": "p", "target": "t", "rephrase": "q"}, "unknown fields 'rephrase'"),
        ({"prompt": "p", "target": "t", "rephrases": "q"}, "'rephrases' is not a list"),
        ({"prompt": "p", "target": "t", "locality": ["q"]}, "not an object with prompt"),
        ({"prompt": "p", "target": "t", "slots": {"A": 1}}, "'slots'"),
        ({"prompt": "p", "target": "t", "id": "office-1"}, "repeats the id"),
    ],
)
def test_a_bad_line_is_set_aside_by_its_line_number(tmp_path: Path, bad: Any, reason: str) -> None:
    found = read(write(tmp_path / "own.jsonl", LINE, "", bad))
    rejects = found["train"][1] + found["test"][1]
    assert [(r.file, r.index) for r in rejects] == [("own.jsonl", 2)]
    assert reason in rejects[0].reason
    assert [e.request.id for e in found["train"][0] + found["test"][0]] == ["office-1"]


def test_a_missing_or_empty_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No file .*'own'"):
        read(f"jsonl:own={tmp_path / 'none.jsonl'}")
    with pytest.raises(InputError, match="holds no lines"):
        read(write(tmp_path / "empty.jsonl", ""))
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="UTF-8"):
        read(f"jsonl:own={tmp_path / 'bytes.jsonl'}")
