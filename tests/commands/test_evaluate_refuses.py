"""What the command evaluate refuses, each with one line and before the first edit; and what --explain prints."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.commands.conftest import OUT, Evaluate
from tests.lightning_modules.conftest import run


def test_explain_needs_no_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("evaluate", "--explain", "reliability") == 0
    assert "argmax" in capsys.readouterr().out
    assert run("evaluate", "--explain", "reliabilty") == 2
    assert "'reliability'" in capsys.readouterr().err


MEND = {"method": "mend"}


@pytest.mark.parametrize(
    ("changes", "flags", "named"),
    [
        ({"metods": []}, (), "metods"),
        ({"methods": [{"method": "none", "optons": {"steps": 1}}]}, (), "optons"),
        ({"methods": [{"method": "ft-x"}]}, (), "'ft-l'"),
        ({"methods": [{"method": "ft-l", "options": {"stps": 3}}]}, (), "'steps'"),
        ({"methods": [{"method": "ft-l", "options": {"steps": "many"}}]}, (), "steps"),
        ({"methods": [{"method": "ft-l", "options": {"block": 4}}]}, (), "block"),
        ({"methods": [{"method": "none"}, {"method": "none"}]}, (), "Two rows"),
        ({"methods": []}, (), "methods"),
        ({"methods": [MEND]}, (), "editor"),
        ({"methods": [MEND | {"editor": "nowhere"}]}, (), "nowhere"),
        ({"methods": [MEND | {"editor": "PLACE/instructedit"}]}, (), "InstructEdit"),
        ({"methods": [{"method": "none", "editor": "PLACE/mend"}]}, (), "no editor"),
        ({"methods": [MEND | {"editor": "PLACE/mend", "options": {"rank": 3}}]}, (), "rank"),
        ({"methods": [{"method": "instructedit", "editor": "PLACE/instructedit", "instructions": []}]}, (), "the key"),
        ({"methods": [{"method": "no_such_module:Method"}]}, (), "no_such_module"),
        ({"methods": [{"method": "instructedit.records:Outcome"}]}, (), "stage_for"),
        ({"base": "PLACE/other"}, (), "trained on base"),
        ({"base": "PLACE/nothing"}, (), "PLACE/nothing"),
        ({"base": ""}, (), "no base"),
        ({"data": "PLACE/nothing"}, (), "instructedit prepare"),
        ({"tasks": ["recent", "counterfact"]}, (), "counterfact"),
        ({"tasks": ["recent", "recent"]}, (), "twice"),
        ({"held_out": ["zsre"]}, (), "zsre"),
        ({"held_out": ["recent"]}, (), "MEND: held_out names recent"),
        ({"fluency": {"convsnt": 3}}, (), "'convsent'"),
        ({"records": 0}, (), "records"),
        ({"batch": 0}, (), "batch"),
        ({"greedy": -1}, (), "greedy"),
        ({"fluency_tokens": 600}, (), "context"),
        ({"editing": "together", "sizes": [3]}, (), "divide"),
        ({"instructions": "PLACE/nothing"}, (), "pools"),
        ({"dtype": "float16"}, (), "dtype"),
        ({}, ("--against", "MNED"), "'MEND'"),
        ({}, ("--only", "MNED"), "'MEND'"),
        ({}, ("--only_tasks", "recnt"), "'recent'"),
        ({}, ("--paper", "gpt2"), "paper"),
        ({}, ("--device", "cuda"), "GPU"),
        ({}, ("--greedi", "3"), "greedi"),
        ({}, ("--only_table", "true"), "0 of 16 edits"),
    ],
)
def test_what_is_wrong_is_one_line_and_status_2_and_no_edit_is_made(
    evaluate: Evaluate,
    place: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    flags: tuple[str, ...],
    named: str,
) -> None:
    import torch

    if "--device" in flags and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    filled = yaml.safe_load(yaml.safe_dump(changes).replace("PLACE", str(place)))
    assert evaluate(*flags, **filled) == 2
    out, err = capsys.readouterr()
    assert err.startswith("error: ") and err.count("\n") == 1, err
    assert named.replace("PLACE", str(place)) in err
    assert not (OUT / "rows.jsonl").exists()
