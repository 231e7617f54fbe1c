"""Inside a step no operation makes the host wait for a device to tell it a number or a length."""

import traceback
from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from instructedit.base import Base
from instructedit.metatrain import LossWeights, meta_loss
from tests.core import editor_on, random_batch

aten = torch.ops.aten
WAITS = {
    aten._local_scalar_dense,  # item, float, bool, int, tolist
    aten.nonzero,
    aten.masked_select,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
    aten.bincount,
    aten.equal,
}


THEIRS = "masking_utils"
"""transformers looks, once a pass, whether positions are those of packed sequences; it cannot be kept from that."""


class Waiting(TorchDispatchMode):
    """Counts what would wait; an index of booleans does too. What a module of transformers does is counted apart."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.theirs = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func.overloadpacket
        indices = args[1] if packet in (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_) else ()
        masks = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)
        if packet in WAITS or masks:
            if any(THEIRS in frame.filename for frame in traceback.extract_stack()):
                self.theirs += 1
            else:
                self.found[str(packet)] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("direction", ["none", "site"])
def test_a_step_never_waits(tiny_base: Base, direction: str) -> None:
    editor, stage = editor_on(tiny_base, direction=direction)
    batch = random_batch(0)
    meta_loss(editor, stage, batch, LossWeights())  # the store has the states now
    with Waiting() as waiting:
        result = meta_loss(editor, stage, batch, LossWeights())
        result.loss.backward()
        editor.merge(result.sums)
    assert not waiting.found
    assert waiting.theirs <= 4, "one a pass through the tail: inner, edited, locality before and after"


def test_the_watcher_sees_what_waits(tiny_base: Base) -> None:
    with Waiting() as waiting:
        values = torch.arange(4.0)
        values[values > 1]
        float(values.sum())
    assert sum(waiting.found.values()) >= 2
