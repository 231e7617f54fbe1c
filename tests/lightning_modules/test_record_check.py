"""Records that would end a run later are found before its first step."""

from collections.abc import Callable

import pytest

from instructedit.base import Base
from instructedit.errors import InputError
from instructedit.records import EditExample, EditRequest
from lightning_modules.record_check import check_records

Make = Callable[..., Base]


def record(old_answer: str = "") -> EditExample:
    """A record of 26 bytes, and so of 26 tokens."""
    return EditExample(EditRequest("The capital of Peru is", "Oslo", "1", "recent", "Peru", old_answer=old_answer))


def test_an_old_answer_counts(make_tiny_base: Make) -> None:
    base = make_tiny_base("llama", max_position_embeddings=60)
    check_records([record("Lima")], base)
    with pytest.raises(InputError, match="context of 60"):
        check_records([record("Lima" * 20)], base)


def test_training_counts_its_rewordings(make_tiny_base: Make) -> None:
    base = make_tiny_base("llama", max_position_embeddings=40)
    check_records([record()], base)
    with pytest.raises(InputError, match="context of 40"):
        check_records([record()], base, reworded=True)
