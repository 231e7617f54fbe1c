"""What a step leaves behind: sums over micro-batches and ranks, divided once."""

import pytest
import torch
from torch import Tensor

from instructedit.hypernet.moments import TokenSums
from instructedit.metatrain import MetaLoss
from lightning_modules.step_tally import StepTally

CPU = torch.device("cpu")


def result(edit: list[float], loss: float | None = None) -> MetaLoss:
    values = torch.tensor(edit)
    sums = [TokenSums(torch.tensor([len(edit)]), torch.full((width,), 0.5), torch.ones(width)) for width in (3, 2)]
    total = values.sum() if loss is None else torch.tensor(loss)
    return MetaLoss(total, *[values] * 6, sums=sums, n_tokens=100 + len(edit))  # type: ignore[arg-type]


def test_uneven_parts_give_the_mean_over_requests() -> None:
    first, second = StepTally(["a", "b", "c"]), StepTally(["a", "b", "c"])
    first.add(["a", "b"], result([1.0, 4.0]))
    first.add(["a"], result([3.0]))
    second.add(["a"], result([8.0]))  # another rank
    assert (first.tokens, second.tokens) == (102 + 101, 101)
    messages: list[Tensor] = []
    second.take(lambda flat: (messages.append(flat), flat)[1], CPU)
    sums, table = first.take(lambda flat: flat + messages[0], CPU)
    assert len(messages) == 1, "all in one message"
    assert [int(part.count) for part in sums] == [4, 4] and [part.count.dtype for part in sums] == [torch.int64] * 2
    assert [part.first.tolist() for part in sums] == [[1.5] * 3, [1.5] * 2]
    values = first.values(table)
    assert values["train/a/edit"] == pytest.approx(4.0) and values["train/b/locality"] == pytest.approx(4.0)
    assert values["train/loss"] == pytest.approx(4.0)
    assert not any(name.startswith("train/c/") for name in values)
    again, empty = first.take(lambda flat: flat, CPU)
    assert again == [] and float(empty.sum()) == 0 and first.tokens == 0, "taken once"


def test_one_bad_micro_batch_is_remembered_until_the_step_ends() -> None:
    tally = StepTally(["a"])
    assert float(tally.not_finite(CPU)) == 0
    tally.add(["a"], result([1.0], loss=float("inf")))
    tally.add(["a"], result([1.0]))
    assert float(tally.not_finite(CPU)) == 1
    tally.take(lambda flat: flat, CPU)
    assert float(tally.not_finite(CPU)) == 0
