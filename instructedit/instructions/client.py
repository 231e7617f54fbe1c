"""A server that speaks OpenAI's chat completions: one ask, retried with backoff, with a clear end.

The key comes from the environment alone (OPENAI_API_KEY) and is never shown, logged or written. Knows messages, tokens
and seconds; nothing of tasks.
"""

import math
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from instructedit.errors import InputError
from instructedit.instructions.bounded import TooMuchError, TooSlowError, bounded_client
from instructedit.instructions.propose import Message
from instructedit.terminal import shown

KEY_VARIABLE = "OPENAI_API_KEY"
NO_KEY = "none"
"""Sent where no key is set: servers on one's own machine want none, the client wants one."""

CHARACTERS_PER_TOKEN = 3
"""For servers that do not say what an answer took; low, so that a budget is not overrun."""

MOST_CHARACTERS_PER_TOKEN = 32
"""What an answer holds beyond that, a server that minds no limit wrote: it is cut off there."""

MOST_WAIT_S = 60.0
MOST_SIGNS = 300

_PREFIX = r"^Error code: \d+ - "
"""What the client puts before a server's message."""


class ServerError(InputError):
    """A server that cannot be reached, refuses, or answers nothing that can be read, after all retries."""


@dataclass(frozen=True)
class Answer:
    """What a server said.

    Args:
        text: the answer.
        prompt_tokens: of the messages.
        completion_tokens: of the answer.
        estimated: whether the tokens are an estimate, as the server did not say.
        seconds: from the first try to the answer.
        tries: how many requests it took.
        model: what the server calls the model that answered; empty where it does not say.
        cut: whether the answer ended for want of tokens.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    estimated: bool
    seconds: float
    tries: int
    model: str = ""
    cut: bool = False

    @property
    def tokens(self) -> int:
        """Of messages and answer."""
        return self.prompt_tokens + self.completion_tokens


def estimated_tokens(messages: Sequence[Message]) -> int:
    """Return about how many tokens messages have, rather too many than too few."""
    return sum(len(message["content"]) // CHARACTERS_PER_TOKEN + 8 for message in messages)


class Server:
    """One model behind one address.

    Args:
        model: the model's name on the server.
        base_url: the server's address, such as ``http://localhost:8000/v1``; empty for OpenAI's own.
        temperature: of the sampling.
        timeout_s: seconds to wait for an answer to begin, and again for it to end.
        retries: requests after the first that are tried where one fails in a way that may pass.
        backoff_s: seconds before the second try; doubled each time, unless the server names a time itself.
        sleep: waits.
        told: is given a line before each wait.

    Raises:
        InputError: the address is none, holds a password, a number is out of range, or a key is needed and missing or
            none.
    """

    def __init__(
        self,
        model: str,
        base_url: str = "",
        temperature: float = 1.0,
        timeout_s: float = 120.0,
        retries: int = 5,
        backoff_s: float = 1.0,
        sleep: Callable[[float], None] = time.sleep,
        told: Callable[[str], None] = lambda line: None,
    ) -> None:
        for name, value in (("--temperature", temperature), ("--retries", retries)):
            if not 0 <= value < math.inf:
                raise InputError(f"{name} is {value}. Set it to 0 or more.")
        if not 0 < timeout_s < math.inf:
            raise InputError(f"--timeout is {timeout_s}. Set it above 0.")
        self.model, self.temperature, self.retries, self.backoff_s = model, temperature, retries, backoff_s
        self._sleep, self._told = sleep, told
        self._options = ["max_tokens", "temperature", "seed"]
        self.host = host_of(base_url)
        self._key = os.environ.get(KEY_VARIABLE, "").strip()
        if not self._key and not base_url:
            raise InputError(
                f"The environment variable {KEY_VARIABLE} is not set, which OpenAI's server needs. Set it, or name "
                "another server with --base-url, such as http://localhost:8000/v1."
            )
        if not all("!" <= sign <= "~" for sign in self._key):
            # Such a header cannot be sent, and the error about it would hold the key.
            raise InputError(
                f"The environment variable {KEY_VARIABLE} holds a space, a line break or a sign that no key has. "
                "Set it to the key alone."
            )
        try:
            from openai import OpenAI
        except ModuleNotFoundError as error:
            raise InputError(
                "Asking a server needs the package 'openai', which is not installed. "
                "Run `pip install 'instructedit[llm]'`."
            ) from error

        # Retries are ours: the client's own tell nobody what they wait for.
        self._client = OpenAI(
            api_key=self._key or NO_KEY,
            base_url=base_url or "https://api.openai.com/v1",
            timeout=timeout_s,
            max_retries=0,
            http_client=bounded_client(timeout_s),
        )

    def ask(self, messages: Sequence[Message], max_tokens: int, seed: int) -> Answer:
        """Ask once, trying again where that may help.

        Args:
            messages: the conversation.
            max_tokens: the most tokens of the answer.
            seed: for servers that sample by one; others leave it out.

        Raises:
            ServerError: the server refuses, or every try failed.
        """
        start, attempt = time.monotonic(), 0
        while True:
            try:
                said = self._once(messages, max_tokens, seed)
                return self._answer(said, messages, max_tokens, time.monotonic() - start, attempt + 1)
            except _Failure as failure:
                if self._can_do_without(failure):
                    continue
                if not failure.may_pass or attempt == self.retries:
                    raise ServerError(self._end(failure, attempt + 1)) from failure.__cause__
                wait = min(failure.wait_s or self.backoff_s * 2 ** min(attempt, 9), MOST_WAIT_S)
                self._told(f"{failure}; trying again in {wait:.0f} s ({attempt + 2} of {self.retries + 1})")
                self._sleep(wait)
                attempt += 1

    def _can_do_without(self, failure: "_Failure") -> bool:
        """Leave an option out, or spell it anew, where the server refuses it: some models take no temperature."""
        if failure.status not in (400, 422):
            return False
        for option in [option for option in ("max_tokens", "temperature", "seed") if option in str(failure)]:
            if option in self._options:
                self._options.remove(option)
                if option == "max_tokens":
                    self._options.append("max_completion_tokens")
                else:
                    self._told(f"{failure}; asking without {option} from now on")
                return True
        return False

    def _once(self, messages: Sequence[Message], max_tokens: int, seed: int) -> Any:
        import openai

        values: dict[str, Any] = {"max_tokens": max_tokens, "max_completion_tokens": max_tokens, "seed": seed}
        values |= {"temperature": self.temperature}
        options = {name: values[name] for name in self._options}
        try:
            return self._client.chat.completions.create(model=self.model, messages=list(messages), **options)
        except (openai.APITimeoutError, TooSlowError) as error:
            raise _Failure(f"No answer from {self.host} in time", True) from error
        except TooMuchError as error:
            raise _Failure(f"{self.host} answers what is not read: {error}", False) from error
        except openai.APIConnectionError as error:
            if isinstance(error.__cause__, TooSlowError):
                raise _Failure(f"No answer from {self.host} in time", True) from error
            if isinstance(error.__cause__, TooMuchError):
                raise _Failure(f"{self.host} answers what is not read: {error.__cause__}", False) from error
            raise _Failure(f"Cannot reach {self.host} ({self._clean(error.__cause__ or error)})", True) from error
        except openai.APIStatusError as error:
            status = error.status_code
            may_pass = status in (408, 409, 429) or status >= 500
            what = f"{self.host} answers with status {status} ({self._clean(re.sub(_PREFIX, '', error.message))})"
            raise _Failure(what, may_pass, _seconds(error.response.headers.get("retry-after")), status) from error
        # What is no JSON, or not of the wanted form, shows up in several ways.
        except (openai.OpenAIError, ValueError, TypeError, AttributeError, KeyError) as error:
            raise _Failure(f"{self.host} answers something that is no chat completion", True) from error

    def _answer(self, said: Any, messages: Sequence[Message], max_tokens: int, seconds: float, tries: int) -> Answer:
        try:
            choice = said.choices[0]
            text = choice.message.content
            cut = choice.finish_reason == "length"
            usage = said.usage
            counted = (int(usage.prompt_tokens), int(usage.completion_tokens)) if usage else None
            named = shown(self._keyless(str(said.model or "")))[:MOST_SIGNS]
        except (AttributeError, IndexError, TypeError, KeyError, ValueError, OverflowError) as error:
            raise _Failure(f"{self.host} answers something that is no chat completion", True) from error
        if text is None:
            text = ""
        if not isinstance(text, str):
            raise _Failure(f"{self.host} answers something that is no chat completion", True)
        most = MOST_CHARACTERS_PER_TOKEN * max_tokens
        text, cut = self._keyless(text[:most]), cut or len(text) > most
        if counted and min(counted) < 0:
            counted = None
        guess = (estimated_tokens(messages), len(text) // CHARACTERS_PER_TOKEN + 1)
        prompt, completion = counted or guess
        return Answer(text, prompt, completion, counted is None, round(seconds, 3), tries, named, cut)

    def _end(self, failure: "_Failure", tries: int) -> str:
        if 300 <= failure.status < 400:
            return f"{failure}. Redirects are not followed; write the address it leads to as --base-url."
        advice = {
            401: f"Set {KEY_VARIABLE} to a key the server takes.",
            403: f"Set {KEY_VARIABLE} to a key that may use this model.",
            404: "Look at --base-url (it mostly ends in /v1) and --model.",
            400: "Look at --model, --answer-tokens and the server's log.",
        }.get(failure.status, "Start the server, or look at --base-url.")
        times = "" if tries == 1 else f", {tries} times"
        return f"{failure}{times}. {advice}"

    def _clean(self, message: object) -> str:
        """A server's message in one short line that a terminal does not obey, without the key."""
        return shown(self._keyless(" ".join(str(message).split())))[:MOST_SIGNS] or "no reason given"

    def _keyless(self, text: str) -> str:
        """A server's words without the key, which some repeat: they are shown, kept and may be published."""
        return text.replace(self._key, "***") if self._key else text


class _Failure(Exception):
    """One try that failed."""

    def __init__(self, what: str, may_pass: bool, wait_s: float = 0.0, status: int = 0) -> None:
        super().__init__(what)
        self.may_pass, self.wait_s, self.status = may_pass, wait_s, status


def host_of(base_url: str) -> str:
    """Return the host and port of an address; OpenAI's own for an empty one. What else is in it is nobody's business.

    >>> host_of("http://localhost:8000/v1"), host_of("")
    ('localhost:8000', 'api.openai.com')

    Raises:
        InputError: it is no http address, or holds a user or password.
    """
    if not base_url:
        return "api.openai.com"
    try:
        parts = urlsplit(base_url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError("--base-url is no address of a server. Write one such as http://localhost:8000/v1.")
    if parts.username or parts.password or parts.query:
        raise InputError(f"--base-url holds more than an address. Leave keys out of it and set {KEY_VARIABLE}.")
    return f"{parts.hostname}:{port}" if port else parts.hostname


def _seconds(header: str | None) -> float:
    try:
        return max(0.0, float(header or 0))
    except ValueError:
        return 0.0
