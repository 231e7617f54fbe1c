"""An HTTP client for servers that are not trusted: answers of limited size and time, no redirects, plain bytes.

Knows bytes and seconds; nothing of what is asked. httpx2 limits the time between two bytes only, and no size at all.
"""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx2

MOST_BYTES = 4 * 2**20
"""Of one answer's body, errors' too; ten descriptions take some thousand."""


class TooMuchError(ValueError):
    """An answer that is larger than is read, or packed."""


class TooSlowError(ValueError):
    """An answer that did not end in time."""


def bounded_client(timeout_s: float, most_bytes: int = MOST_BYTES) -> "httpx2.Client":
    """Make a client for the `openai` package.

    Redirects come back as they are: the address a person named is the only one that is to see a prompt.

    Args:
        timeout_s: seconds for a connection, between two bytes, and from the first byte of an answer to its last.
        most_bytes: the most bytes of an answer.
    """
    import httpx2
    from openai import DefaultHttpxClient

    class Bounded(httpx2.SyncByteStream):
        def __init__(self, stream: httpx2.SyncByteStream) -> None:
            self._stream = stream

        def __iter__(self) -> Iterator[bytes]:
            size, limit = 0, time.monotonic() + timeout_s
            for part in self._stream:
                size += len(part)
                if size > most_bytes:
                    raise TooMuchError(f"more than {most_bytes} bytes")
                if time.monotonic() > limit:
                    raise TooSlowError("it did not end in time")
                yield part

        def close(self) -> None:
            self._stream.close()

    def plain(request: httpx2.Request) -> None:
        request.headers["Accept-Encoding"] = "identity"

    def bound(response: httpx2.Response) -> None:
        packed = response.headers.get("content-encoding", "identity")
        if packed.strip().lower() not in ("", "identity"):
            # A few packed bytes may unpack to more than there is memory.
            raise TooMuchError("a packed answer, which was not asked for")
        assert isinstance(response.stream, httpx2.SyncByteStream)
        response.stream = Bounded(response.stream)

    return DefaultHttpxClient(
        timeout=timeout_s, follow_redirects=False, event_hooks={"request": [plain], "response": [bound]}
    )
