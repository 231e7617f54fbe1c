"""The examples of docs/data.md work as they stand: the records through prepare, the pool, the fit command's flags."""

import json
import re
import shlex
from pathlib import Path

import pytest

from instructedit.cli import main
from instructedit.instructions.pools import load_pools, pool_for
from instructedit.instructions.rendering import seen_instruction, unseen_instruction
from instructedit.records import EditExample
from instructedit.tasks.jsonl import FIELDS
from instructedit.tasks.prepared import SPLITS, read_prepared

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The page's code blocks of one language; "" for those that name none, which are commands."""
    return [text for name, text in re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.M | re.S) if name == language]


def command(start: str) -> list[str]:
    """The one command of the page that starts so, as arguments without the program's name."""
    (found,) = [block for block in blocks("") if block.startswith(start)]
    return shlex.split(found.replace("\\\n", " "))[1:]


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[EditExample]:
    (lines,) = blocks("jsonl")
    (tmp_path / "parts.jsonl").write_text(lines, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as status:
        main(command("instructedit prepare --out data/own"))
    assert status.value.code == 0
    assert (tmp_path / "data/own/parts/rejects.jsonl").read_text() == ""
    return [example for split in SPLITS for example in read_prepared("data/own", "parts", split)]


def test_the_records_go_through_prepare(prepared: list[EditExample]) -> None:
    assert {example.request.subject for example in prepared} == {"P-12", "V-7", "D-1"}
    assert [e.request.subject for e in read_prepared("data/own", "parts", "test")] == ["V-7"]
    (full,) = [example for example in prepared if example.request.id == "p-12"]
    assert [len(full.of_kind(kind)) for kind in ("rephrase", "locality", "portability")] == [1, 1, 1]  # type: ignore[arg-type]
    assert full.of_kind("locality")[0].aliases == ("Brussels", "Brussels City")


def test_the_first_record_shows_every_field_and_the_table_lists_them() -> None:
    first = json.loads(blocks("jsonl")[0].splitlines()[0])
    listed = re.findall(r"^\| `(\w+)` \|", PAGE.partition("## Records of your own")[2], re.M)
    assert set(first) == set(listed) == set(FIELDS)


def test_the_pool_fits_the_records(prepared: list[EditExample], tmp_path: Path) -> None:
    (text,) = blocks("yaml")
    (tmp_path / "parts.yaml").write_text(text, encoding="utf-8")
    pool = pool_for(load_pools(tmp_path / "parts.yaml"), "parts")
    for example in prepared:
        for instruction in (seen_instruction(pool, example.request), unseen_instruction(pool, example.request)):
            assert example.request.slots["SITE"] in instruction and "[" not in instruction


def test_the_fit_command_takes_what_the_page_made(monkeypatch: pytest.MonkeyPatch) -> None:
    parser = pytest.importorskip("lightning_modules.parser", reason="the command fit needs the extra train")
    monkeypatch.chdir(ROOT)
    cli = parser.EditorCLI("fit", [*command("instructedit fit")[1:], "--trainer.accelerator", "cpu"])
    data = cli.datamodule
    assert (data.tasks, data.held_out, data.balance, data.caps) == (["parts"], [], "equal", None)
    assert (data.folder, data.instructions, cli.run.name) == ("data/own", "parts.yaml", "parts")
