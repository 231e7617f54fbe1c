"""The benchmarks of a step: both ways compute the same, and the formulas count what torch counts."""

from types import ModuleType

import pytest
import torch

from instructedit.base import Base, TrunkStore
from instructedit.data.portions import take
from instructedit.hypernet.editor import HyperEditor
from instructedit.metatrain import LossWeights, Stage, meta_loss
from tests.benchmarks.scripts import load
from tests.core import editor_on, random_batch

WEIGHTS = LossWeights()
FACTS = [1, 2, 3]
"""The requests of a random batch with one target and nothing to avoid, as the textbook takes them."""


def trained(base: Base) -> tuple[HyperEditor, Stage]:
    """An editor that is not the identity, which edits hard."""
    editor, stage = editor_on(base, 1.0)
    with torch.no_grad():
        for parameter in editor.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)), alpha=0.1)
    return editor, stage


@pytest.fixture(params=["gpt2", "llama"])
def base(request: pytest.FixtureRequest) -> Base:
    found: Base = request.getfixturevalue(f"tiny_{request.param}_base")
    return found


def test_the_textbook_computes_what_our_step_computes(base: Base) -> None:
    textbook = load("textbook")
    editor, stage = trained(base)
    batch = take(random_batch(0), FACTS)
    ours = meta_loss(editor, stage, batch, WEIGHTS)
    editor.zero_grad()
    ours.loss.backward()
    wanted = {name: value.grad.clone() for name, value in editor.named_parameters()}
    editor.zero_grad()
    total = 0.0
    for request in range(len(batch)):
        edited = textbook.textbook_step(base, editor, batch, request, WEIGHTS)
        edited.loss.backward()
        total += float(edited.loss.detach())
    assert total == pytest.approx(float(ours.loss.detach()), rel=1e-4) and float(ours.update_norm.min()) > 0.1
    for name, value in editor.named_parameters():
        apart = torch.linalg.norm(value.grad - wanted[name]) / torch.linalg.norm(wanted[name])
        assert apart < 1e-3, name
    step = load("step")
    step.check_same(base, editor, stage, batch, 1e-3)
    with torch.no_grad():
        editor.alpha *= 1.1
    assert float(step.textbook_step(base, editor, batch, 0, WEIGHTS).loss.detach()) != float(edited.loss.detach())


def test_the_textbooks_operations_are_those_of_its_passes(base: Base) -> None:
    editor, _ = trained(base)
    load("step").check_flops(base, editor, take(random_batch(0), FACTS))
    flops = load("flops")
    a, b = torch.randn(3, 4), torch.randn(4, 5)
    assert flops.counted(lambda: a @ b) == 2 * 3 * 4 * 5


@pytest.mark.slow
def test_rates_are_told(base: Base) -> None:
    editor, _ = trained(base)
    rates = load("step").measure(base, editor, batch=2, rounds=1, edits=2, prepared=None)
    assert set(rates) == {"textbook", "computed", "stored"} and min(rates.values()) > 0


@pytest.mark.slow
def test_depth_is_measured_for_each_depth() -> None:
    depth: ModuleType = load("depth")
    assert set(depth.measure([4, 5], 64, 8, 2, torch.float32, 1)) == {4, 5}


@pytest.mark.parametrize("stored", [False, True])
def test_the_steps_operations_are_those_of_the_formulas(
    base: Base, stored: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    roofline = load("roofline")
    editor, _ = trained(base)
    split = base.split(min(site.block for site in editor.sites))
    store = TrunkStore(split, "x", 2, 4, 4096 if stored else 0, share_prefixes=True)
    stage, batch = Stage(base, split, store), take(random_batch(0), FACTS)
    roofline.check_count(base, editor, stage, batch, stored)
    assert "GFLOP by formula" in capsys.readouterr().out
    assert (roofline.phase_flops(base, editor, stage, batch, stored)["trunk"] == 0) == stored
    times, whole = roofline.phase_times(editor, stage, [batch, batch])
    assert set(times) == set(roofline.PHASES) and min(*times.values(), whole) > 0
