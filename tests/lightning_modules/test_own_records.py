"""A user's own records and instruction pool, through prepare, fit and the test table."""

import json
from pathlib import Path

import pytest
import yaml

from instructedit.checkpoints import read_card
from instructedit.evaluation.tables import from_jsonl
from tests.lightning_modules.conftest import WORDS, Write, run


def own_records(path: Path, n: int = 40) -> Path:
    lines = []
    for index in range(n):
        word, other = WORDS[index % 8], WORDS[(index + 3) % 8]
        lines.append(
            {
                "prompt": f"Part {index} is stored in",
                "target": word,
                "subject": f"Part {index}",
                "rephrases": [f"Where is part {index}? In"],
                "locality": [{"prompt": f"Part {index} weighs", "target": other}],
                "portability": [{"prompt": f"To fetch part {index} go to", "target": [word, other]}],
                "slots": {"SHELF": f"shelf {index}"},
            }
        )
    path.write_text("\n".join(map(json.dumps, lines)) + '\n{"prompt": "No target", "target": " "}\n')
    return path


@pytest.mark.slow
def test_prepare_fit_and_test_take_them(write_config: Write, tmp_path: Path) -> None:
    records = own_records(tmp_path / "parts.jsonl")
    pool = tmp_path / "pool.yaml"
    pool.write_text(
        yaml.safe_dump(
            {"task": "parts", "label": "Stock", "descriptions": [f"Note {n} for [SHELF]." for n in range(10)]}
        )
    )
    out = tmp_path / "own"
    flags = ("--source", tmp_path, "--out", out, "--tasks", f"jsonl:parts={records}", "--max_rejects", "0.05")
    assert run("prepare", *flags) == 0
    rejects = [json.loads(line) for line in (out / "parts" / "rejects.jsonl").read_text().splitlines()]
    assert [(r["file"], r["index"]) for r in rejects] == [("parts.jsonl", 40)] and "target" in rejects[0]["reason"]

    config = write_config(
        data__folder=str(out), data__tasks=["parts"], data__held_out=[], data__instructions=str(pool), data__batch=2
    )
    assert run("fit", "--config", config) == 0
    path = tmp_path / "runs" / "run"
    outcomes = from_jsonl(path / "results" / "test.jsonl")
    assert {o.method for o in outcomes} == {"Base", "InstructEdit (seen)", "InstructEdit (unseen)"}
    metrics = {o.metric for o in outcomes if o.task == "parts"}
    assert {"reliability", "generalization", "locality", "portability"} <= metrics
    card = read_card(path / "editor")
    assert card.tasks == ("parts",) and card.pools is not None and card.pools["parts"].label == "Stock"
