import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from instructedit.base import Base
from instructedit.hooks import count_hooks
from instructedit.lowrank import LowRankUpdate, applied, weight_change
from tests.core import dense_copy, editor_on, gradients_of, random_batch, random_rows

STRONG = 0.3
"""An alpha at which edits of the tiny bases move target logits by more than 1."""


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float(torch.linalg.norm(found - expected) / torch.linalg.norm(expected))


def bits(base: Base) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in base.model.parameters()]


def test_functional_edit_equals_the_explicit_weight_change(tiny_base: Base) -> None:
    editor, stage = editor_on(tiny_base, STRONG)
    batch = random_batch(0)
    updates = editor(gradients_of(editor, stage, batch))
    rows = random_rows(torch.Generator().manual_seed(0), list(range(len(batch))), n_target=3)
    targets = rows.targets()
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows.ids], batch_first=True)
    before = tiny_base.model(ids).logits
    with torch.no_grad(), applied(tiny_base.model, updates, torch.arange(len(batch))):
        edited = tiny_base.model(ids).logits
        tail = stage.split.logits(stage.split.tail(stage.split.trunk(ids)))
    assert torch.equal(edited, tail)
    moved = (targets.select(edited) - targets.select(before)).gather(1, targets.label.unsqueeze(1)).abs()
    assert all(moved[targets.row == request].max() > 1 for request in range(len(batch)))
    for request in range(len(batch)):
        changes = {name: update.materialise()[request].detach() for name, update in updates.items()}
        expected = dense_copy(tiny_base, changes)(ids[request : request + 1]).logits[0]
        assert relative(edited[request], expected) < 1e-5


def test_without_rows_every_sequence_sees_all_edits(tiny_base: Base) -> None:
    editor, stage = editor_on(tiny_base, STRONG)
    updates = editor(gradients_of(editor, stage, random_batch(1)))
    ids = torch.randint(0, 256, (3, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), applied(tiny_base.model, updates):
        edited = tiny_base.model(ids).logits
    changes = {name: update.materialise().sum(0).detach() for name, update in updates.items()}
    assert relative(edited, dense_copy(tiny_base, changes)(ids).logits) < 1e-5


def test_leaving_gives_the_base_back_bit_for_bit_also_after_an_exception(tiny_base: Base) -> None:
    editor, stage = editor_on(tiny_base, STRONG)
    updates = editor(gradients_of(editor, stage, random_batch(2)))
    ids = torch.randint(0, 256, (1, 8), generator=torch.Generator().manual_seed(2))
    before, logits = bits(tiny_base), tiny_base.model(ids).logits
    with applied(tiny_base.model, updates):
        assert count_hooks(tiny_base.model) == len(editor.sites)
        assert not torch.equal(tiny_base.model(ids).logits, logits)
    with pytest.raises(RuntimeError, match="inside"), applied(tiny_base.model, updates):
        tiny_base.model(ids)
        raise RuntimeError("inside")
    assert count_hooks(tiny_base.model) == 0
    assert all(torch.equal(a, b) for a, b in zip(before, bits(tiny_base), strict=True))
    assert torch.equal(tiny_base.model(ids).logits, logits)


@pytest.mark.parametrize("module", [nn.Linear(5, 7, bias=False), Conv1D(7, 5)], ids=["Linear", "Conv1D"])
def test_weight_change_has_the_modules_own_orientation(module: nn.Module) -> None:
    update = LowRankUpdate(torch.randn(2, 3, 5), torch.randn(2, 3, 7))
    x = torch.randn(4, 5)
    y = module(x)
    with torch.no_grad():
        module.weight += weight_change(update, module)
    expected = update.merged().apply(x.unsqueeze(0), y.unsqueeze(0))[0]
    torch.testing.assert_close(module(x), expected)


def test_norms_are_those_of_the_dense_changes() -> None:
    update = LowRankUpdate(torch.randn(2, 4, 5), torch.randn(2, 4, 7))
    torch.testing.assert_close(update.norms(), torch.linalg.matrix_norm(update.materialise()))


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"\(1, 2, 5\).*\(1, 3, 7\)"):
        LowRankUpdate(torch.zeros(1, 2, 5), torch.zeros(1, 3, 7))


def test_changes_repeated_for_rows_add_up_in_the_backward_pass_as_indexing_does() -> None:
    rows = torch.tensor([2, 0, 2, 2])
    found, wanted = (torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)).requires_grad_() for _ in "ab")
    weights = torch.randn(4, 4, 5)
    update = LowRankUpdate(found, found * 2).for_rows(rows)
    assert torch.equal(update.u, found[rows])
    (update.u * weights + update.v).sum().backward()
    (wanted[rows] * weights + 2 * wanted[rows]).sum().backward()
    torch.testing.assert_close(found.grad, wanted.grad)


@pytest.mark.parametrize("ranks", [2, 9])
@pytest.mark.parametrize(("d_in", "d_out"), [(4, 6), (6, 4)])
def test_compact_is_the_same_change_with_fewest_ranks(ranks: int, d_in: int, d_out: int) -> None:
    torch.manual_seed(0)
    update = LowRankUpdate(torch.randn(3, ranks, d_in), torch.randn(3, ranks, d_out))
    update.u[1, 0] = 0  # a rank that adds nothing, as padding does
    update.v[2, 1] = 0
    compact = update.compact()
    assert compact.u.shape[:2] == compact.v.shape[:2] == (1, min(3 * ranks - 2, 4))
    torch.testing.assert_close(compact.materialise()[0], update.materialise().sum(0), atol=1e-5, rtol=0)
    nothing = LowRankUpdate(torch.zeros(2, ranks, d_in), torch.ones(2, ranks, d_out)).compact()
    assert nothing.u.shape == (1, 1, d_in) and float(nothing.materialise().abs().max()) == 0
