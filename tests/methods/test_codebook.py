"""The geometry of keys and radii against hand-made numbers, and looking up against a loop over tokens."""

import pytest
import torch
from torch import Tensor

from instructedit.methods.codebook import SPLIT_GAP, Codebook, joined
from instructedit.methods.lookup import ROUNDING, Replacement, Shelf


def entry(key: list[float], label: str, radius: float = 1.0, value: float = 0.0) -> Codebook:
    return Codebook(
        torch.tensor([key], dtype=torch.float32), torch.tensor([[float(value)]]), torch.tensor([radius]), ((label,),)
    )


def test_a_query_outside_both_radii_becomes_an_entry_and_changes_no_other() -> None:
    book, index = entry([0, 0], "a").insert(entry([3, 0], "b", value=7), "coverage")
    assert index == 1
    assert book.keys.tolist() == [[0, 0], [3, 0]]
    assert book.radii.tolist() == [1, 1]
    assert book.values.tolist() == [[0], [7]]
    assert book.labels == (("a",), ("b",))


def test_radii_that_touch_count_as_near_and_a_hair_further_does_not() -> None:
    assert len(entry([0, 0], "a").insert(entry([0, 2], "a"), "coverage")[0]) == 1
    assert len(entry([0, 0], "a").insert(entry([0, 2.001], "a"), "coverage")[0]) == 2


def test_coverage_grows_the_radius_to_the_query() -> None:
    book, index = entry([0, 0], "a").insert(entry([0.9, 1.2], "a", value=7), "coverage")
    assert index == 0
    assert book.keys.tolist() == [[0, 0]]
    assert book.radii.tolist() == pytest.approx([1.5])
    assert book.values.tolist() == [[0]]


def test_a_moving_average_also_moves_the_key_half_the_way() -> None:
    book, index = entry([0, 0], "a").insert(entry([0.9, 1.2], "a"), "moving_average")
    assert index == 0
    assert book.keys[0].tolist() == pytest.approx([0.45, 0.6])
    assert book.radii.tolist() == pytest.approx([1.5])


@pytest.mark.parametrize("expand", ["coverage", "moving_average"])
def test_a_query_already_inside_with_the_same_label_changes_nothing(expand: str) -> None:
    before = entry([0, 0], "a")
    book, index = before.insert(entry([0.5, 0], "a"), expand)  # type: ignore[arg-type]
    assert index == 0
    assert book is before


def test_a_near_query_with_another_label_splits_both_radii_at_half_the_distance() -> None:
    book, index = entry([0, 0], "a").insert(entry([0.9, 1.2], "b", value=7), "coverage")
    assert index == 1
    assert book.radii.tolist() == pytest.approx([0.75 - SPLIT_GAP, 0.75], abs=1e-7)
    assert book.values.tolist() == [[0], [7]]


def test_only_the_nearest_key_is_split() -> None:
    book = entry([0, 0], "a").insert(entry([4, 0], "b"), "coverage")[0].insert(entry([3, 0], "c"), "coverage")[0]
    assert book.radii.tolist() == pytest.approx([1, 0.5 - SPLIT_GAP, 0.5], abs=1e-7)


def test_the_same_query_with_another_label_takes_the_entrys_place() -> None:
    book, index = entry([1, 2], "a", radius=1.5).insert(entry([1, 2], "b", value=7), "coverage")
    assert index == 0
    assert book.radii.tolist() == [1.5]
    assert book.values.tolist() == [[7]]
    assert book.labels == (("b",),)


def test_joining_is_inserting_in_order_and_leaves_the_parts_alone() -> None:
    parts = [entry([0, 0], "a"), entry([5, 0], "a"), entry([0, 1.5], "b"), entry([0, -1.2], "a")]
    whole = joined(parts, "coverage")
    assert whole.keys.tolist() == [[0, 0], [5, 0], [0, 1.5]]
    assert whole.radii.tolist() == pytest.approx([1.2, 1, 0.75])
    assert [float(part.radii[0]) for part in parts] == [1, 1, 1, 1]


def by_loop(books: list[Codebook], x: Tensor, y: Tensor, replacement: Replacement) -> Tensor:
    """The definition, token by token."""
    out = y.clone()
    for n, book in enumerate(books):
        first = True
        for t in range(x.shape[1]):
            distances = [float((x[n, t] - key).norm()) for key in book.keys]
            nearest = min(range(len(distances)), key=lambda k: distances[k])
            if distances[nearest] <= float(book.radii[nearest]):
                start = 0 if first and replacement == "replace_prompt" else t
                out[n, start : t + 1] = book.values[nearest]
                first = False
    return out


@pytest.mark.parametrize("replacement", ["replace_last", "replace_prompt"])
def test_looking_up_is_the_loop_over_tokens(replacement: Replacement) -> None:
    generator = torch.Generator().manual_seed(0)

    def book(size: int) -> Codebook:
        keys, values = (torch.randn(size, d, generator=generator) for d in (3, 2))
        return Codebook(keys, values, torch.rand(size, generator=generator) * 1.5, (("a",),) * size)

    books = [book(1), book(4), book(2)]
    rows = [2, 0, 1, 1, 0, 2]
    x, y = torch.randn(6, 9, 3, generator=generator), torch.randn(6, 9, 2, generator=generator)
    chosen = [books[row] for row in rows]
    expected = by_loop(chosen, x, y, replacement)
    found = Shelf.of(books).for_rows(torch.tensor(rows)).answer(x, y, replacement)
    assert torch.equal(found, expected)
    shares = (expected != y).any(-1).float().mean(1)
    assert 0 < float(shares.mean()) < 1  # some tokens fire and some do not
    alone = Shelf.of(books[1:2]).answer(x, y, replacement)
    assert torch.equal(alone, by_loop([books[1]] * 6, x, y, replacement))


def test_large_inputs_do_not_blur_small_distances() -> None:
    key = torch.full((1, 512), 3000.0)
    book = Codebook(key, torch.ones(1, 1), torch.tensor([1.0]), (("a",),))
    x = key.repeat(40, 1)
    x[:, 0] += torch.tensor([0.0, 0.5, 0.9, 1.2, 1.5] * 8)
    fires, _ = Shelf.of([book]).look_up(x.unsqueeze(0))
    assert fires[0].tolist() == [True, True, True, False, False] * 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_radius_reaches_further_by_rounding_and_no_more(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    key = torch.randn(1, 256).to(dtype).float()
    book = Codebook(key, torch.ones(1, 1), torch.zeros(1), (("a",),))
    step = ROUNDING[dtype] * torch.finfo(dtype).eps * key.norm() * torch.eye(1, 256)
    x = torch.stack([key, key + 0.8 * step, key + 1.3 * step], 1)
    # The distances are what is tested, so they are not rounded away: only the dtype asked about is.
    shelf = Shelf.of([book])
    fires = [bool(shelf.look_up(token.unsqueeze(0).to(dtype))[0]) for token in x[0].split(1)]
    assert fires == [True, True, False]
