"""The step as a whole: exact, independent of its neighbours, alive, and trainable in a bare loop."""

import pytest
import torch

from instructedit.base import Base
from instructedit.errors import InputError
from instructedit.hooks import count_hooks
from instructedit.losses import token_kl, token_nll, token_unlikelihood
from instructedit.metatrain import LossWeights, edited_states, meta_loss
from tests.core import dense_copy, editor_on, gradients_of, only_request, random_batch
from tests.test_lowrank import STRONG, bits

WEIGHTS = LossWeights(edit=0.3, locality=0.7, unlikelihood=0.5)


def test_a_batch_of_b_equals_b_batches_of_one(tiny_base: Base) -> None:
    editor, stage = editor_on(tiny_base, STRONG)
    batch = random_batch(0)
    targets = batch.inner.targets()
    with torch.no_grad():
        updates = editor(gradients_of(editor, stage, batch))
        before = stage.split.logits(edited_states(stage, {}, batch.inner)).gather(1, targets.label.unsqueeze(1))
        after = stage.split.logits(edited_states(stage, updates, batch.inner)).gather(1, targets.label.unsqueeze(1))
    assert (after - before).abs().max() > 1, "edits too small for this test to say anything"
    editor.zero_grad()
    together = meta_loss(editor, stage, batch, WEIGHTS)
    together.loss.backward()
    expected = {name: p.grad.clone() for name, p in editor.named_parameters() if p.grad is not None}
    editor.zero_grad()
    for request in range(len(batch)):
        alone = meta_loss(editor, stage, only_request(batch, request), WEIGHTS)
        alone.loss.backward()
        for name in ("edit", "unlikelihood", "locality", "reliability", "kept", "update_norm"):
            found, wanted = getattr(alone, name)[0], getattr(together, name)[request]
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    found = {name: p.grad for name, p in editor.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys() and "alpha" in found
    difference = torch.cat([(found[name] - expected[name]).flatten() for name in expected])
    whole = torch.cat([value.flatten() for value in expected.values()])
    assert torch.linalg.norm(difference) / torch.linalg.norm(whole) < 1e-5


def test_every_term_equals_the_whole_model_with_changed_weights(tiny_base: Base) -> None:
    editor, stage = editor_on(tiny_base, STRONG)
    batch = random_batch(1)
    result = meta_loss(editor, stage, batch, WEIGHTS)
    updates = editor(gradients_of(editor, stage, batch))
    total = 0.0
    for request in range(len(batch)):
        alone = only_request(batch, request)
        edited = dense_copy(tiny_base, {n: u.materialise()[request].detach() for n, u in updates.items()})

        def scored(rows, value, model=edited):  # type: ignore[no-untyped-def]
            values = []
            for ids, k in zip(rows.ids, rows.n_target, strict=True):
                with torch.no_grad():
                    logits = [m(torch.tensor([ids])).logits[0, -k - 1 : -1] for m in (model, tiny_base.model)]
                values.append(value(*logits, torch.tensor(ids[-k:])).mean())
            return float(torch.stack(values).mean()) if values else 0.0

        edit = scored(alone.inner + alone.rephrase, lambda after, before, labels: token_nll(after, labels))
        avoid = scored(alone.avoid, lambda after, before, labels: token_unlikelihood(after, labels))
        local = scored(alone.locality, lambda after, before, labels: token_kl(before, after))
        assert float(result.edit[request]) == pytest.approx(edit, rel=1e-4)
        assert float(result.unlikelihood[request]) == pytest.approx(avoid, rel=1e-4, abs=1e-7)
        assert float(result.locality[request]) == pytest.approx(local, rel=1e-3, abs=1e-6)
        total += 0.3 * (edit + 0.5 * avoid) + 0.7 * local
    assert float(result.loss.detach()) == pytest.approx(total, rel=1e-3)
    assert float(result.unlikelihood[0]) > 0 and float(result.unlikelihood[1]) == 0


def test_twenty_steps_in_a_bare_loop_teach_the_edits_and_leave_the_base_alone(tiny_base: Base) -> None:
    editor, stage = editor_on(tiny_base, 1e-3, alpha_scale="log")
    before = bits(tiny_base)
    optimizer = torch.optim.Adam(editor.parameters(), 1e-2)
    batch, losses = random_batch(5), []
    for _ in range(20):
        result = meta_loss(editor, stage, batch, LossWeights(edit=1.0, locality=0.1))
        optimizer.zero_grad()
        (result.loss / len(batch)).backward()
        optimizer.step()
        editor.merge(result.sums)
        losses.append(float(result.edit.mean()))
    assert losses[-1] < 0.8 * losses[0], losses
    assert all(torch.equal(a, b) for a, b in zip(before, bits(tiny_base), strict=True))
    assert count_hooks(tiny_base.model) == 0
    assert all(p.grad is None for p in tiny_base.model.parameters())


def test_the_loss_does_not_depend_on_what_the_step_itself_saw(tiny_llama_base: Base) -> None:
    editor, stage = editor_on(tiny_llama_base)
    batch = random_batch(6)
    first = meta_loss(editor, stage, batch, WEIGHTS)
    count = int(editor.moments[0].count)
    assert float(meta_loss(editor, stage, batch, WEIGHTS).loss) == float(first.loss)
    editor.merge(first.sums)
    assert int(editor.moments[0].count) > count
    assert float(meta_loss(editor, stage, batch, WEIGHTS).loss) != float(first.loss)


def test_negative_weights_are_refused() -> None:
    with pytest.raises(InputError, match="0 or more"):
        LossWeights(locality=-1.0)


def test_a_step_hands_all_its_new_texts_to_the_trunk_at_once(tiny_base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    editor, stage = editor_on(tiny_base)
    batch, real, calls = random_batch(5), stage.split.trunk_many, []

    def counted(passes):  # type: ignore[no-untyped-def]
        calls.append(len(list(passes)))
        return real(passes)

    monkeypatch.setattr(stage.split, "trunk_many", counted)
    meta_loss(editor, stage, batch, WEIGHTS)
    meta_loss(editor, stage, batch, WEIGHTS)
    assert len([n for n in calls if n]) == 1, "one call in the first step, none in the second"
