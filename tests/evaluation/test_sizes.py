"""How large edits are: norms and drift of every request, against dense weights and the whole model."""

import math

import pytest
import torch

from instructedit.base import Base
from instructedit.data.tokenise import tokenise
from instructedit.evaluation.sizes import EditSize, edit_sizes, size_quantiles
from instructedit.lowrank import LowRankUpdate
from instructedit.methods.hyper import HyperMethod
from instructedit.records import EditExample, EditRequest, Probe
from tests.core import dense_copy, editor_on

EXAMPLES = [
    EditExample(
        EditRequest(f"The capital of land {number} is", "Lima", f"r{number}", "t"),
        tuple(Probe("locality", f"River {number}{k} is", "the long Nile"[: 3 + 3 * k]) for k in range(number)),
    )
    for number in range(3)
]


@pytest.mark.parametrize("batch", [1, 3])
def test_sizes_are_those_of_the_dense_change(tiny_base: Base, batch: int) -> None:
    editor, stage = editor_on(tiny_base, alpha=0.05)
    method, told = HyperMethod(editor, stage, "MEND"), []
    sizes = edit_sizes(method, stage, EXAMPLES, batch, told.append)
    assert [size.id for size in sizes] == ["r0", "r1", "r2"] and sum(told) == 3 and len(told) == 3 // batch
    assert math.isnan(sizes[0].locality_kl)
    for example, size in zip(EXAMPLES, sizes, strict=True):
        edit = method.edit(tiny_base, [example.request])
        changes = {name: update.materialise()[0] for name, update in edit.updates.items()}
        norm = math.sqrt(sum(float(change.double().square().sum()) for change in changes.values()))
        assert size.update_norm == pytest.approx(norm, rel=1e-4) and norm > 0
        edited, means = dense_copy(tiny_base, changes), []
        for probe in example.probes:
            text = tokenise(tiny_base.tokenizer, probe.prompt, probe.target, 512)
            p, q = (
                model(torch.tensor([text.ids])).logits[0, -text.n_target - 1 : -1].double().log_softmax(-1)
                for model in (tiny_base.model, edited)
            )
            means.append(float((p.exp() * (p - q)).sum(-1).mean()))
        if means:
            assert size.locality_kl == pytest.approx(sum(means) / len(means), rel=1e-2) and means[0] > 1e-3


def test_quantiles_leave_out_what_is_no_number() -> None:
    sizes = [EditSize(str(n), "t", float(n), math.nan if n else math.inf) for n in range(101)]
    assert size_quantiles(sizes) == {
        "records": 101,
        "update_norm": {"min": 0.0, "q05": 5.0, "q50": 50.0, "q95": 95.0, "max": 100.0},
    }


def test_a_broken_editors_numbers_are_told_as_they_are(tiny_base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    editor, stage = editor_on(tiny_base)
    method = HyperMethod(editor, stage, "MEND")
    real = LowRankUpdate.norms
    monkeypatch.setattr(LowRankUpdate, "norms", lambda update: real(update) * math.nan)
    assert all(math.isnan(size.update_norm) for size in edit_sizes(method, stage, EXAMPLES))
