"""The command instruct: real HTTP, the real client, and a Trial Editor that really is trained, on a tiny base."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from pytest_httpserver import HTTPServer

from instructedit.instructions.client import KEY_VARIABLE
from instructedit.instructions.pools import load_pools
from instructedit.tasks.prepared import write_prepared
from tests.hub_server import HubServer
from tests.instructions.conftest import TRIAL
from tests.instructions.scripted import KEY, ScriptedServer, descriptions, numbered
from tests.lightning_modules.conftest import example, run
from tests.test_hub import hub  # noqa: F401 - a fixture

pytest.importorskip("openai", reason="asking a server needs the extra llm")

ANSWERS = [numbered(descriptions(10, shift)) for shift in range(1, 8)]
OUT = Path("runs/instruct-counterfact")


def flags(scripted: ScriptedServer, *more: str) -> list[str]:
    given = ["--task", "counterfact", "--model", "some-model", "--base-url", scripted.url, "--config", "config.yaml"]
    return [*given, "--rounds", "2", "--asks", "1", *more]


def events(kind: str, out: Path = OUT) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    return [line for line in found if line["kind"] == kind]


@pytest.mark.slow
def test_two_rounds_end_in_a_pool_that_fit_takes(
    place: Path, httpserver: HTTPServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    scripted = ScriptedServer(httpserver, list(ANSWERS))
    assert run("instruct", *flags(scripted, "--patience", "9")) == 0
    told = capsys.readouterr()
    for words in (
        "round 1, ask 1: 10 of 10 descriptions can be used; 150 tokens",
        "ended   2 rounds were made; 2 answers, 300 tokens",
        f"pool    {OUT}/pool.yaml",
        "next    instructedit fit --config configs/experiment/instructedit-smollm2-135m.yaml",
        f"--data.instructions {OUT}/pool.yaml",
    ):
        assert words in told.out
    assert "steps/s" in told.err and "edits/s" in told.err and "left" in told.err
    pools = load_pools(OUT / "pool.yaml")
    assert set(pools) == set(load_pools()) and pools["recent"] == load_pools()["recent"]
    card = json.loads((OUT / "card.json").read_text())
    assert [each["text"] for each in card["descriptions"]] == list(pools["counterfact"].descriptions)
    assert [each["role"] for each in card["descriptions"]] == ["seen"] * 9 + ["unseen"]
    assert all(each["scores"]["score"]["records"] == 3 for each in card["descriptions"])
    assert card["provenance"]["model"] == "some-model" and card["provenance"]["answered as"] == ["scripted-1"]
    assert card["provenance"]["server"] == scripted.url.split("/")[2] and card["provenance"]["seeds"] == [0, 1]
    assert card["task"]["input_template"] and card["cost"]["tokens"] == 300 and set(card["rounds"]) == {"1", "2"}
    assert "| 10 (unseen) |" in (OUT / "card.md").read_text()
    assert [len(line["scores"]) for line in events("trial")] == [20] * 4
    assert events("ask")[0]["messages"][0]["role"] == "system"
    # Neither the key nor a record's text, nor a path of this machine.
    for file in (path for path in place.rglob("*") if path.is_file() and path.parts[-2] in ("trials", OUT.name)):
        content = file.read_text(errors="replace")
        assert KEY not in content and "The capital of" not in content and str(place) not in content, file
    assert KEY not in told.out + told.err and scripted.keys == {KEY}
    # Again: nothing is asked or trained.
    before = (OUT / "pool.yaml").read_bytes()
    assert run("instruct", *flags(scripted, "--patience", "9")) == 0
    assert len(scripted.seen) == 2 and (OUT / "pool.yaml").read_bytes() == before
    # Other settings do not.
    assert run("instruct", *flags(scripted, "--trial.steps", "3")) == 2
    assert "trial.steps (2, now 3)" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (401, f"status 401 (wrong key ***). Set {KEY_VARIABLE}"),
        (503, "status 503 (not now). Start the server"),
        (b"<html>", "no chat completion"),
        ("Nice weather.", "No description could be used in 2 asks of some-model at"),
    ],
)
def test_a_server_of_no_use_is_one_line_with_the_best_so_far(
    place: Path,
    httpserver: HTTPServer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    answer: Any,
    words: str,
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    scripted = ScriptedServer(httpserver, [answer])
    assert run("instruct", *flags(scripted, "--rounds", "2" if isinstance(answer, str) else "1")) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert words in line and f"{OUT}/pool.yaml" in line and "same command goes on" in line
    assert "the pool it began with" in line and KEY not in line
    assert load_pools(OUT / "pool.yaml")["counterfact"] == load_pools()["counterfact"]
    if answer in (503, b"<html>"):
        return  # it goes on as after 401
    # It is mended, and goes on.
    asked = len(events("ask"))
    scripted.script, rounds = [answer] * len(scripted.seen) + ANSWERS, "3" if isinstance(answer, str) else "1"
    assert run("instruct", *flags(scripted, "--rounds", rounds, "--patience", "9")) == 0
    assert len(events("trial")) == 2 and len(events("ask")) == asked + 1


@pytest.mark.slow
def test_a_task_of_ones_own_begins_without_a_pool(
    place: Path, httpserver: HTTPServer, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "prepared" / "counterfact").rename(place / "prepared" / "mine")
    texts = dict.fromkeys(("label", "family", "definition", "input_template", "target_template"), "Heights of towers.")
    Path("card.yaml").write_text(yaml.safe_dump({"task": "mine", **texts}))
    scripted = ScriptedServer(httpserver, list(ANSWERS))
    own = ["--task", "mine", "--card", "card.yaml", "--out", "own", "--rounds", "1"]
    assert run("instruct", *flags(scripted, *own)) == 0
    pool = load_pools("own/pool.yaml")["mine"]
    assert set(pool.descriptions) == set(descriptions(10, 1)) and pool.label == "Heights of towers."
    assert "none beyond the noise; 10 of the ten are new" in capsys.readouterr().out
    scripted.script, own[-3] = [numbered(descriptions(4, 1))], "few"
    assert run("instruct", *flags(scripted, *own)) == 2
    assert "4 of the 10 descriptions a pool needs are there" in capsys.readouterr().err
    assert not Path("few/pool.yaml").exists() and len(json.loads(Path("few/card.json").read_text())["task"]) == 7


def test_dry_run_prints_the_first_prompt_and_asks_nobody(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("instruct", "--task", "convsent", "--dry-run") == 0
    told = capsys.readouterr().out
    assert "[LABEL] and [TOPIC], spelled exactly so" in told and "Write 10 descriptions now" in told
    assert "Nothing was asked" in told and not Path("runs").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((), "--task is missing"),
        (("--task", "countrfact"), "Did you mean 'counterfact'?"),
        (("--task", "counterfact"), "--model is missing"),
        (("--task", "counterfact", "--model", "m"), f"{KEY_VARIABLE} is not set"),
        (("--task", "counterfact", "--model", "m", "--base-url", "host"), "no address"),
        (("--task", "zsre", "--model", "m", "--base-url", "http://h/v1"), "no training records"),
        (("--task", "demo-zsre", "--model", "m", "--base-url", "http://h/v1"), "No prepared split demo-zsre/train"),
        (("--task", "recent", "--model", "m", "--base-url", "http://h/v1", "--rounds", "0"), "--rounds is 0"),
        (("--publish",), "--repo is missing"),
        (("--publish", "--dry-run", "--runs", "nowhere"), "nowhere/card.json is no card"),
    ],
)
def test_what_is_refused(place: Path, capsys: pytest.CaptureFixture[str], given: tuple[str, ...], words: str) -> None:
    assert run("instruct", "--config", "config.yaml", *given) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and words in line


@pytest.mark.slow
def test_all_pools_are_a_data_set(
    place: Path, httpserver: HTTPServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted = ScriptedServer(httpserver, list(ANSWERS))
    assert run("instruct", *flags(scripted, "--rounds", "1", "--from-scratch")) == 0
    capsys.readouterr()
    assert run("instruct", "--publish", "--dry-run", "--runs", str(OUT), "--out", "set", "--repo", "me/set") == 0
    told = capsys.readouterr().out
    assert "instructions to me/set, public" in told and "descriptions.jsonl" in told and "Nothing was sent" in told
    assert "note: Descriptions written by some-model" in told
    rows = [json.loads(line) for line in Path("set/descriptions.jsonl").read_text().splitlines()]
    assert len(rows) == 50 and len({tuple(row) for row in rows}) == 1
    new = [row for row in rows if row["source"] == "loop"]
    assert all(row["model"] == "some-model" and row["score"] is not None and row["records"] == 3 for row in new)
    assert {row["task"] for row in rows} == set(load_pools()) and all(row["family"] for row in rows)
    assert json.loads(next(row for row in rows if row["task"] == "convsent")["placeholders"]).keys() == {
        "LABEL",
        "TOPIC",
    }
    page = Path("set/README.md").read_text()
    front = yaml.safe_load(page.split("---")[1])
    assert front["license"] == "apache-2.0" and front["configs"][0]["data_files"][0]["path"] == "descriptions.jsonl"
    assert "50 generic descriptions of 4 knowledge editing tasks" in page

    import datasets

    loaded = datasets.load_dataset("json", data_files="set/descriptions.jsonl", split="train", cache_dir="hf")
    assert loaded.num_rows == 50 and loaded.features["score"].dtype == "float64"


def test_publishing_sends_a_data_set(
    hub: HubServer,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("instruct", "--publish", "--repo", "me/set", "--private") == 0
    assert "2 files: " in capsys.readouterr().out
    assert set(hub.repositories["me/set"].files) == {"descriptions.jsonl", "README.md"}
    assert hub.repositories["me/set"].private and any("/api/datasets/me/set/commit" in seen for seen in hub.seen)


LONG = "This very long description only drowns what is asked in words that say nothing about it at all, number"


def _words(first: str, *then: str) -> list[str]:
    return [f"{first}{middle}{last}o" for middle in then for last in "ae"]


@pytest.mark.slow
def test_a_trained_trial_ranks_planted_descriptions_and_tells_no_gain_among_equals(
    place: Path, httpserver: HTTPServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a random GPT-2 long descriptions drown the input: edits under them come out worse than under short ones."""
    records = {"train": range(24), "validation": range(8), "test": range(2)}
    splits = {split: [example("counterfact", split, n) for n in numbers] for split, numbers in records.items()}
    write_prepared(Path("prepared"), "counterfact", splits, {})  # type: ignore[arg-type]
    trial = {**TRIAL, "rank": 16, "lr": 5e-3, "steps": 12, "batch": 4, "records": 8, "seeds": 3}
    Path("config.yaml").write_text(yaml.safe_dump({"trial": trial}))
    long = [2 * f"{LONG} {word} {word[::-1]} {word.upper()} {word * 3}." for word in _words("", *"bdfgk")]
    document = {"task": "counterfact", "label": "Facts", "descriptions": long}
    Path("pools.yaml").write_text(yaml.safe_dump(document))
    short = [
        [f"Do {word} {word[::-1]} {n} {word[::2]} so." for n, word in enumerate(_words(first, *"lmnrs"))]
        for first in ("ka", "po")
    ]
    scripted = ScriptedServer(httpserver, [numbered(each) for each in short])
    more = ["--instructions", "pools.yaml", "--patience", "1", "--threshold", "0.02"]
    assert run("instruct", *flags(scripted, *more)) == 0
    first, second = events("round")
    assert set(first["best"]) == set(short[0]) and first["gained"]
    assert first["gain"]["mean"] > max(first["gain"]["noise"], 0.05)
    assert not second["gained"] and abs(second["gain"]["mean"]) < 0.02
    told = capsys.readouterr().out
    assert "round 1: gain of" in told and "beyond the noise in round 1" in told


@pytest.mark.slow
def test_killed_in_the_middle_of_a_trial_it_goes_on(place: Path, httpserver: HTTPServer) -> None:
    scripted = ScriptedServer(httpserver, list(ANSWERS))
    command = [sys.executable, "-m", "instructedit", "instruct", *flags(scripted, "--trial.steps", "50")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        limit = time.monotonic() + 120
        while not (OUT / "events.jsonl").exists() or not events("screened"):
            assert time.monotonic() < limit and process.poll() is None
            time.sleep(0.05)
        time.sleep(1)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(events("ask")) == 1 and not events("trial")
    assert run("instruct", *flags(scripted, "--trial.steps", "50", "--rounds", "1")) == 0
    assert len(scripted.seen) == 1 and len(events("trial")) == 2
