"""Dense changes against weights that really change, and the ways to apply them wrongly."""

import pytest
import torch

from instructedit.base import Base
from instructedit.base.sites import SiteSpec, find_sites
from instructedit.hooks import count_hooks
from instructedit.methods.dense import DenseEdit
from tests.core import dense_copy

IDS = torch.tensor([[5, 80, 31, 7, 99], [9, 9, 120, 44, 3], [60, 2, 17, 250, 31], [1, 2, 3, 4, 5]])


def edit_on(base: Base) -> DenseEdit:
    site = find_sites(base, SiteSpec(last_blocks=2, matrices=base.adaptor.matrices[-1:]))[0]
    generator = torch.Generator().manual_seed(3)
    return DenseEdit(base, {site.name: torch.randn(3, site.d_in, site.d_out, generator=generator) * 0.1})


def logits(base: Base, edit: DenseEdit, ids: torch.Tensor, rows: list[int] | None) -> torch.Tensor:
    with torch.no_grad(), edit.applied(None if rows is None else torch.tensor(rows)):
        found: torch.Tensor = base.model(ids, use_cache=False).logits
    return found


def test_each_row_computes_with_its_own_changed_weight(tiny_base: Base) -> None:
    edit = edit_on(tiny_base)
    rows = [2, 0, 2, 1]  # out of order, one of them twice
    found = logits(tiny_base, edit, IDS, rows)
    for index, request in enumerate(rows):
        model = dense_copy(tiny_base, {name: change[request] for name, change in edit.changes.items()})
        with torch.no_grad():
            expected = model(IDS[index : index + 1], use_cache=False).logits[0]
            unedited = tiny_base.model(IDS[index : index + 1], use_cache=False).logits[0]
        torch.testing.assert_close(found[index], expected, rtol=1e-4, atol=1e-4)
        assert float((expected - unedited).abs().max()) > 0.5


def test_without_rows_all_changes_add_up_in_one_weight(tiny_base: Base) -> None:
    edit = edit_on(tiny_base)
    model = dense_copy(tiny_base, {name: change.sum(0) for name, change in edit.changes.items()})
    with torch.no_grad():
        expected = model(IDS, use_cache=False).logits
    torch.testing.assert_close(logits(tiny_base, edit, IDS, None), expected, rtol=1e-4, atol=1e-4)


def test_each_changes_gradient_is_its_own(tiny_base: Base) -> None:
    edit = edit_on(tiny_base)
    ((name, change),) = edit.changes.items()
    change.requires_grad_()
    together = torch.autograd.grad(_loss(tiny_base, edit, IDS, [1, 0, 1, 1]), change)[0]
    alone = torch.autograd.grad(_loss(tiny_base, edit, IDS[1:2], [0]), change)[0]
    torch.testing.assert_close(together[0], alone[0], rtol=1e-4, atol=1e-5)
    assert float(together[1].abs().max()) > 0
    assert not together[2].any()  # no row of it was in the batch


def _loss(base: Base, edit: DenseEdit, ids: torch.Tensor, rows: list[int]) -> torch.Tensor:
    with edit.applied(torch.tensor(rows)):
        found: torch.Tensor = base.model(ids, use_cache=False).logits.log_softmax(-1)[..., 7].sum()
    return found


def test_a_batch_of_another_size_than_the_rows_is_an_error_that_leaves_no_hook(tiny_base: Base) -> None:
    with pytest.raises(ValueError, match="for 1 rows, but the batch has 4"):
        logits(tiny_base, edit_on(tiny_base), IDS, [0])
    assert count_hooks(tiny_base.model) == 0
