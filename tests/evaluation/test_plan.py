"""The plan: rows and their names, what decides a number, and which records are asked."""

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from instructedit.checkpoints import EditorCard, save_editor
from instructedit.errors import InputError
from instructedit.evaluation.plan import (
    MethodRow,
    Row,
    Settings,
    find_row,
    find_rows,
    make_rows,
    row_settings,
    settings_hash,
)
from instructedit.evaluation.progress import EditProgress
from instructedit.evaluation.selection import check_sizes, select
from instructedit.evaluation.work import pool_hash
from instructedit.instructions.controls import WHICH, Which
from instructedit.instructions.pools import load_pools
from instructedit.records import EditExample, EditRequest, Probe
from instructedit.tasks.choice import stable_sample
from instructedit.tasks.prepared import write_prepared
from tests.core import editor_on

RESULTS = Path(__file__).parents[2] / "results/table3-smollm2"


def settings(*methods: MethodRow, **changes: Any) -> Settings:
    return Settings(**{"base": "b", "tasks": ("recent",), "methods": methods or (MethodRow("none"),), **changes})


@pytest.fixture
def instructed(tmp_path: Path, tiny_llama_base: Any) -> str:
    editor, _ = editor_on(tiny_llama_base)
    card = EditorCard.of(editor, tiny_llama_base, tasks=["recent"], pools=load_pools())
    save_editor(tmp_path / "editor", editor, card)
    return str(tmp_path / "editor")


def names(asked: Settings) -> list[str]:
    return [row.name for row in make_rows(asked)]


def test_rows_are_named_after_methods_and_instructions(instructed: str) -> None:
    methods = [MethodRow("none"), MethodRow("none", name="Again"), MethodRow("none", name="X", instructions=["seen"])]
    methods.append(MethodRow("instructedit", editor=instructed))
    wanted = ["Base", "Again", "X (seen)", "InstructEdit (seen)", "InstructEdit (unseen)"]
    assert names(settings(*methods)) == wanted


def test_sizes_make_a_row_each_but_for_the_unedited_base(instructed: str) -> None:
    methods = [MethodRow("none"), MethodRow("instructedit", editor=instructed, instructions=["unseen"])]
    asked = settings(*methods, editing="sequence", sizes=(1, 5))
    assert names(asked) == ["Base", "InstructEdit (unseen), 1 in sequence", "InstructEdit (unseen), 5 in sequence"]
    assert [(row.editing, row.chunk) for row in make_rows(asked)] == [("alone", 8), ("sequence", 1), ("sequence", 5)]


def test_a_row_is_found_by_name_or_method_and_a_label_stands_for_all_its_rows(instructed: str) -> None:
    rows = make_rows(settings(MethodRow("none"), MethodRow("instructedit", editor=instructed)))
    assert find_row("base", rows, "--against") == find_row("none", rows, "--against") == rows[0]
    assert find_rows(["instructedit"], rows, "--only") == rows[1:]
    with pytest.raises(InputError, match="--against"):
        find_row("instructedit", rows, "--against")  # two rows


def test_everything_that_decides_a_number_changes_the_hash() -> None:
    facts: dict[str, Any] = {"fingerprint": "f", "data": "d", "greedy": 2, "fluency": 3, "editor": "e", "pool": "p"}

    def decided(source: MethodRow, facts: dict[str, Any] = facts, **changes: Any) -> str:
        asked = settings(source, **changes)
        return settings_hash(row_settings(make_rows(asked)[0], asked, **facts))

    plain = MethodRow("none")
    same = decided(plain)
    assert same == decided(MethodRow("none", name="Called otherwise"), tasks=("recent", "zsre"), records=3)
    others = [decided(plain, facts | {key: 9}) for key in facts]
    others += [decided(plain, **change) for change in ({"dtype": "bfloat16"}, {"batch": 2}, {"seed": 1})]
    others += [decided(plain, fluency_tokens=9), decided(MethodRow("none", instructions=["seen"]))]
    others += [decided(MethodRow("none", batch=3))]
    assert same not in others and len(set(others)) == len(others)


def test_controls_are_rows_and_two_of_one_name_are_refused(instructed: str) -> None:
    every = list(WHICH)
    method = MethodRow("instructedit", editor=instructed, instructions=every)
    assert names(settings(method)) == [f"InstructEdit ({which})" for which in every]
    with pytest.raises(InputError, match=r"Two rows are called 'InstructEdit \(wrong\)'"):
        names(settings(MethodRow("instructedit", editor=instructed, instructions=["wrong", "wrong"])))
    with pytest.raises(InputError, match="needs instructions: one or more of seen, .*, empty"):
        names(settings(MethodRow("instructedit", editor=instructed, instructions=[])))


def test_the_committed_rows_of_seen_and_unseen_instructions_keep_their_hashes() -> None:
    """A results folder of before the controls goes on."""
    known = json.loads((RESULTS / "run.json").read_text())["settings"]
    made: dict[tuple[str, str], set[str]] = {}
    with gzip.open(RESULTS / "rows.jsonl.gz", "rt", encoding="utf-8") as file:
        for row in map(json.loads, file):
            made.setdefault((row["method"], row["task"]), set()).add(row["config"])
    pools = load_pools()
    whiches: tuple[Which | None, ...] = ("seen", "unseen", None)
    for which in whiches:
        name = f"InstructEdit ({which})" if which else "MEND"
        for task, was in known[name].items():
            asked = settings(dtype=was["dtype"], seed=was["seed"], fluency_tokens=was["fluency_tokens"])
            row = Row(name, MethodRow("instructedit" if which else "mend"), which, was["editing"], was["chunk"])
            pool = pool_hash(which, pools if which else None, task)
            facts = {key: was[key] for key in ("data", "greedy", "fluency", "editor")}
            now = row_settings(row, asked, fingerprint=was["base"], pool=pool, **facts)
            assert now == was
            assert {settings_hash(now)} == made[name, task]


def test_what_a_control_is_made_of_changes_its_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    pools = load_pools()
    longer = pools | {"mine": replace(pools["zsre"], task="mine")}
    own = {which: pool_hash(which, pools, "recent") for which in WHICH}
    more = {which: pool_hash(which, longer, "recent") for which in WHICH}
    assert [which for which in WHICH if own[which] != more[which]] == ["wrong"]
    monkeypatch.setattr("instructedit.evaluation.work.FILLER", ("Something else.",))
    other = {which: pool_hash(which, pools, "recent") for which in WHICH}
    assert [which for which in WHICH if own[which] != other[which]] == ["filler"]
    assert pool_hash("empty", None, "recent") is None


def test_a_default_that_is_written_out_is_the_same_settings() -> None:
    short, long = (make_rows(settings(MethodRow("ft-l", options=o)))[0] for o in ({}, {"objective": "prompt_last"}))
    assert short.options == long.options and "_stages" not in short.options


@pytest.mark.parametrize("changes", [{"sizes": (2, 2)}, {"editing": "together", "sizes": ()}, {"sizes": (0,)}])
def test_numbers_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="sizes"):
        settings(**changes)


def write(folder: Path, n: int = 12) -> None:
    examples = []
    for i in range(n):
        kinds = [kind for kind in ("wanted", "unwanted", "locality") for _ in range(3)]
        probes = [Probe(kind, "How is it?", f"{kind} {j}") for j, kind in enumerate(kinds)]  # type: ignore[arg-type]
        examples.append(EditExample(EditRequest("How is it?", "good", f"r{i}", "recent"), tuple(probes)))
    write_prepared(folder, "recent", {"test": examples}, {})


def test_records_and_probes_are_chosen_by_hash(tmp_path: Path) -> None:
    write(tmp_path)
    asked = {"data": str(tmp_path), "records": 6, "max_probes": 2, "greedy": 3, "fluency": {"others": 2}}
    chosen = select(settings(**asked), "recent")
    ids = [example.request.id for example in chosen.examples]
    # The records a run's own test takes, in the order of the file.
    assert ids == [f"r{i}" for i in range(12) if f"r{i}" in stable_sample([f"r{i}" for i in range(12)], 6, "limit")]
    for example in chosen.examples:
        assert [len(example.of_kind(kind)) for kind in ("wanted", "unwanted", "locality")] == [2, 2, 2]  # type: ignore[arg-type]
    assert len(chosen.greedy) == 3 and len(chosen.fluency) == 2 and chosen.greedy | chosen.fluency <= set(ids)
    assert select(settings(**asked | {"max_probes": 1}), "recent").sha256 != chosen.sha256
    more = select(settings(**asked | {"greedy": 6, "fluency": {"recent": 4, "others": 1}}), "recent")
    assert more.sha256 == chosen.sha256 and more.greedy > chosen.greedy and len(more.fluency) == 4


def test_portions_hold_every_record_once_in_order(tmp_path: Path) -> None:
    write(tmp_path)
    asked = settings(MethodRow("none", batch=5), data=str(tmp_path))
    chosen = select(asked, "recent")
    chunks = chosen.chunks(make_rows(asked)[0])
    assert [len(chunk) for chunk in chunks] == [5, 5, 2]
    assert [example for chunk in chunks for example in chunk] == list(chosen.examples)


def test_a_number_of_edits_that_leaves_a_rest_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    for sizes, fits in (((1, 4, 12), True), ((5,), False)):
        asked = settings(MethodRow("ft-l"), data=str(tmp_path), editing="together", sizes=sizes)
        chosen = select(asked, "recent")
        if fits:
            check_sizes(make_rows(asked), chosen)
        else:
            with pytest.raises(InputError, match="does not divide"):
                check_sizes(make_rows(asked), chosen)


def test_progress_without_a_terminal_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    now = iter([0.0, 10.0, 31.0, 40.0, 50.0])
    with EditProgress(total=20, done=4, clock=lambda: next(now)) as progress:
        for task in ("recent", "recent", "zsre", "zsre"):
            progress.advance("MEND", task, 4)
    first, last = capsys.readouterr().err.splitlines()
    # 8 edits in 31 seconds, 8 to go.
    assert first == "MEND, recent: 12 of 20 edits, 0.26 edits/s, 31 s left"
    assert last.startswith("MEND, zsre: 20 of 20 edits") and last.endswith("0 s left")
