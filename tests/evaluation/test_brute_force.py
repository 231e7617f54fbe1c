"""The runner against a plain evaluation: one text at a time through a whole copied model that holds the edit's state.

No trunk, no tail, no batch, no hook of ours: weights are changed in the copy, or a layer of it is wrapped. What the
edit's tensors mean is written out here once more.
"""

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from instructedit.base import Base, load_base
from instructedit.evaluation.runner import dress, evaluate
from instructedit.instructions.pools import load_pools
from instructedit.methods.base import Edit, EditMethod
from instructedit.methods.calinet import SlotEdit
from instructedit.methods.dense import DenseEdit
from instructedit.methods.grace import CodebookEdit
from instructedit.methods.hyper import HyperEdit
from instructedit.methods.none import NoEdit
from instructedit.records import EditExample, EditRequest
from instructedit.tasks import load_task
from tests.core import as_product
from tests.methods.every import EVERY

KNOWEDIT = os.environ.get("INSTRUCTEDIT_KNOWEDIT", "")
METHODS: dict[str, Callable[[Base], EditMethod]] = {
    "none": lambda _: NoEdit(),
    **EVERY,
    "instructedit": EVERY["mend"],  # and the examples have instructions, see asked()
}


class WithSlots(nn.Module):
    """An MLP with slots beside it: keys (s, d), values (s, d)."""

    def __init__(self, mlp: nn.Module, keys: Tensor, values: Tensor, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.mlp, self.keys, self.values, self.activation = mlp, keys, values, activation

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.mlp(x)
        for key, value in zip(self.keys, self.values, strict=True):
            out = out + self.activation(x @ key).unsqueeze(-1) * value
        return out


class WithCodebook(nn.Module):
    """A layer beside a codebook, one token after the other: keys (k, d_in), values (k, d_out), radii (k,)."""

    def __init__(self, layer: nn.Module, keys: Tensor, values: Tensor, radii: Tensor, prompt: bool) -> None:
        super().__init__()
        self.layer, self.keys, self.values, self.radii, self.prompt = layer, keys, values, radii, prompt

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x).clone()
        assert len(x) == 1
        fired = False
        for place, token in enumerate(x[0]):
            distances = (self.keys - token).norm(dim=1)
            nearest = int(distances.argmin())
            if distances[nearest] <= self.radii[nearest]:
                start = 0 if self.prompt and not fired else place
                out[0, start : place + 1] = self.values[nearest]
                fired = True
        return out


@contextmanager
def holding(model: nn.Module, base: Base, edit: Edit, row: int) -> Iterator[None]:
    """Put the state of request ``row`` into a copied model, and take it out again."""
    kept: list[tuple[nn.Module, Tensor]] = []
    wrapped: list[tuple[str, nn.Module]] = []

    def change(name: str, change: Tensor) -> None:
        module = model.get_submodule(name)
        kept.append((module, module.weight.detach().clone()))
        with torch.no_grad():
            module.weight += as_product(module, change)

    def wrap(name: str, make: Callable[[nn.Module], nn.Module]) -> None:
        parent, _, last = name.rpartition(".")
        wrapped.append((name, model.get_submodule(name)))
        setattr(model.get_submodule(parent), last, make(model.get_submodule(name)))

    if isinstance(edit, HyperEdit):
        for name, update in edit.updates.items():
            change(name, sum(torch.outer(u, v) for u, v in zip(update.u[row], update.v[row], strict=True)))
    elif isinstance(edit, DenseEdit):
        for name, changes in edit.changes.items():
            change(name, changes[row])
    elif isinstance(edit, SlotEdit):
        activation = ACT2FN[getattr(base.model.config, base.adaptor.activation)]
        wrap(
            f"{base.adaptor.block_path(edit.block)}.{base.adaptor.mlp}",
            lambda mlp: WithSlots(mlp, edit.keys[row], edit.values[row], activation),
        )
    elif isinstance(edit, CodebookEdit):
        book, prompt = edit.books[row], edit.replacement == "replace_prompt"
        wrap(edit.module, lambda layer: WithCodebook(layer, book.keys, book.values, book.radii, prompt))
    try:
        yield
    finally:
        for module, weight in kept:
            with torch.no_grad():
                module.weight.copy_(weight)
        for name, layer in wrapped:
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, layer)


def argmaxes(model: nn.Module, base: Base, text: str, target: str) -> tuple[list[int], list[int]]:
    """The argmax before each target token, and the target's tokens: those that end behind the joining space."""
    joint = text if text[-1:].isspace() else text + " "
    encoded = base.tokenizer(joint + target, return_offsets_mapping=True)
    ids = encoded["input_ids"]
    places = [place for place, (_, end) in enumerate(encoded["offset_mapping"]) if end > len(joint)]
    with torch.no_grad():
        logits = model(torch.tensor([ids], device=base.device), use_cache=False).logits[0]
    return [int(logits[place - 1].argmax()) for place in places], [ids[place] for place in places]


def share(a: list[int], b: list[int]) -> float:
    return sum(x == y for x, y in zip(a, b, strict=True)) / len(a)


def plainly(method: EditMethod, base: Base, examples: list[EditExample]) -> dict[tuple[str, str], float]:
    """Reliability, generalization, locality and portability of each example, by id and metric."""
    model = copy.deepcopy(base.model)
    found: dict[tuple[str, str], float] = {}
    edit = method.edit(base, [example.request for example in examples])
    for row, example in enumerate(examples):
        request = example.request
        before = {p: argmaxes(model, base, p.text, p.target)[0] for p in example.of_kind("locality")}
        values: dict[str, list[float]] = {}
        with holding(model, base, edit, row):
            for target in request.targets:
                values.setdefault("reliability", []).append(share(*argmaxes(model, base, request.text, target)))
            for kind, metric in (("rephrase", "generalization"), ("portability", "portability")):
                for probe in example.of_kind(kind):  # type: ignore[arg-type]
                    values.setdefault(metric, []).append(share(*argmaxes(model, base, probe.text, probe.target)))
            for probe, said in before.items():
                values.setdefault("locality", []).append(
                    share(argmaxes(model, base, probe.text, probe.target)[0], said)
                )
        found |= {(request.id, metric): sum(own) / len(own) for metric, own in values.items()}
    return found


def read(tasks: tuple[str, ...], source: Path, per_task: int, probes: int = 2) -> list[EditExample]:
    """The first records of tasks' test sets, with a few probes of each kind."""
    examples = []
    for task in tasks:
        all_of_task = (item for item in load_task(task).read(source, "test") if isinstance(item, EditExample))
        for example, _ in zip(all_of_task, range(per_task), strict=False):
            kinds = ("rephrase", "portability", "locality")
            kept = [probe for kind in kinds for probe in example.of_kind(kind)[:probes]]  # type: ignore[arg-type]
            examples.append(EditExample(example.request, tuple(kept)))
    return examples


def asked(name: str, examples: list[EditExample]) -> list[EditExample]:
    """The examples as a method is asked them."""
    return dress(examples, load_pools(), "seen") if name == "instructedit" else examples


class Once:
    """A method whose edit both evaluations get: what an edit does is compared, and some take a minute to make."""

    def __init__(self, method: EditMethod) -> None:
        self._method = method
        self._requests: list[EditRequest] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._method, name)

    def edit(self, base: Base, requests: Sequence[EditRequest]) -> Edit:
        if not self._requests:
            self._requests, self._edit = list(requests), self._method.edit(base, requests)
        assert self._requests == list(requests)
        return self._edit


def compare(method: EditMethod, base: Base, examples: list[EditExample]) -> dict[str, list[float]]:
    """Assert that both evaluations give the same; return the runner's values by metric."""
    once: Any = Once(method)
    plain = plainly(once, base, examples)
    wanted = {metric for _, metric in plain}
    outcomes = evaluate(once, method.stage_for(base), examples, batch=len(examples))
    ours = {(outcome.id, outcome.metric): outcome.value for outcome in outcomes if outcome.metric in wanted}
    assert ours == pytest.approx(plain, abs=1e-9)
    return {metric: [value for (_, other), value in ours.items() if other == metric] for metric in wanted}


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_the_runner_equals_a_plain_evaluation(tiny_base: Base, name: str) -> None:
    examples = asked(name, read(("demo-recent", "demo-counterfact", "demo-convsent", "demo-zsre"), Path(), 2))
    values = compare(METHODS[name](tiny_base), tiny_base, examples)
    assert set(values) == {"reliability", "generalization", "locality", "portability"}
    # The edits change answers, so that equality says something.
    assert name == "none" or min(values["locality"]) < 1 or name == "grace"


@pytest.fixture(scope="module")
def real_base() -> Base:
    return load_base("smollm2-135m", torch.float32)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", METHODS)
def test_the_runner_equals_a_plain_evaluation_of_20_requests_on_the_real_base(real_base: Base, name: str) -> None:
    tasks = ("recent", "counterfact", "convsent", "zsre")
    demo = tuple(f"demo-{task}" for task in tasks)
    examples = read(tasks, Path(KNOWEDIT), 5, probes=1) if KNOWEDIT else read(demo, Path(), 5, probes=1)
    assert len(examples) == 20
    values = compare(METHODS[name](real_base), real_base, asked(name, examples))
    assert set(values) == {"reliability", "generalization", "locality", "portability"}
    assert name in ("none", "grace") or min(values["locality"]) < 1  # the edits change answers
    if name == "grace":  # the others' settings here are for bases of noise; it has its own
        assert sum(values["reliability"]) / len(values["reliability"]) > 0.5
