"""The command prepare, on small files of our own and, where INSTRUCTEDIT_KNOWEDIT is set, on the real ones."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import datasets
import pytest

from instructedit.cli import main
from instructedit.commands.prepare import prepare
from instructedit.errors import InputError
from instructedit.tasks.card import content_hash
from instructedit.tasks.prepared import SPLITS, read_prepared


def write(path: Path, records: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(records), encoding="utf-8")


def triple(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "subject": f"land {number}",
        "prompt": f"The capital of land {number} is",
        "target_new": f"town {number}",
        "locality": {
            "Relation_Specificity": [
                {"prompt": f"The {what} of land {number} is", "ground_truth": [[f"{what} {number}", "alias"]]}
                for what in ("river", "king", "coin", "tree", "bird", "lake")
            ]
        },
        "portability": {"Reasoning": [{"prompt": f"The mayor of {number} is", "ground_truth": f"mayor {number}"}]},
    } | fields


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    write(folder / "wiki_recent/recent_train.json", [triple(i) for i in range(120)])
    write(folder / "wiki_recent/recent_test.json", [triple(i) for i in range(110, 140)])
    topics = [
        {"ent": f"topic {i}", "pos": [f"good {i} {j}" for j in range(5)], "neg": [f"bad {i} {j}" for j in range(5)]}
        for i in range(60)
    ]
    write(folder / "benchmark/Convsent/blender_val.json", topics[:40])
    write(folder / "benchmark/Convsent/blender_test.json", topics[40:])
    return folder


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_prepared_tasks_with_card_and_rejects(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    prepare(str(source), str(out), "recent,convsent", max_probes=3)
    card = json.loads((out / "recent/card.json").read_text())
    splits = {split: read_prepared(out, "recent", split) for split in SPLITS}
    assert {split: card["splits"][split]["records"] for split in SPLITS} == {s: len(splits[s]) for s in SPLITS}
    assert {split: card["splits"][split]["sha256"] for split in SPLITS} == {s: content_hash(splits[s]) for s in SPLITS}
    assert len(splits["test"]) == 30 and splits["validation"]
    # 110 to 119 are test subjects too.
    assert len(splits["train"]) + len(splits["validation"]) == 110
    assert card["left_out"]["unusable records"] == {"its subject and prompt are a test record's": 10}
    assert max(len(e.of_kind("locality")) for split in SPLITS for e in splits[split]) == 3
    rows = [json.loads(line) for line in (out / "recent/rejects.jsonl").read_text().splitlines()]
    assert len(rows) == 10
    data = (source / "wiki_recent/recent_test.json").read_bytes()
    assert card["files"][1] == {
        "file": "wiki_recent/recent_test.json",
        "splits": ["test"],
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    text = (out / "recent/card.md").read_text()
    assert "MIT" in text and "10 x its subject and prompt are a test record's" in text and "Forgetfulness" in text
    assert str(out / "recent/card.md") in capsys.readouterr().out


def test_no_text_trained_on_scores(source: Path, tmp_path: Path) -> None:
    prepare(str(source), str(tmp_path / "out"), "recent,convsent", validation=0.3)
    trained: set[str] = set()
    scored: set[str] = set()
    for task in ("recent", "convsent"):
        sides: dict[str, set[tuple[str, str]]] = {}
        for split in SPLITS:
            examples = read_prepared(tmp_path / "out", task, split)
            assert examples
            sides[split] = {(e.request.subject, e.request.prompt) for e in examples}
            for e in examples:
                (trained if split == "train" else scored).add(e.request.prompt)
                (trained if split == "train" else scored).update(
                    probe.prompt for probe in e.probes if probe.kind not in ("wanted", "unwanted")
                )
                assert e.request.prompt not in {p.prompt for p in e.probes if p.kind not in ("wanted", "unwanted")}
            if split == "validation":
                # The cut leaves validation records with locality questions of their own.
                assert sum(bool(e.of_kind("locality")) for e in examples) > len(examples) / 2
        assert not sides["train"] & sides["validation"]
        assert not sides["test"] & (sides["train"] | sides["validation"])
    assert not trained & scored


def test_preparing_twice_gives_the_same_bytes(source: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        prepare(str(source), str(tmp_path / name), "recent,convsent")
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")
    prepare(str(source), str(tmp_path / "b"), "recent,convsent")
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")


@pytest.mark.slow
def test_a_failure_while_staging_the_second_task_leaves_both_old_folders(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    prepare(str(source), str(out), "recent,convsent")
    before = hashes(out)
    save, saved = datasets.Dataset.save_to_disk, []

    def failing(table: Any, path: str, **options: Any) -> None:
        saved.append(path)
        if len(saved) == len(SPLITS) + 2:
            raise OSError("No space left on device")
        save(table, path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(datasets.Dataset, "save_to_disk", failing)
        with pytest.raises(OSError, match="No space"):
            prepare(str(source), str(out), "recent,convsent", validation=0.4)
    tasks = {name: value for name, value in hashes(out).items() if name.startswith(("recent/", "convsent/"))}
    assert tasks == before
    prepare(str(source), str(out), "recent,convsent")
    assert hashes(out) == before


def test_too_many_malformed_records_stop_it_and_name_their_places(source: Path, tmp_path: Path) -> None:
    bad = [triple(i) for i in range(118)] + [{"prompt": "p"}, triple(200, target_new="")]
    write(source / "wiki_recent/recent_train.json", bad)
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"2 of 150 records .*recent_train.json record 118: no field 'target_new'"):
        prepare(str(source), str(out), "recent")
    assert not (out / "recent").exists()
    rows = [json.loads(line) for line in (out / "recent.rejects.jsonl").read_text().splitlines()]
    assert [(row["file"], row["index"]) for row in rows] == [
        ("wiki_recent/recent_train.json", 118),
        ("wiki_recent/recent_train.json", 119),
    ]
    prepare(str(source), str(out), "recent", max_rejects=0.02)
    assert not (out / "recent.rejects.jsonl").exists()
    assert json.loads((out / "recent/card.json").read_text())["left_out"]["malformed records"] == {
        "'target_new' is empty": 1,
        "no field 'target_new'": 1,
    }


def test_the_completions_option_reaches_convsent(source: Path, tmp_path: Path) -> None:
    prepare(str(source), str(tmp_path / "out"), "convsent", completions=3)
    assert {len(e.request.targets) for e in read_prepared(tmp_path / "out", "convsent", "test")} == {3}


def test_a_users_own_file_is_prepared_under_its_name(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"Fact {i} is", "target": f"so {i}"}) + "\n" for i in range(100)))
    prepare("no such folder", str(tmp_path / "out"), f"jsonl:facts={path}")
    read = {split: read_prepared(tmp_path / "out", "facts", split) for split in SPLITS}
    assert sum(map(len, read.values())) == 100 and all(read.values())
    assert {e.request.task for e in read["train"]} == {"facts"}
    card = json.loads((tmp_path / "out/facts/card.json").read_text())
    assert [(f["file"], f["splits"]) for f in card["files"]] == [("facts.jsonl", ["train", "test"])]


def test_the_share_of_a_users_own_lines_that_is_tested(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"Fact {i} is", "target": f"so {i}"}) + "\n" for i in range(200)))
    tested = {}
    for share in (0.0, 0.2, 0.5, 1.0):
        prepare("unused", str(tmp_path / "out"), f"jsonl:facts={path}", test_share=share)
        tested[share] = {e.request.prompt for e in read_prepared(tmp_path / "out", "facts", "test")}
        card = json.loads((tmp_path / "out/facts/card.json").read_text())
        assert card["options"]["test_share"] == share and f"puts {share:.0%}" in card["notes"][0]
    assert len(tested[0.0]) == 0 and len(tested[1.0]) == 200
    assert 20 < len(tested[0.2]) < 60 and 75 < len(tested[0.5]) < 125 and tested[0.2] < tested[0.5]
    prepare("unused", str(tmp_path / "default"), f"jsonl:facts={path}")
    assert {e.request.prompt for e in read_prepared(tmp_path / "default", "facts", "test")} == tested[0.2]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tasks=recnt"], "Unknown task 'recnt'"),
        (["--tasks=,"], "names no task"),
        (["--tasks=recent,recent"], "named twice"),
        (["--source=nowhere"], "No folder nowhere"),
        (["--tasks=zsre"], "No ZsRE/"),
        (["--validation=1"], "--validation"),
        (["--max_probes=0"], "--max_probes"),
        (["--completions=0"], "--completions"),
        (["--max_rejects=2"], "--max_rejects"),
        (["--test-share=1.5"], "--test-share"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    defaults = {"--source": str(source), "--out": str(tmp_path / "out"), "--tasks": "recent"}
    given = defaults | dict(flag.split("=", 1) for flag in flags)
    with pytest.raises(SystemExit) as exit_info:
        main(["prepare", *(f"{name}={value}" for name, value in given.items())])
    error = capsys.readouterr().err.strip()
    assert exit_info.value.code == 2
    assert message in error and "\n" not in error and "Traceback" not in error


KNOWEDIT = os.environ.get("INSTRUCTEDIT_KNOWEDIT", "")


@pytest.mark.slow
@pytest.mark.skipif(not KNOWEDIT, reason="INSTRUCTEDIT_KNOWEDIT does not name a folder of KnowEdit's files")
def test_the_real_files_prepare_with_the_default_options(tmp_path: Path) -> None:
    prepare(KNOWEDIT, str(tmp_path))
    for task in ("recent", "counterfact", "convsent"):
        sizes = [len(read_prepared(tmp_path, task, split)) for split in SPLITS]
        assert sizes[0] > 5 * sizes[1] > 0 and sizes[2] > 100
    assert read_prepared(tmp_path, "zsre", "train") == []
    assert len(read_prepared(tmp_path, "zsre", "test")) > 100
