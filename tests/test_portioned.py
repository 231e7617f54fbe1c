"""A batch in portions against the batch at once: the same numbers and gradients."""

import pytest
import torch

from instructedit.base import Base
from instructedit.data.portions import by_tokens
from instructedit.metatrain import PER_REQUEST, LossWeights, MetaLoss, meta_loss
from instructedit.portioned import meta_loss_within
from tests.core import editor_on, random_batch

WEIGHTS = LossWeights(edit=0.3, locality=0.7, unlikelihood=0.5)


def gradients(editor: torch.nn.Module, result: MetaLoss) -> dict[str, torch.Tensor]:
    editor.zero_grad()
    (result.loss / 4).backward()
    return {name: value.grad.clone() for name, value in editor.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("tokens", [130, 10**6])
def test_numbers_and_gradients_are_those_of_the_whole_batch(tiny_base: Base, tokens: int) -> None:
    editor, stage = editor_on(tiny_base, 0.1)
    batch = random_batch(3, n=6)
    assert (len(by_tokens(batch, tokens)) > 2) is (tokens == 130)
    whole, cut = meta_loss(editor, stage, batch, WEIGHTS), meta_loss_within(editor, stage, batch, WEIGHTS, tokens)
    torch.testing.assert_close(cut.loss.detach(), whole.loss.detach())
    for name in PER_REQUEST:
        torch.testing.assert_close(getattr(cut, name), getattr(whole, name), rtol=1e-4, atol=1e-6)
    assert cut.n_tokens == whole.n_tokens
    for found, wanted in zip(cut.sums, whole.sums, strict=True):
        assert torch.equal(found.count, wanted.count)
        torch.testing.assert_close(found.first, wanted.first, rtol=1e-5, atol=1e-5)
    wanted_gradients, found_gradients = gradients(editor, whole), gradients(editor, cut)
    assert found_gradients.keys() == wanted_gradients.keys()
    for name, value in wanted_gradients.items():
        apart = torch.linalg.norm(found_gradients[name] - value) / torch.linalg.norm(value).clamp_min(1e-12)
        assert apart < 1e-4, name
