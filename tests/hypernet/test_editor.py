from dataclasses import replace

import pytest
import torch

from instructedit.base import Base
from instructedit.base.sites import SiteSpec, find_sites
from instructedit.errors import InputError
from instructedit.hypernet.blocks import LowRankBlock
from instructedit.hypernet.editor import EditorConfig, HyperEditor
from instructedit.metatrain import LossWeights, meta_loss, warm_up
from tests.core import editor_on, gradients_of, random_batch


def test_one_network_per_shape_and_one_alpha_per_site(tiny_llama_base: Base, tiny_gpt2_base: Base) -> None:
    llama, gpt2 = editor_on(tiny_llama_base)[0], editor_on(tiny_gpt2_base)[0]
    assert sorted(llama.networks) == ["32x48", "48x32"] and llama.alpha.shape == (9,)
    assert sorted(gpt2.networks) == ["128x32", "32x128"] and gpt2.alpha.shape == (6,)
    assert all(parameter.ndim > 0 for parameter in llama.parameters())


def test_blocks_are_the_identity_at_the_start() -> None:
    z = torch.randn(5, 8)
    assert torch.equal(LowRankBlock(8, 4, 2)(z, [2, 3]), z)


def test_sites_of_one_shape_in_one_pass_equal_one_after_the_other(tiny_base: Base) -> None:
    editor, stage = editor_on(tiny_base)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in editor.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    gradients = gradients_of(editor, stage, random_batch(0))
    updates = editor(gradients)
    for index, site in enumerate(editor.sites):
        g = gradients[site.name]
        shape, place = editor.place_of(site.name)
        z = editor.moments[index].standardise(torch.cat([g.x, g.delta], 1))
        for block in editor.networks[shape].blocks:
            z = slow_block(block, z, place)
        u, v = g.by_request(z[:, : site.d_in]), g.by_request(-editor.alphas()[index] * z[:, site.d_in :])
        torch.testing.assert_close(updates[site.name].materialise(), u.transpose(1, 2) @ v, rtol=1e-4, atol=1e-7)


def test_a_token_whose_gradient_is_exactly_zero_takes_no_part(tiny_base: Base) -> None:
    editor, stage = editor_on(tiny_base)
    gradients = gradients_of(editor, stage, random_batch(0))
    name = editor.sites[0].name
    g = gradients[name]
    assert bool((g.live == 1).all()), "which tokens have a gradient follows from lengths"
    dead = torch.ones_like(g.live)
    dead[0] = 0
    changed = {**gradients, name: replace(g, delta=g.delta * dead, live=dead)}
    assert int(editor.sums(changed)[0].count) == len(g.x) - 1
    first, second = editor(gradients)[name].materialise(), editor(changed)[name].materialise()
    z = editor.moments[0].standardise(torch.cat([g.x, g.delta], 1))[0]
    own = -1e-4 * torch.outer(z[: editor.sites[0].d_in], z[editor.sites[0].d_in :])
    torch.testing.assert_close(first[0] - second[0], own, rtol=1e-3, atol=1e-7)


def slow_block(block: LowRankBlock, z: torch.Tensor, site: int) -> torch.Tensor:
    """The block by its formula; where alone decides the rectifier's derivative."""
    inner = (z @ block.down.T) @ block.up.T + block.bias
    pre = block.scale[site] * inner + block.offset[site]
    return z + torch.where(pre >= 0, pre, 0.0)


@pytest.mark.parametrize("trained", [False, True])
def test_a_block_equals_its_formula_and_is_alive_at_zero(trained: bool) -> None:
    torch.manual_seed(0)
    block, weights = LowRankBlock(8, 4, 2), torch.randn(5, 8)
    if trained:
        for parameter in block.parameters():
            parameter.data.add_(torch.randn_like(parameter))
    found, wanted = (torch.randn(5, 8, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2))
    fast = block(found, [2, 3])
    (fast * weights).sum().backward()
    gradients = {name: parameter.grad.clone() for name, parameter in block.named_parameters()}
    block.zero_grad()
    slow = torch.cat([slow_block(block, wanted[:2], 0), slow_block(block, wanted[2:], 1)])
    (slow * weights).sum().backward()
    torch.testing.assert_close(fast, slow)
    torch.testing.assert_close(found.grad, wanted.grad)
    for name, parameter in block.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad)
    assert gradients["up"].abs().sum() > 0, "dead at zero"


def test_at_the_start_the_update_is_minus_alpha_times_the_standardised_gradient(tiny_base: Base) -> None:
    editor, stage = editor_on(tiny_base)
    gradients = gradients_of(editor, stage, random_batch(0))
    updates = editor(gradients)
    for index, site in enumerate(editor.sites):
        g = gradients[site.name]
        z = editor.moments[index].standardise(torch.cat([g.x, g.delta], 1))
        expected = -1e-4 * g.by_request(z[:, : site.d_in]).transpose(1, 2) @ g.by_request(z[:, site.d_in :])
        torch.testing.assert_close(updates[site.name].materialise(), expected)


def test_after_the_first_step_everything_that_should_move_has_moved(tiny_base: Base) -> None:
    editor, stage = editor_on(tiny_base)
    before = {name: value.detach().clone() for name, value in editor.named_parameters()}
    optimizer = torch.optim.Adam(editor.parameters(), 1e-3)
    for step in (1, 2):
        optimizer.zero_grad()
        meta_loss(editor, stage, random_batch(step), LossWeights()).loss.backward()
        optimizer.step()
        still = {name for name, value in editor.named_parameters() if torch.equal(value, before[name])}
        # U is zero at the start, so V ("down") and the scale of U V z get their first gradient one step later.
        allowed = {name for name in before if name.endswith((".down", ".scale"))} if step == 1 else set()
        assert still <= allowed, f"dead after step {step}: {sorted(still - allowed)}"


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_site_direction_starts_with_updates_of_the_same_size(tiny_base: Base, scale: str) -> None:
    plain, stage = editor_on(tiny_base, alpha_scale=scale)
    directed, _ = editor_on(tiny_base, direction="site", alpha_scale=scale)
    batches = [random_batch(seed) for seed in (101, 102)]
    sizes = []
    for editor in (plain, directed):
        norms = [torch.stack([u.norms() for u in editor(gradients_of(editor, stage, b)).values()]) for b in batches]
        sizes.append(torch.cat(norms, 1).mean(1))
    torch.testing.assert_close(sizes[0], sizes[1], rtol=1e-4, atol=0)
    assert not torch.allclose(plain.alphas(), directed.alphas(), rtol=1e-3)


def test_site_direction_ignores_the_gradients_size(tiny_base: Base) -> None:
    directed, stage = editor_on(tiny_base, direction="site")
    gradients = gradients_of(directed, stage, random_batch(3))
    larger = {name: g.scaled(torch.tensor([1.0, 10.0, 0.1, 3.0])) for name, g in gradients.items()}
    for name, update in directed(gradients).items():
        torch.testing.assert_close(update.materialise(), directed(larger)[name].materialise(), rtol=1e-3, atol=1e-7)


def test_log_alphas_stay_positive_and_linear_ones_may_not(tiny_llama_base: Base) -> None:
    for scale, positive in (("log", True), ("linear", False)):
        editor, _ = editor_on(tiny_llama_base, alpha_scale=scale)
        torch.testing.assert_close(editor.alphas(), torch.full((9,), 1e-4))
        with torch.no_grad():
            editor.alpha -= 1.0
        assert bool((editor.alphas() > 0).all()) is positive


def test_a_new_editor_refuses_to_edit_before_the_warm_up(tiny_llama_base: Base) -> None:
    started, stage = editor_on(tiny_llama_base)
    gradients = gradients_of(started, stage, random_batch(0))
    fresh = HyperEditor(find_sites(tiny_llama_base, SiteSpec()), EditorConfig(rank=4))
    with pytest.raises(RuntimeError, match="warm_up"):
        fresh(gradients)
    warm_up(fresh, stage, [random_batch(0)])
    before = fresh.state_dict()["moments.0.count"].clone()
    warm_up(fresh, stage, [random_batch(1)])
    assert torch.equal(before, fresh.state_dict()["moments.0.count"])


@pytest.mark.parametrize("bad", [{"rank": 0}, {"n_blocks": 0}, {"alpha_init": 0.0}])
def test_impossible_sizes_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(InputError, match="found"):
        EditorConfig(**bad)  # type: ignore[arg-type]


def test_fp32_under_a_bf16_base(tiny_llama_base: Base) -> None:
    tiny_llama_base.model.to(torch.bfloat16)
    editor, stage = editor_on(tiny_llama_base)
    meta_loss(editor, stage, random_batch(0), LossWeights()).loss.backward()
    assert {p.dtype for p in editor.parameters()} == {torch.float32}
    assert {p.grad.dtype for p in editor.parameters() if p.grad is not None} == {torch.float32}
    assert {b.dtype for b in editor.buffers()} == {torch.float32, torch.int64}
