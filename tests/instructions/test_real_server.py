"""The loop against a real language model: SmolLM2-135M behind `transformers serve`, killed amid a round."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from instructedit.instructions.pools import load_pools
from tests.instructions.served import Served, folder_to_serve
from tests.lightning_modules.conftest import run

ROOT = Path(__file__).parents[2]
OUT = Path("run")


def events(kind: str) -> list[dict[str, Any]]:
    if not (OUT / "events.jsonl").exists():
        return []
    found = [json.loads(line) for line in (OUT / "events.jsonl").read_text().splitlines()]
    return [line for line in found if line["kind"] == kind]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_two_rounds_with_a_real_server_that_is_killed_and_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for package, extra in {"openai": "llm", "fastapi": "serve", "uvicorn": "serve", "gguf": "gguf"}.items():
        pytest.importorskip(package, reason=f"a real server needs the extra {extra}")
    folder = folder_to_serve(tmp_path / "smollm2-135m")
    monkeypatch.chdir(tmp_path)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        served = Served(folder, free.getsockname()[1], tmp_path / "server.log")
    assert run("prepare", "--source", "demo", "--out", "data", "--tasks", "demo-counterfact") == 0
    trial = {"data": "data", "steps": 2, "batch": 2, "records": 2, "rank": 8, "warmup_steps": 1, "dtype": "float32"}
    command = [sys.executable, "-m", "instructedit", "instruct", "--config", ROOT / "configs/instruct/demo.yaml"]
    command += ["--task", "demo-counterfact", "--model", folder, "--base-url", served.url, "--out", OUT]
    command += ["--rounds", "2", "--patience", "9", "--asks", "2", "--answer-tokens", "150", "--retries", "1"]
    command += [f"--trial.{name}={value}" for name, value in trial.items()]
    again = [str(part) for part in command]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    try:
        served.start()
        process = subprocess.Popen(again, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        # One answer is read, and the next one is being written.
        limit = time.monotonic() + 200
        while not (len(events("ask")) == 1 and served.asked() == 2):
            assert process.poll() is None and time.monotonic() < limit, process.communicate()
            time.sleep(0.05)
        served.kill()
        out, err = process.communicate(timeout=120)
        (line,) = [line for line in err.splitlines() if line.startswith("error:")]
        assert process.returncode == 2 and "Traceback" not in err
        assert "Cannot reach localhost" in line and "2 times" in line and "After 1 answers" in line
        assert f"{OUT}/pool.yaml" in line and "The same command goes on" in line
        assert (
            load_pools(OUT / "pool.yaml")["demo-counterfact"].descriptions == load_pools()["counterfact"].descriptions
        )
        (first,) = events("ask")

        served.start()
        done = subprocess.run(again, env=environment, capture_output=True, text=True, timeout=400)
    finally:
        served.kill()
    # A model of this size may write nothing that can be used: then that is what is said.
    usable = [text for line in events("screened") for text in line["kept"]]
    said = "ended   2 rounds were made" if usable else "No description could be used in 4 asks"
    assert done.returncode == (0 if usable else 2) and said in done.stdout + done.stderr, done.stderr[-2000:]
    asks = events("ask")
    assert asks[0] == first and [(ask["round"], ask["ask"]) for ask in asks] == sorted(
        {(ask["round"], ask["ask"]) for ask in asks}
    )
    assert {line["round"] for line in events("round")} == {1, 2} and len(events("failure")) == 1
    assert all(ask["answer"]["completion_tokens"] <= 150 and not ask["answer"]["estimated"] for ask in asks)
    # Every answer was asked for once, but for the one that was cut off by the kill.
    assert served.asked() == len(asks) + 1
    assert all(verdict["reason"] for line in events("screened") for verdict in line["rejected"])
    assert len(load_pools(OUT / "pool.yaml")["demo-counterfact"].descriptions) == 10
    assert str(tmp_path) not in (OUT / "card.json").read_text()
    with capfd.disabled():
        spent = sum(ask["answer"]["seconds"] for ask in asks)
        print(f"\n{len(asks)} answers in {spent:.0f} s, {len(usable)} descriptions usable; {said}")
