"""Asking a server: the real client over real HTTP, what is tried again, what ends at once, and where the key goes."""

import gzip
import logging
import socket
import sys
import time
from collections.abc import Iterator

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from instructedit.errors import InputError
from instructedit.instructions.client import KEY_VARIABLE, Server, ServerError, host_of
from tests.instructions.scripted import KEY, ScriptedServer, Step

pytest.importorskip("openai", reason="asking a server needs the extra llm")

ASKED = [{"role": "user", "content": "Write ten."}]


@pytest.fixture
def waited() -> list[float]:
    return []


def server(scripted: ScriptedServer, waited: list[float], **changes: object) -> Server:
    return Server("some-model", scripted.url, sleep=waited.append, **changes)  # type: ignore[arg-type]


def script(httpserver: HTTPServer, *steps: Step, **changes: object) -> ScriptedServer:
    return ScriptedServer(httpserver, list(steps), **changes)  # type: ignore[arg-type]


def test_an_answer_with_its_cost(httpserver: HTTPServer, waited: list[float]) -> None:
    scripted = script(httpserver, "1. Ten.")
    answer = server(scripted, waited, temperature=0.5).ask(ASKED, 77, 5)
    assert (answer.text, answer.prompt_tokens, answer.completion_tokens, answer.tokens) == ("1. Ten.", 100, 50, 150)
    assert answer.model == "scripted-1" and not answer.estimated and answer.tries == 1 and waited == []
    (sent,) = scripted.seen
    assert sent["messages"] == ASKED and (sent["max_tokens"], sent["seed"], sent["temperature"]) == (77, 5, 0.5)


def test_tokens_are_estimated_where_the_server_does_not_say(httpserver: HTTPServer, waited: list[float]) -> None:
    answer = server(script(httpserver, "x" * 300, usage=None), waited).ask(ASKED, 500, 5)
    assert answer.estimated and answer.completion_tokens == 101 and answer.prompt_tokens > 5


@pytest.mark.parametrize("status", [429, 500, 503, 408])
def test_what_may_pass_is_tried_again_with_growing_waits(
    httpserver: HTTPServer, waited: list[float], status: int
) -> None:
    scripted = script(httpserver, status, status, "at last")
    answer = server(scripted, waited).ask(ASKED, 9, 0)
    assert answer.text == "at last" and answer.tries == 3 and waited == [1.0, 2.0]


def test_the_server_may_say_how_long_to_wait(httpserver: HTTPServer, waited: list[float]) -> None:
    scripted = script(httpserver, 429, "now", retry_after="7")
    server(scripted, waited).ask(ASKED, 9, 0)
    scripted.seen.clear()
    scripted.retry_after = "99999"
    server(scripted, waited).ask(ASKED, 9, 0)
    assert waited == [7.0, 60.0]


@pytest.mark.parametrize(
    ("status", "words"), [(401, KEY_VARIABLE), (403, KEY_VARIABLE), (404, "--model"), (400, "log")]
)
def test_what_will_not_pass_ends_at_once(
    httpserver: HTTPServer, waited: list[float], monkeypatch: pytest.MonkeyPatch, status: int, words: str
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    scripted = script(httpserver, status)
    with pytest.raises(ServerError, match=words) as error:
        server(scripted, waited).ask(ASKED, 9, 0)
    assert len(scripted.seen) == 1 and waited == [] and str(status) in str(error.value)
    # The server repeats the key in its message.
    assert KEY not in str(error.value) and scripted.keys == {KEY}


def test_options_a_model_does_not_take_are_left_out(httpserver: HTTPServer, waited: list[float]) -> None:
    scripted = script(httpserver, "yes", refused=("max_tokens", "temperature", "seed"))
    asked = server(scripted, waited)
    assert asked.ask(ASKED, 77, 5).text == "yes" and waited == []
    assert {"max_completion_tokens", "model", "messages"} == set(scripted.seen[-1])
    assert asked.ask(ASKED, 77, 5).tries == 1 and len(scripted.seen) == 5
    scripted.refused = ("max_tokens", "max_completion_tokens")
    with pytest.raises(ServerError, match="max_completion_tokens"):
        asked.ask(ASKED, 7, 0)


@pytest.mark.parametrize(
    "nonsense", [b"<html>hello</html>", b"{}", b'{"choices": []}', b'{"choices": [{"message": 3}]}', b"[1]", b"{", b""]
)
def test_nonsense_is_tried_again_and_then_ends(httpserver: HTTPServer, waited: list[float], nonsense: bytes) -> None:
    scripted = script(httpserver, nonsense)
    with pytest.raises(ServerError, match="no chat completion"):
        server(scripted, waited, retries=2).ask(ASKED, 9, 0)
    assert len(scripted.seen) == 3 and len(waited) == 2


def test_a_dead_server_ends_after_its_retries(waited: list[float]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told: list[str] = []
    dead = Server("m", f"http://127.0.0.1:{port}/v1", retries=3, sleep=waited.append, told=told.append)
    with pytest.raises(ServerError, match=f"Cannot reach 127.0.0.1:{port}.*4 times. Start the server"):
        dead.ask(ASKED, 9, 0)
    assert waited == [1.0, 2.0, 4.0] and len(told) == 3 and "(2 of 4)" in told[0]


def test_a_server_that_hangs_ends(waited: list[float]) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        slow = Server(
            "m", f"http://127.0.0.1:{silent.getsockname()[1]}/v1", timeout_s=0.2, retries=1, sleep=waited.append
        )
        with pytest.raises(ServerError, match="No answer from"):
            slow.ask(ASKED, 9, 0)


def test_without_a_key_a_server_of_ones_own_is_asked_all_the_same(
    httpserver: HTTPServer, waited: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    scripted = script(httpserver, "yes")
    assert server(scripted, waited).ask(ASKED, 9, 0).text == "yes"
    with pytest.raises(InputError, match=f"{KEY_VARIABLE} is not set"):
        Server("m")


def test_the_key_is_in_no_log(
    httpserver: HTTPServer, waited: list[float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    with caplog.at_level(logging.DEBUG):
        server(script(httpserver, 500, "yes"), waited).ask(ASKED, 9, 0)
    assert caplog.records and KEY not in caplog.text


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(InputError, match=r"instructedit\[llm\]"):
        Server("m", "http://localhost:1/v1")


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", "http://[", "http://a:b/v1", "x"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(InputError, match="no address"):
        host_of(url)


@pytest.mark.parametrize("url", ["https://me:secret@host/v1", "https://host/v1?key=secret"])
def test_keys_do_not_belong_into_the_address(url: str) -> None:
    with pytest.raises(InputError, match="more than an address") as error:
        host_of(url)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("wrong", "flag"),
    [({"retries": -1}, "--retries"), ({"timeout_s": 0}, "--timeout"), ({"temperature": -1}, "--temperature")],
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, float], flag: str) -> None:
    with pytest.raises(InputError, match=f"{flag} is "):
        Server("m", "http://localhost:1/v1", **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["sk-secret\nmore", "sk secret", "sk-sécret"])
def test_what_cannot_be_a_key_is_refused_and_not_shown(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, key)
    with pytest.raises(InputError, match=f"{KEY_VARIABLE} holds") as error:
        Server("m", "http://localhost:1/v1")
    assert "cret" not in str(error.value)


def test_a_key_that_the_server_repeats_is_not_kept(
    httpserver: HTTPServer, waited: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    assert server(script(httpserver, f"1. Say {KEY}."), waited).ask(ASKED, 77, 5).text == "1. Say ***."


@pytest.mark.parametrize("usage", [{"prompt_tokens": -999, "completion_tokens": 5}, {"prompt_tokens": float("inf")}])
def test_tokens_that_cannot_be_do_not_widen_a_budget(
    httpserver: HTTPServer, waited: list[float], usage: dict[str, float]
) -> None:
    scripted = script(httpserver, "x" * 30, usage=usage)
    if "completion_tokens" in usage:
        answer = server(scripted, waited).ask(ASKED, 500, 5)
        assert answer.estimated and answer.prompt_tokens > 0 and answer.completion_tokens == 11
    else:
        with pytest.raises(ServerError, match="no chat completion"):
            server(scripted, waited, retries=0).ask(ASKED, 500, 5)


def test_an_answer_far_beyond_what_was_asked_is_cut(httpserver: HTTPServer, waited: list[float]) -> None:
    answer = server(script(httpserver, "[" * 100_000), waited).ask(ASKED, 10, 5)
    assert answer.cut and len(answer.text) == 320


def test_what_a_server_says_does_not_command_the_terminal(httpserver: HTTPServer, waited: list[float]) -> None:
    told: list[str] = []
    httpserver.expect_request("/v1/chat/completions").respond_with_json({"error": {"message": "\x1b[2J"}}, status=503)
    asked = Server("m", httpserver.url_for("/v1"), retries=1, sleep=waited.append, told=told.append)
    with pytest.raises(ServerError) as error:
        asked.ask(ASKED, 9, 0)
    assert len(told) == 1 and all("\\x1b[2J" in line and "\x1b" not in line for line in (*told, str(error.value)))


def test_redirects_are_not_followed(httpserver: HTTPServer, waited: list[float]) -> None:
    other = httpserver.url_for("/other")
    httpserver.expect_request("/v1/chat/completions").respond_with_data(status=307, headers={"location": other})
    with pytest.raises(ServerError, match="status 307.*Redirects are not followed"):
        Server("m", httpserver.url_for("/v1"), sleep=waited.append).ask(ASKED, 9, 0)
    assert [request.path for request, _ in httpserver.log] == ["/v1/chat/completions"] and waited == []


@pytest.mark.parametrize("status", [200, 400])
def test_an_endless_answer_ends(httpserver: HTTPServer, waited: list[float], status: int) -> None:
    sent: list[int] = []

    def endless(request: Request) -> Response:
        def parts() -> Iterator[bytes]:
            for n in range(1000):
                sent.append(n)
                yield bytes(2**20)

        return Response(parts(), status, mimetype="application/json")

    httpserver.expect_request("/v1/chat/completions").respond_with_handler(endless)
    with pytest.raises(ServerError, match="more than 4194304 bytes"):
        Server("m", httpserver.url_for("/v1"), sleep=waited.append).ask(ASKED, 9, 0)
    assert len(sent) < 100 and waited == []


def test_an_answer_that_drips_ends(httpserver: HTTPServer, waited: list[float]) -> None:
    def drip(request: Request) -> Response:
        def parts() -> Iterator[bytes]:
            for _ in range(40):
                time.sleep(0.2)
                yield b" "

        return Response(parts(), 200, mimetype="application/json")

    httpserver.expect_request("/v1/chat/completions").respond_with_handler(drip)
    slow = Server("m", httpserver.url_for("/v1"), timeout_s=0.3, retries=0, sleep=waited.append)
    start = time.monotonic()
    with pytest.raises(ServerError, match="No answer from"):
        slow.ask(ASKED, 9, 0)
    assert time.monotonic() - start < 4  # of 8


def test_a_packed_answer_is_not_unpacked(httpserver: HTTPServer, waited: list[float]) -> None:
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    httpserver.expect_request("/v1/chat/completions").respond_with_data(gzip.compress(b"{}"), headers=headers)
    with pytest.raises(ServerError, match="packed"):
        Server("m", httpserver.url_for("/v1"), sleep=waited.append).ask(ASKED, 9, 0)


def test_an_option_left_out_is_told(httpserver: HTTPServer) -> None:
    told: list[str] = []
    scripted = script(httpserver, "yes", refused=("temperature",))
    Server("m", scripted.url, told=told.append).ask(ASKED, 9, 0)
    assert len(told) == 1 and "asking without temperature" in told[0]
