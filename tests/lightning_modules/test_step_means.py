"""Means over micro-batches and ranks are sums divided once."""

import pytest
import torch

from instructedit.metatrain import MetaLoss
from lightning_modules.step_means import StepMeans


def result(edit: list[float]) -> MetaLoss:
    values = torch.tensor(edit)
    return MetaLoss(values.sum(), *[values] * 6, sums=[], n_tokens=100 + len(edit))  # type: ignore[arg-type]


def test_uneven_parts_give_the_mean_over_requests() -> None:
    first, second = StepMeans(["a", "b", "c"]), StepMeans(["a", "b", "c"])
    first.add(["a", "b"], result([1.0, 4.0]))
    first.add(["a"], result([3.0]))
    second.add(["a"], result([8.0]))  # another rank
    sums = first.sums() + second.sums()
    values = first.values(sums)
    assert first.tokens(sums) == 102 + 101 + 101
    assert values["train/a/edit"] == pytest.approx(4.0) and values["train/b/locality"] == pytest.approx(4.0)
    assert values["train/loss"] == pytest.approx(4.0)
    assert not any(name.startswith("train/c/") for name in values)
    assert float(first.sums().sum()) == 0  # taken once
