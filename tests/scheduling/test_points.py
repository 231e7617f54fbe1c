"""Arrays and sweeps: ranges, lists, products and names."""

import pytest

from instructedit.errors import InputError
from instructedit.scheduling.points import Point, make_points
from instructedit.scheduling.schema import Schema, read_schema


@pytest.fixture
def fit() -> Schema:
    found = read_schema("fit")
    assert found is not None
    return found


def test_every_combination_has_a_name(fit: Schema) -> None:
    points = make_points(["model.lr=1e-4,2e-4", "seed=0..1,7"], fit)
    assert [point.name for point in points][:4] == [
        "lr-1e-4_seed-0",
        "lr-1e-4_seed-1",
        "lr-1e-4_seed-7",
        "lr-2e-4_seed-0",
    ]
    assert points[-1] == Point("lr-2e-4_seed-7", {"model.lr": "2e-4", "seed_everything": "7"})


def test_lists_and_quotes_keep_their_commas(fit: Schema) -> None:
    points = make_points(["data.tasks=[recent],[recent, zsre]", "model.base='a, b',c"], fit)
    assert [point.values["data.tasks"] for point in points] == [
        "[recent]",
        "[recent]",
        "[recent, zsre]",
        "[recent, zsre]",
    ]
    assert [point.values["model.base"] for point in points][:2] == ["a, b", "c"]
    assert points[0].name == "tasks-recent_base-a-b"


def test_settings_of_one_last_name_are_told_apart(fit: Schema) -> None:
    (point,) = make_points(["model.store.dtype=float32", "model.dtype=bfloat16"], fit)
    assert point.name == "model.store.dtype-float32_model.dtype-bfloat16"


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["model.lr"], "KEY=A,B,C"),
        (["seed=0..4", "seed=5"], "given twice"),
        (["seed=1,1"], "a value twice"),
        (["seed=4..0"], "no numbers"),
        (["seed=0..5000"], "more than 1000"),
        (["seed=0..99", "model.lr=1,2,3,4,5,6,7,8,9,10,11"], "1100 points"),
        (["model.lrr=1"], "Did you mean 'model.lr'"),
        (["run.name=a,b"], "the same for all points"),
        (["model.base=a b,a_b,a/b,a:b"], "the same name"),
        (["seed=1,,2"], "KEY=A,B,C"),
    ],
)
def test_refusals(fit: Schema, asked: list[str], told: str) -> None:
    with pytest.raises(InputError, match=told):
        make_points(asked, fit)
