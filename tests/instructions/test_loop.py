"""The loop against a scripted server over real HTTP: its stop rule, its budgets, its ends, and going on after each."""

import json
import shutil
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer

from instructedit.errors import InputError, MismatchError
from instructedit.instructions.cards import load_cards
from instructedit.instructions.client import Server
from instructedit.instructions.loop import Loop
from instructedit.instructions.loop_record import EVENTS, LoopRecord
from instructedit.instructions.loop_result import Result
from instructedit.instructions.loop_settings import LoopSettings
from instructedit.instructions.pools import load_pools
from instructedit.instructions.scores import Scores
from instructedit.instructions.screen import Names
from instructedit.tasks.choice import stable_fraction
from tests.instructions.scripted import ScriptedServer, descriptions, numbered

pytest.importorskip("openai", reason="asking a server needs the extra llm")

CARD = load_cards()["counterfact"]
START = load_pools()["counterfact"].descriptions
QUICK = LoopSettings(rounds=4, asks=2, patience=2, threshold=0.01)
SETTINGS = {"model": "m"}


def judged(quality: Callable[[str], float]) -> Callable[[Sequence[str], int], tuple[Scores, float]]:
    """A trial in which a description's quality shows through the noise of seeds and records."""

    def try_(texts: Sequence[str], seed: int) -> tuple[Scores, float]:
        noise = {text: {f"r{r}": 0.02 * stable_fraction(text, str(seed), str(r)) for r in range(8)} for text in texts}
        own = {text: {r: quality(text) + value for r, value in noise[text].items()} for text in texts}
        return {text: {"score": own[text], "reliability": own[text]} for text in texts}, 2.0

    return try_


def run(
    folder: Path, server: Server, settings: LoopSettings = QUICK, start: Sequence[str] = START, **changes: Any
) -> Result:
    try_ = changes.get("try_", judged(lambda text: 0.5))
    with LoopRecord.opened(folder, changes.get("given", SETTINGS)) as record:
        loop = Loop(CARD, start, Names([]), settings, record, server.ask, try_)
        return loop.run()


def asking(scripted: ScriptedServer, **changes: Any) -> Server:
    return Server("m", scripted.url, retries=1, sleep=lambda seconds: None, **changes)


def lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / EVENTS).read_text().splitlines()]
    return [line for line in found if line["kind"] == kind]


ANSWERS = [numbered(descriptions(10, shift)) for shift in range(1, 8)]


def test_it_stops_when_nothing_is_won_any_more(httpserver: HTTPServer, tmp_path: Path) -> None:
    scripted = ScriptedServer(httpserver, list(ANSWERS))
    # Better than ours, and among themselves equal.
    result = run(tmp_path, asking(scripted), try_=judged(lambda text: 0.5 if text in START else 0.7))
    assert result.ended == "stopped" and result.why == "no gain in 2 rounds in a row"
    assert [found.told for found in result.gains.values()] == [True, False, False]
    assert result.gains[1].mean == pytest.approx(0.2, abs=0.02)
    assert not set(result.best) & set(START) and len(result.best) == 10
    # What is told to the model: nothing of scores at first, then the ten best with theirs.
    assert "Best first" not in scripted.prompts[0] and CARD.definition in scripted.prompts[0]
    second = next(prompt for prompt in scripted.prompts if "Best first" in prompt)
    assert all(text in second for text in descriptions(10, 1)) and "score 7" in second
    assert [line["gained"] for line in lines(tmp_path, "round")] == [True, False, False]


def test_the_best_planted_descriptions_come_first(httpserver: HTTPServer, tmp_path: Path) -> None:
    scripted = ScriptedServer(httpserver, [numbered(descriptions(10, 1))])
    order = {text: place for place, text in enumerate(descriptions(10, 1))}
    result = run(
        tmp_path,
        asking(scripted),
        replace(QUICK, rounds=1),
        try_=judged(lambda text: 0.9 - 0.03 * order[text] if text in order else 0.1),
    )
    assert result.best == descriptions(10, 1) and result.ended == "rounds"


def test_what_noise_favours_takes_no_place(httpserver: HTTPServer, tmp_path: Path) -> None:
    scripted = ScriptedServer(httpserver, list(ANSWERS))
    result = run(tmp_path, asking(scripted))
    assert result.ended == "stopped" and set(result.best) == set(START)
    # The model is shown what came out best all the same.
    assert set(result.shown) != set(START) and any(text in scripted.prompts[1] for text in descriptions(10, 1))


def test_what_was_cut_off_is_not_used(httpserver: HTTPServer, tmp_path: Path) -> None:
    scripted = ScriptedServer(httpserver, list(ANSWERS), finish="length")
    run(tmp_path, asking(scripted), replace(QUICK, rounds=1, asks=1))
    (line,) = lines(tmp_path, "screened")
    assert line["kept"] == descriptions(9, 1) and "--answer-tokens" in line["rejected"][0]["reason"]


def test_without_a_pool_the_first_ten_begin_it(httpserver: HTTPServer, tmp_path: Path) -> None:
    scripted = ScriptedServer(httpserver, [numbered(descriptions(4, 1)), numbered(descriptions(10, 1)), ANSWERS[1]])
    result = run(tmp_path, asking(scripted), replace(QUICK, rounds=2, asks=2), start=())
    assert len(result.best) == 10 and list(result.gains) == [2]
    assert "do not repeat them" in scripted.prompts[1] and "Write 6 descriptions" in scripted.prompts[1]


@pytest.mark.parametrize(
    ("limits", "ended"),
    [({"rounds": 1}, "rounds"), ({"max_tokens": 1200}, "tokens"), ({"max_minutes": 3.5 / 60}, "minutes")],
)
def test_a_budget_ends_it_and_a_larger_one_goes_on(
    httpserver: HTTPServer, tmp_path: Path, limits: dict[str, Any], ended: str
) -> None:
    scripted = ScriptedServer(httpserver, list(ANSWERS))
    wide = replace(QUICK, rounds=3, patience=9)
    result = run(tmp_path, asking(scripted), replace(wide, **limits))
    assert result.ended == ended and len(result.best) == 10
    asked = len(scripted.seen)
    assert result.tokens == 150 * asked and asked < 3
    again = run(tmp_path, asking(scripted), wide)
    assert again.ended == "rounds" and len(lines(tmp_path, "ask")) == len(scripted.seen)
    assert len({(line["round"], line["ask"]) for line in lines(tmp_path, "ask")}) == len(scripted.seen)


def test_tokens_are_never_overrun(httpserver: HTTPServer, tmp_path: Path) -> None:
    scripted = ScriptedServer(httpserver, list(ANSWERS), usage=None)
    result = run(tmp_path, asking(scripted), replace(QUICK, max_tokens=1500, patience=9))
    assert result.ended == "tokens" and result.tokens <= 1500
    assert all(asked["max_tokens"] <= 1500 for asked in scripted.seen)


@pytest.mark.parametrize("nonsense", ["", "I cannot help with that.", "1. no\n2. yes", "[]", "x" * 5000])
def test_answers_without_a_description_end_it(httpserver: HTTPServer, tmp_path: Path, nonsense: str) -> None:
    scripted = ScriptedServer(httpserver, [nonsense])
    result = run(tmp_path, asking(scripted), replace(QUICK, rounds=9))
    assert result.ended == "stopped" and result.why == "no description could be used in 4 asks"
    assert tuple(result.best) == START and not result.trials and not result.usable
    assert len(scripted.seen) == 4


def test_every_rejection_is_kept_with_its_reason_and_told(httpserver: HTTPServer, tmp_path: Path) -> None:
    scripted = ScriptedServer(httpserver, ["1. Too short.\n2. " + descriptions(1, 1)[0], ANSWERS[1]])
    run(tmp_path, asking(scripted), replace(QUICK, rounds=1))
    first = lines(tmp_path, "screened")[0]
    assert first["kept"] == descriptions(1, 1)
    assert first["rejected"] == [{"text": "Too short.", "reason": "shorter than 5 words"}]
    assert "Too short.  (not usable: shorter than 5 words)" in scripted.prompts[1]


def test_a_guessed_example_is_never_in_a_prompt(httpserver: HTTPServer, tmp_path: Path) -> None:
    scripted = ScriptedServer(httpserver, ["1. Tell that the river there is the Danube from now on.", ANSWERS[1]])
    with LoopRecord.opened(tmp_path, SETTINGS) as record:
        names, trial = Names(["Danube"]), judged(lambda text: 0.5)
        Loop(CARD, START, names, replace(QUICK, rounds=1), record, asking(scripted).ask, trial).run()
    assert "one of them  (not usable: names an example)" in scripted.prompts[1]
    assert not any("Danube" in prompt for prompt in scripted.prompts)


def test_a_server_that_dies_between_asks(httpserver: HTTPServer, tmp_path: Path) -> None:
    scripted = ScriptedServer(httpserver, [numbered(descriptions(6, 1)), *ANSWERS[1:]])
    alive = asking(scripted)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = Server("m", f"http://127.0.0.1:{free.getsockname()[1]}/v1", retries=1, sleep=lambda seconds: None)

    class Dying:
        def ask(self, *given: Any) -> Any:
            return (alive if not scripted.seen else dead).ask(*given)

    tried: list[int] = []
    judge = judged(lambda text: 0.5)

    def try_(texts: Sequence[str], seed: int) -> tuple[Scores, float]:
        tried.append(seed)
        return judge(texts, seed)

    result = run(tmp_path, Dying(), try_=try_)  # type: ignore[arg-type]
    assert result.ended == "server" and "Cannot reach 127.0.0.1" in result.why and "2 times" in result.why
    assert tuple(result.best) == START and tried == [] and len(lines(tmp_path, "failure")) == 1
    # It is there again: the answer that was read is not asked for again, and no trial is made twice.
    run(tmp_path, alive, replace(QUICK, rounds=1), try_=try_)
    assert [(line["round"], line["ask"]) for line in lines(tmp_path, "ask")] == [(1, 1), (1, 2)]
    assert len(scripted.seen) == 2 and tried == [0, 1]
    run(tmp_path, alive, replace(QUICK, rounds=1), try_=try_)
    assert len(scripted.seen) == 2 and tried == [0, 1]


@pytest.mark.slow
def test_killed_after_any_line_it_comes_to_the_same_place(httpserver: HTTPServer, tmp_path: Path) -> None:
    scripted = ScriptedServer(httpserver, [numbered(descriptions(6, 1)), *ANSWERS[1:]])
    try_ = judged(lambda text: 0.5 + 0.2 * stable_fraction("quality", text))
    server = asking(scripted)
    whole = run(tmp_path / "whole", server, try_=try_)
    content = (tmp_path / "whole" / EVENTS).read_bytes().splitlines(keepends=True)
    asked = len(scripted.seen)
    for cut in range(len(content) + 1):
        folder = tmp_path / f"cut-{cut}"
        shutil.copytree(tmp_path / "whole", folder)
        # The next line half written, as a kill leaves it.
        torn = content[cut][: len(content[cut]) // 2] if cut < len(content) else b""
        (folder / EVENTS).write_bytes(b"".join(content[:cut]) + torn)
        done = sum(json.loads(line)["kind"] == "ask" for line in content[:cut])
        # What is left of the script is what was answered after the cut.
        scripted.seen[:] = scripted.seen[:done]
        again = run(folder, server, try_=try_)
        assert (again.best, again.ended, again.gains, again.tokens) == (
            whole.best,
            whole.ended,
            whole.gains,
            whole.tokens,
        )
        assert len(scripted.seen) == asked, f"after line {cut} something was asked twice or not at all"


def test_other_settings_are_refused_and_two_at_once_too(httpserver: HTTPServer, tmp_path: Path) -> None:
    scripted = ScriptedServer(httpserver, list(ANSWERS))
    run(tmp_path, asking(scripted), replace(QUICK, rounds=1))
    with pytest.raises(MismatchError, match='model \\("m", now "other"\\)'):
        run(tmp_path, asking(scripted), given={"model": "other"})
    with LoopRecord.opened(tmp_path, SETTINGS), pytest.raises(InputError, match="Another process works"):
        run(tmp_path, asking(scripted))


@pytest.mark.parametrize(
    "wrong", [{"rounds": 0}, {"asks": 0}, {"threshold": -1}, {"max_tokens": 0}, {"max_minutes": 0}]
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        LoopSettings(**wrong)
