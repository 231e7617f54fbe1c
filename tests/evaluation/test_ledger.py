"""The ledger: what a kill leaves, what is kept, and who may write."""

import json
from pathlib import Path

import pytest

from instructedit.errors import InputError
from instructedit.evaluation.ledger import Ledger, Portion
from instructedit.evaluation.plan import settings_hash
from instructedit.evaluation.tables import from_jsonl
from instructedit.records import Outcome

SETTINGS = {"method": "m", "options": {"lr": 5e-4, "betas": (0.9, 0.99)}, "data": "abc"}
STAMP = {"config": settings_hash(SETTINGS), "commit": "c", "dirty": False}


def outcomes(portion: Portion, n: int = 3) -> list[Outcome]:
    place = (portion.task, portion.row)
    return [Outcome(f"r{portion.chunk}-{i}", *place, "reliability", 1 / (3 + i), 5, 1) for i in range(n)]


def filled(folder: Path, chunks: int = 3) -> list[Portion]:
    portions = [Portion("Möbius, 10 together", "recent", chunk) for chunk in range(chunks)]
    with Ledger.opened(folder) as ledger:
        for portion in portions:
            texts = [{"id": f"r{portion.chunk}-0", "text": "one\u2028line\nand another"}]
            ledger.append(portion, outcomes(portion), STAMP, texts)
        ledger.note({"settings": {portions[0].row: {"recent": SETTINGS}}})
    return portions


def test_what_was_added_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    portions = filled(tmp_path)
    wanted = [outcome for portion in portions for outcome in outcomes(portion)]
    with Ledger.opened(tmp_path) as ledger:
        assert list(ledger.rows) == portions
        assert ledger.outcomes(portions) == wanted == from_jsonl(tmp_path / "rows.jsonl")
        ledger.check(portions[0].row, "recent", SETTINGS)


@pytest.mark.slow
def test_cut_at_any_byte_every_whole_portion_before_it_is_kept_and_no_other(tmp_path: Path) -> None:
    portions = filled(tmp_path)
    content = (tmp_path / "rows.jsonl").read_bytes()
    ends = [len(b"".join(content.splitlines(keepends=True)[: 3 * (n + 1)])) for n in range(3)]
    for cut in range(0, len(content) + 1, 7):
        (tmp_path / "rows.jsonl").write_bytes(content[:cut])
        whole = sum(end <= cut for end in ends)
        with Ledger.opened(tmp_path) as ledger:
            assert list(ledger.rows) == portions[:whole]
        assert (tmp_path / "rows.jsonl").read_bytes() == content[: ends[whole - 1] if whole else 0]


def test_texts_go_with_their_portion(tmp_path: Path) -> None:
    filled(tmp_path)
    rows = (tmp_path / "rows.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "rows.jsonl").write_bytes(b"".join(rows[:4]))
    with Ledger.opened(tmp_path):
        pass
    (text,) = (tmp_path / "texts.jsonl").read_text(encoding="utf-8").rstrip("\n").split("\n")
    assert json.loads(text)["text"] == "one\u2028line\nand another"


def test_a_damaged_line_costs_its_portion_only(tmp_path: Path) -> None:
    portions = filled(tmp_path)
    rows = (tmp_path / "rows.jsonl").read_bytes().splitlines(keepends=True)
    rows[4] = b"\x00\x00\x00\n"
    (tmp_path / "rows.jsonl").write_bytes(b"".join(rows))
    with Ledger.opened(tmp_path) as ledger:
        assert list(ledger.rows) == [portions[0], portions[2]]


@pytest.mark.parametrize(
    ("changed", "told"),
    [({"data": "abd"}, 'data ("abc", now "abd")'), ({"options": {"lr": 1e-3}}, "options"), ({"new": 1}, "new (null")],
)
def test_other_settings_are_refused_and_named(tmp_path: Path, changed: dict[str, object], told: str) -> None:
    (portion, *_) = filled(tmp_path)
    with Ledger.opened(tmp_path) as ledger:
        ledger.check("another row", "recent", SETTINGS | changed)
        with pytest.raises(InputError, match="other settings") as error:
            ledger.check(portion.row, "recent", SETTINGS | changed)
        assert told in str(error.value)


def test_it_is_still_refused_where_nobody_knows_what_differs(tmp_path: Path) -> None:
    (portion, *_) = filled(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with Ledger.opened(tmp_path) as ledger, pytest.raises(InputError, match="other settings"):
        ledger.check(portion.row, "recent", SETTINGS | {"data": "abd"})


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with Ledger.opened(tmp_path), pytest.raises(InputError, match="Another evaluation"), Ledger.opened(tmp_path):
        pass
    with Ledger.opened(tmp_path):
        pass


def test_texts_stay_out_of_a_repository(tmp_path: Path) -> None:
    filled(tmp_path)
    assert "texts.jsonl" in (tmp_path / ".gitignore").read_text().split()


def test_a_folder_that_cannot_be_made_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--out"), Ledger.opened(tmp_path / "file" / "out"):
        pass
