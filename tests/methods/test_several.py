"""Many requests in one base, with methods that know better than adding up and with those that do not."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import LongTensor

from instructedit.base import Base
from instructedit.errors import InputError
from instructedit.hooks import count_hooks, replace
from instructedit.metatrain import Stage
from instructedit.methods.several import Stacked, edit_in_sequence, edit_together
from instructedit.records import EditRequest

REQUESTS = [EditRequest(f"The height of tower {number} is", "ten") for number in range(3)]


@dataclass(frozen=True)
class Plus:
    """An edit that adds numbers to what the last block's MLP says."""

    base: Base
    amounts: tuple[float, ...]

    def applied(self, rows: LongTensor | None = None) -> AbstractContextManager[None]:
        total = sum(self.amounts)
        path = f"{self.base.adaptor.block_path(self.base.n_blocks - 1)}.{self.base.adaptor.mlp}"
        return replace(self.base.model, {path: lambda x, y: y + total})


@dataclass(frozen=True)
class Breaks:
    """An edit that cannot be applied."""

    def applied(self, rows: LongTensor | None = None) -> AbstractContextManager[None]:
        @contextmanager
        def broken() -> Any:
            raise RuntimeError("broken")
            yield

        return broken()


@dataclass(frozen=True)
class Adds:
    """Knows the one verb only; notes how many hooks were on the base at each edit."""

    name: str = "Adds"
    seen: list[int] = field(default_factory=list)

    def first_block(self, base: Base) -> int:
        return base.n_blocks - 1

    def stage_for(self, base: Base) -> Stage:
        return Stage.for_evaluation(base, self.first_block(base))

    def edit(self, base: Base, requests: Sequence[EditRequest]) -> Plus:
        if not requests:
            raise InputError("No request.")
        self.seen.append(count_hooks(base.model))
        return Plus(base, (1.0,) * len(requests))


class Knows(Adds):
    """Knows both other verbs too."""

    def edit_together(self, base: Base, requests: Sequence[EditRequest]) -> Plus:
        return Plus(base, (0.5,))

    def edit_next(self, base: Base, before: Plus | None, request: EditRequest) -> Plus:
        return Plus(base, (*(before.amounts if before else ()), 0.25))


def said(base: Base) -> torch.Tensor:
    """What the last block's MLP says."""
    mlp = base.model.get_submodule(f"{base.adaptor.block_path(base.n_blocks - 1)}.{base.adaptor.mlp}")
    found: torch.Tensor = mlp(torch.ones(1, 1, base.d_model))
    return found


def test_a_method_that_knows_how_is_asked_and_any_other_adds_up(tiny_llama_base: Base) -> None:
    assert edit_together(Adds(), tiny_llama_base, REQUESTS) == Plus(tiny_llama_base, (1.0, 1.0, 1.0))
    assert edit_together(Knows(), tiny_llama_base, REQUESTS) == Plus(tiny_llama_base, (0.5,))
    assert edit_in_sequence(Knows(), tiny_llama_base, REQUESTS) == Plus(tiny_llama_base, (0.25, 0.25, 0.25))


def test_in_sequence_each_edit_is_made_under_all_earlier_ones(tiny_llama_base: Base) -> None:
    method = Adds()
    edit = edit_in_sequence(method, tiny_llama_base, REQUESTS)
    assert method.seen == [0, 1, 2]
    assert count_hooks(tiny_llama_base.model) == 0
    before = said(tiny_llama_base)
    with edit.applied():
        torch.testing.assert_close(said(tiny_llama_base), before + 3)
    assert torch.equal(said(tiny_llama_base), before)


def test_a_failing_edit_in_a_sequence_leaves_no_earlier_one_behind(tiny_llama_base: Base) -> None:
    class Fails(Adds):
        def edit(self, base: Base, requests: Sequence[EditRequest]) -> Plus:
            if self.seen:
                raise RuntimeError("the second")
            return super().edit(base, requests)

    with pytest.raises(RuntimeError, match="the second"):
        edit_in_sequence(Fails(), tiny_llama_base, REQUESTS)
    assert count_hooks(tiny_llama_base.model) == 0


def test_stacked_edits_are_all_off_again_where_one_cannot_be_applied(tiny_llama_base: Base) -> None:
    with pytest.raises(RuntimeError, match="broken"), Stacked((Plus(tiny_llama_base, (1.0,)), Breaks())).applied():
        pass
    assert count_hooks(tiny_llama_base.model) == 0


def test_a_sequence_has_one_state_and_no_rows(tiny_llama_base: Base) -> None:
    with pytest.raises(ValueError, match="apply them without rows"):
        Stacked((Plus(tiny_llama_base, (1.0,)),)).applied(torch.tensor([0]))


@pytest.mark.parametrize("how", [edit_together, edit_in_sequence])
@pytest.mark.parametrize("method", [Adds(), Knows()])
def test_no_request_is_refused(tiny_llama_base: Base, how: Any, method: Adds) -> None:
    with pytest.raises(InputError, match="No request"):
        how(method, tiny_llama_base, [])
