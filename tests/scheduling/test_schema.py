"""The list of settings against the parsers it was made from."""

from typing import Any

import pytest

from instructedit.errors import InputError
from instructedit.scheduling.schema import FILE, read_schema
from tests.scheduling.make_schema import kind_of, make_schema, text


@pytest.mark.slow
def test_the_list_is_what_the_parsers_have() -> None:
    told = "Run `python -m tests.scheduling.make_schema` and commit what it has written."
    assert text(make_schema()) == FILE.read_text(encoding="utf-8"), told


@pytest.mark.parametrize(
    ("hint", "kind"),
    [(int, "int"), (float | None, "float?"), (dict[str, int] | str, "dict"), (list[str], "list"), (int | str, "any")],
)
def test_kinds(hint: Any, kind: str) -> None:
    assert kind_of(hint) == kind


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("model.dtype", "fp16", "one of float32, bfloat16"),
        ("data.batch", 2.5, "a whole number"),
        ("data.batch", True, "a whole number"),
        ("data.batch", None, "is null"),
        ("run.wandb_results", "maybe", "true or false"),
        ("model.base", 12, "a text"),
    ],
)
def test_values_of_plain_types(key: str, value: object, told: str) -> None:
    schema = read_schema("fit")
    assert schema is not None
    with pytest.raises(InputError, match=told):
        schema.check(key, value, "a.yaml")


def test_null_only_where_the_parser_takes_it() -> None:
    schema = read_schema("fit")
    assert schema is not None
    schema.check("ckpt_path", None, "a.yaml")
    schema.check("model.store.dtype", None, "a.yaml")
    assert read_schema("no such command") is None
