"""Cutting a batch: every request once, like lengths together, within the limit."""

import pytest

from instructedit.data.portions import by_length, by_tokens, padded_tokens, take
from instructedit.errors import InputError
from tests.core import only_request, random_batch


def test_a_request_taken_alone_is_what_it_was() -> None:
    batch = random_batch(0)
    for request in range(len(batch)):
        assert take(batch, [request]) == only_request(batch, request)
    assert take(batch, range(len(batch))) == batch
    turned = take(batch, [2, 0])
    assert turned.record_ids == ("r2", "r0") and turned.inner.request == (0, 1, 1)


def test_portions_of_like_length_hold_every_request_once() -> None:
    batch = random_batch(1, n=7)
    portions = by_length(batch, 3)
    assert [len(portion) for portion in portions] == [3, 3, 1]
    assert sorted(sum((portion.record_ids for portion in portions), ())) == sorted(batch.record_ids)
    longest = [max(len(ids) for ids in (part.inner + part.rephrase + part.avoid).ids) for part in portions]
    assert longest == sorted(longest) and longest[0] < longest[-1]
    whole = sum(padded_tokens(portion) for portion in portions)
    assert whole < sum(padded_tokens(take(batch, part)) for part in ([0, 1, 2], [3, 4, 5], [6]))


@pytest.mark.parametrize("tokens", [150, 300, 10**6])
def test_portions_keep_to_their_tokens_and_hold_every_request_once(tokens: int) -> None:
    batch = random_batch(2, n=8)
    portions = by_tokens(batch, tokens)
    assert sorted(sum(portions, [])) == list(range(8))
    assert all(padded_tokens(take(batch, portion)) <= tokens for portion in portions)
    assert (len(portions) == 1) is (tokens == 10**6)


def test_a_request_that_is_too_long_alone_is_told() -> None:
    with pytest.raises(InputError, match="record 'r0'.*Raise data.micro_tokens to"):
        by_tokens(random_batch(2), 60)
