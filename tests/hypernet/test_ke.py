"""KE: its formula against dense matrices, its conditions, and that it learns."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from instructedit.base import Base
from instructedit.base.sites import Site
from instructedit.conditions import Conditions, OldAnswers, conditions_of
from instructedit.data.collate import Batch, Collator, TrainingMix
from instructedit.data.samplers import Draw
from instructedit.errors import InputError
from instructedit.hypernet.ke import KEConfig, KEEditor
from instructedit.lowrank import applied, weight_change
from instructedit.metatrain import LossWeights, Stage, meta_loss, request_updates, warm_up
from instructedit.records import EditExample, EditRequest, Probe
from tests.core import dense_copy, gradients_of, ke_on, only_request

REQUESTS = (
    EditRequest("The capital of Spain is", "Vienna", id="a", task="t", subject="Spain", old_answer="Madrid"),
    EditRequest("Anna speaks", "Dutch", id="b", task="t", subject="Anna"),
    EditRequest("Say something about the long river", "Why?", id="c", task="t", subject="river", more_targets=("No",)),
)


def batch_of(base: Base, requests: tuple[EditRequest, ...] = REQUESTS) -> Batch:
    examples = [EditExample(r, (Probe("locality", f"The river of {r.subject} is", "long"),)) for r in requests]
    collator = Collator(base.tokenizer, base.max_tokens, {"t": examples}, None, TrainingMix(reworded=0.5))
    return collator([Draw("t", index, index) for index in range(len(requests))])


def shaken(editor: KEEditor, size: float = 0.3) -> KEEditor:
    """Every parameter away from its start, so that nothing about the formula is hidden by a zero."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in editor.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator)
    return editor


def dense(editor: KEEditor, site: Site, gradient: Tensor, told: Tensor) -> Tensor:
    """De Cao et al.'s formula for one request, written out with whole matrices: gradient and result (d_in, d_out)."""
    out = editor.heads[editor.sites.index(site)](told)
    d_in, d_out = site.d_in, site.d_out
    sizes = {"a": d_in, "r": d_out, "b": d_in, "s": d_out, "eta": 1}
    parts = dict(zip(sizes, out.split(list(sizes.values())), strict=True))
    a = torch.outer(d_out * parts["a"], parts["r"].softmax(0))
    b = torch.outer((d_out / d_in) ** 0.5 * parts["b"], parts["s"].softmax(0))
    return editor.config.max_scale * parts["eta"].sigmoid() * (a * gradient + b)


@pytest.mark.parametrize("config", [{}, {"max_scale": 3.0}, {"direction": "site"}])
def test_the_low_rank_update_is_the_dense_formula(tiny_base: Base, config: dict[str, float]) -> None:
    editor, stage = ke_on(tiny_base, **config)
    shaken(editor)
    batch = batch_of(tiny_base)
    gradients = gradients_of(editor, stage, batch)
    conditions = conditions_of(tiny_base, stage.answers, batch.requests)
    updates = editor(gradients, conditions)
    told = editor._condition(conditions)
    for site in editor.sites:
        change = updates[site.name].materialise()
        whole = gradients[site.name].materialise()
        if editor.config.direction == "site":
            whole = whole / whole.flatten(1).norm(dim=1)[:, None, None]
        for index in range(len(batch)):
            expected = dense(editor, site, whole[index], told[index])
            assert float(expected.detach().norm()) > 0.01
            torch.testing.assert_close(
                change[index], expected, rtol=1e-5, atol=1e-5 * float(expected.detach().abs().max())
            )


def test_the_base_computes_with_the_dense_change(tiny_base: Base) -> None:
    editor, stage = ke_on(tiny_base)
    shaken(editor)
    batch = batch_of(tiny_base)
    gradients = gradients_of(editor, stage, batch)
    with torch.no_grad():
        updates = request_updates(editor, stage, gradients, batch.requests)
    model = dense_copy(tiny_base, {name: update.materialise().sum(0) for name, update in updates.items()})
    ids = torch.tensor([tiny_base.tokenizer("The capital of Spain is")["input_ids"]])
    with torch.no_grad(), applied(tiny_base.model, updates):
        found = tiny_base.model(ids).logits
    torch.testing.assert_close(found, model(ids).logits.detach(), rtol=1e-4, atol=1e-4)
    assert float((found - tiny_base.model(ids).logits).abs().max()) > 0.1
    name, update = next(iter(updates.items()))
    module = tiny_base.model.get_submodule(name)
    assert weight_change(update, module).shape == module.weight.shape


def test_a_batch_is_its_requests_one_by_one(tiny_base: Base) -> None:
    editor, stage = ke_on(tiny_base)
    shaken(editor)
    batch = batch_of(tiny_base)
    together = meta_loss(editor, stage, batch, LossWeights())
    assert float(together.locality.max()) > 0.1  # updates so small that nothing changes would prove nothing
    for index in range(len(batch)):
        alone = meta_loss(editor, Stage.of(tiny_base, 1), only_request(batch, index), LossWeights())
        for part in ("edit", "locality", "update_norm"):
            torch.testing.assert_close(
                getattr(together, part)[index : index + 1], getattr(alone, part), rtol=1e-4, atol=1e-5
            )


def test_the_condition_does_not_depend_on_padding(tiny_base: Base) -> None:
    editor, _ = ke_on(tiny_base)
    found = conditions_of(tiny_base, OldAnswers(), REQUESTS)
    assert len(set(found.lengths.tolist())) == 3
    garbage = found.embedded.clone()
    for index, length in enumerate(found.lengths.tolist()):
        garbage[index, length:] = 100.0
    torch.testing.assert_close(editor._condition(found), editor._condition(Conditions(garbage, found.lengths)))


@pytest.mark.parametrize("change", [{"old_answer": "far"}, {"target": "low"}, {"prompt": "Rome is"}])
def test_every_part_of_the_text_counts(tiny_base: Base, change: dict[str, str]) -> None:
    editor, stage = ke_on(tiny_base)
    shaken(editor)
    gradients = gradients_of(editor, stage, batch_of(tiny_base, REQUESTS[:2]))
    request = EditRequest("Oslo is", "big", old_answer="old")  # short: an LSTM of this size forgets fast
    pair = (request, replace(request, **change))  # type: ignore[arg-type]
    with torch.no_grad():
        updates = request_updates(editor, stage, gradients, pair)
    assert all(float((u.v[0, -1] / u.v[1, -1] - 1).abs().max()) > 1e-4 for u in updates.values())


def test_after_one_step_every_parameter_has_moved(tiny_base: Base) -> None:
    editor, stage = ke_on(tiny_base)
    before = {name: value.detach().clone() for name, value in editor.named_parameters()}
    assert all(value.ndim > 0 and value.dtype == torch.float32 for value in before.values())
    optimizer = torch.optim.Adam(editor.parameters(), 1e-3)
    meta_loss(editor, stage, batch_of(tiny_base), LossWeights()).loss.backward()
    optimizer.step()
    assert not [name for name, value in editor.named_parameters() if torch.equal(value, before[name])]


def test_the_first_updates_are_a_small_step_down_the_gradient(tiny_base: Base) -> None:
    for options, step in (({}, 0.01), ({"max_scale": 4.0}, 0.2), ({"direction": "site"}, 1.0)):
        editor, stage = ke_on(tiny_base, step_init=step, **options)
        batch = batch_of(tiny_base)
        gradients = gradients_of(editor, stage, batch)
        with torch.no_grad():
            updates = request_updates(editor, stage, gradients, batch.requests)
        for name, g in editor.directed(gradients).items():
            a = updates[name].materialise() + step * g.materialise()
            assert bool((a.flatten(1).norm(dim=1) < 0.5 * step * g.norms().clamp_min(1.0)).all())


@pytest.mark.slow
def test_it_learns_to_edit(tiny_base: Base) -> None:
    editor, stage = ke_on(tiny_base, step_init=0.05)
    batch = batch_of(tiny_base)
    optimizer = torch.optim.Adam(editor.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        result = meta_loss(editor, stage, batch, LossWeights())
        losses.append(result)
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
    assert float(losses[-1].loss.detach()) < 0.5 * float(losses[0].loss.detach())
    assert float(losses[-1].reliability.mean()) > float(losses[0].reliability.mean())


def test_no_warm_up_is_needed_and_none_does_harm(tiny_llama_base: Base) -> None:
    editor, stage = ke_on(tiny_llama_base)
    before = {name: value.clone() for name, value in editor.state_dict().items()}
    warm_up(editor, stage, [batch_of(tiny_llama_base)])
    assert all(torch.equal(value, before[name]) for name, value in editor.state_dict().items())
    assert editor.started and editor.sums({}) == []
    embedding = tiny_llama_base.model.get_input_embeddings().weight
    assert not any(value.shape == embedding.shape for value in before.values())


def test_gradients_without_their_requests_are_refused(tiny_llama_base: Base) -> None:
    editor, stage = ke_on(tiny_llama_base)
    batch = batch_of(tiny_llama_base)
    with pytest.raises(ValueError, match="condition of every request"):
        meta_loss(editor, stage, replace(batch, requests=batch.requests[:2]), LossWeights())
    with pytest.raises(ValueError, match="condition of every request"):
        editor(gradients_of(editor, stage, batch))


def test_fp32_under_a_bf16_base(tiny_llama_base: Base) -> None:
    tiny_llama_base.model.to(torch.bfloat16)
    editor, stage = ke_on(tiny_llama_base)
    meta_loss(editor, stage, batch_of(tiny_llama_base), LossWeights()).loss.backward()
    assert {p.dtype for p in editor.parameters()} == {torch.float32}
    assert {p.grad.dtype for p in editor.parameters() if p.grad is not None} == {torch.float32}


@pytest.mark.parametrize("bad", [{"hidden": 0}, {"condition": 0}, {"head": 0}, {"max_scale": 0.0}, {"step_init": -1.0}])
def test_impossible_settings_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match="found"):
        KEConfig(**bad)  # type: ignore[arg-type]
