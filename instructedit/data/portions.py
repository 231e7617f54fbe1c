"""Cutting a batch into portions that hold few tokens each, alike long texts together.

Only permutes inside the batch and cuts it: what a step learns is the sum over its requests, which does not depend on
either. Knows lengths; never sees a text.
"""

from collections.abc import Sequence

from instructedit.data.collate import Batch
from instructedit.data.rows import Rows
from instructedit.errors import InputError


def by_length(batch: Batch, requests: int) -> list[Batch]:
    """Cut a batch into portions of so many requests, the last may have fewer, from short texts to long ones."""
    order = _order(batch)
    return [take(batch, order[first : first + requests]) for first in range(0, len(order), requests)]


def by_tokens(batch: Batch, tokens: int) -> list[list[int]]:
    """Cut a batch's requests into portions whose padded rows have at most so many tokens together; short texts first.

    Args:
        batch: any batch.
        tokens: the limit; it counts each role's rows times its longest row, as they are computed.

    Raises:
        InputError: one request alone has more.
    """
    portions: list[list[int]] = []
    for request in _order(batch):
        alone = padded_tokens(take(batch, [request]))
        if alone > tokens:
            raise InputError(
                f"A request (record {batch.record_ids[request]!r}) has {alone} tokens in its texts, padding included; the "
                f"limit is {tokens}. Raise data.micro_tokens to {alone} or more."
            )
        if portions and padded_tokens(take(batch, [*portions[-1], request])) <= tokens:
            portions[-1].append(request)
        else:
            portions.append([request])
    return portions


def padded_tokens(batch: Batch) -> int:
    """Tokens of all rows, each as long as the longest of those it is computed with."""
    passes = (batch.inner, batch.inner + batch.rephrase + batch.avoid, batch.locality)
    return sum(len(rows) * max(map(len, rows.ids), default=0) for rows in passes)


def take(batch: Batch, requests: Sequence[int]) -> Batch:
    """Return the batch of some of the requests, in the order given, counted anew."""
    place = {request: index for index, request in enumerate(requests)}

    def rows_of(rows: Rows) -> Rows:
        found = [i for i, request in enumerate(rows.request) if request in place]
        chosen = rows.take(sorted(found, key=lambda i: place[rows.request[i]]))
        return Rows(chosen.ids, chosen.n_target, tuple(place[request] for request in chosen.request))

    return Batch(
        inner=rows_of(batch.inner),
        rephrase=rows_of(batch.rephrase),
        avoid=rows_of(batch.avoid),
        locality=rows_of(batch.locality),
        tasks=tuple(batch.tasks[request] for request in requests),
        record_ids=tuple(batch.record_ids[request] for request in requests),
        requests=tuple(batch.requests[request] for request in requests) if batch.requests else (),
    )


def _order(batch: Batch) -> list[int]:
    """The requests from the shortest edit texts to the longest, those of one length as they came."""
    longest = [0] * len(batch)
    edits = batch.inner + batch.rephrase + batch.avoid
    for ids, request in zip(edits.ids, edits.request, strict=True):
        longest[request] = max(longest[request], len(ids))
    return sorted(range(len(batch)), key=lambda request: longest[request])
