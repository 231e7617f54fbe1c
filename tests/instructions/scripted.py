"""A server that speaks OpenAI's chat completions and says what a script has: real HTTP, asked by the real client."""

import json
from dataclasses import dataclass, field
from typing import Any

from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from instructedit.tasks.choice import stable_hash

KEY = "sk-test-0123456789abcdef"

Step = str | int | bytes
"""An answer's text, a status to fail with, or a body of its own."""


@dataclass
class ScriptedServer:
    """Answers at ``url``; step by step as ``script`` has it, the last one for ever; ``seen`` has every request.

    ``refused`` are options of a request that it does not take.
    """

    server: HTTPServer
    script: list[Step]
    usage: dict[str, int] | None = field(default_factory=lambda: {"prompt_tokens": 100, "completion_tokens": 50})
    retry_after: str = ""
    finish: str = "stop"
    refused: tuple[str, ...] = ()
    seen: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.server.expect_request("/v1/chat/completions", method="POST").respond_with_handler(self.answer)

    @property
    def url(self) -> str:
        return self.server.url_for("/v1")

    @property
    def prompts(self) -> list[str]:
        """What the user's message was, ask by ask."""
        return [request["messages"][-1]["content"] for request in self.seen]

    def answer(self, request: Request) -> Response:
        step = self.script[min(len(self.seen), len(self.script) - 1)]
        self.seen.append(json.loads(request.data))
        self.keys.add(request.headers.get("authorization", "").removeprefix("Bearer "))
        for option in self.refused:
            if option in self.seen[-1]:
                told = json.dumps({"error": {"message": f"Unsupported parameter: '{option}' is not supported."}})
                return Response(told, 400, mimetype="application/json")
        if isinstance(step, int):
            headers = {"retry-after": self.retry_after} if self.retry_after else {}
            told = json.dumps({"error": {"message": f"wrong key {KEY}" if step == 401 else "not now"}})
            return Response(told, step, headers=headers, mimetype="application/json")
        if isinstance(step, bytes):
            return Response(step, 200, mimetype="text/html" if step[:1] == b"<" else "application/json")
        if self.usage is None:  # as the client estimates them
            step = step[: 3 * (self.seen[-1]["max_tokens"] - 1)]
        content: dict[str, Any] = {
            "id": "x",
            "object": "chat.completion",
            "created": 1,
            "model": "scripted-1",
            "choices": [{"index": 0, "finish_reason": self.finish, "message": {"role": "assistant", "content": step}}],
        }
        if self.usage is not None:
            content["usage"] = {**self.usage, "total_tokens": sum(self.usage.values())}
        return Response(json.dumps(content), 200, mimetype="application/json")


VERBS = ("Replace", "Overwrite", "Change", "Revise", "Alter", "Swap", "Exchange", "Correct", "Modify", "Rework")


def descriptions(n: int = 10, shift: int = 0) -> list[str]:
    """Different usable descriptions; another shift gives others, none of them near these."""
    return [f"{VERBS[i % 10]} {_word(i, shift, 0)} and {_word(i, shift, 1)} by {_word(i, shift, 2)}." for i in range(n)]


def _word(*place: int) -> str:
    number = stable_hash("word", *map(str, place))
    return "".join("bdfgklmnprstvz"[number >> 8 * k & 7] + "aeiou"[(number >> 8 * k + 4 & 15) % 5] for k in range(4))


def numbered(texts: list[str]) -> str:
    return "Here they are:\n" + "\n".join(f"{place}. {text}" for place, text in enumerate(texts, 1))
