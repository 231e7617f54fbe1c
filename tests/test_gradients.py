import pytest
import torch

from instructedit.base import Base
from instructedit.hooks import count_hooks
from tests.core import editor_on, gradients_of, only_request, random_batch, textbook_gradients


def test_factors_equal_the_textbooks_full_weight_gradients(tiny_base: Base) -> None:
    editor, stage = editor_on(tiny_base)
    batch = random_batch(0)
    gradients = gradients_of(editor, stage, batch)
    for request in range(len(batch)):
        expected = textbook_gradients(tiny_base, editor.sites, only_request(batch, request).inner)
        for site in editor.sites:
            found = gradients[site.name].materialise()[request]
            assert torch.linalg.norm(expected[site.name]) > 1e-3
            error = torch.linalg.norm(found - expected[site.name]) / torch.linalg.norm(expected[site.name])
            assert error < 1e-5, (site.name, request)


def test_norms_need_no_product(tiny_base: Base) -> None:
    editor, stage = editor_on(tiny_base)
    for gradients in gradients_of(editor, stage, random_batch(1)).values():
        torch.testing.assert_close(gradients.norms(), torch.linalg.matrix_norm(gradients.materialise()))


def test_last_block_keeps_only_the_positions_that_predict(tiny_base: Base) -> None:
    editor, stage = editor_on(tiny_base)
    batch = random_batch(2)
    gradients = gradients_of(editor, stage, batch)
    last = [site for site in editor.sites if site.block == tiny_base.n_blocks - 1]
    for site in last:
        counts = torch.bincount(gradients[site.name].request).tolist()
        assert counts == [4, 2, 2, 2]  # two target tokens a row; request 0 has two rows
    first = gradients[editor.sites[0].name]
    assert torch.bincount(first.request)[1] > 2


def test_nothing_is_stored_and_no_hook_stays(tiny_base: Base) -> None:
    editor, stage = editor_on(tiny_base)
    gradients_of(editor, stage, random_batch(3))
    assert count_hooks(tiny_base.model) == 0
    assert all(parameter.grad is None for parameter in tiny_base.model.parameters())
    assert not any(parameter.requires_grad for parameter in tiny_base.model.parameters())


@pytest.mark.parametrize("n", [1, 3])
def test_scaled_multiplies_each_requests_gradient(tiny_llama_base: Base, n: int) -> None:
    editor, stage = editor_on(tiny_llama_base)
    gradients = next(iter(gradients_of(editor, stage, random_batch(4, n)).values()))
    factor = torch.arange(1.0, n + 1)
    torch.testing.assert_close(gradients.scaled(factor).norms(), gradients.norms() * factor)
