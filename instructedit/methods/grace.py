"""GRACE: a codebook beside one layer, whose values take the layer's output's place near the edited prompts.

Hartvigsen et al. 2023, "Aging with GRACE: Lifelong Model Editing with Discrete Key-Value Adaptors" (arXiv 2211.11031).
A key is the layer's input at the last token of a request's prompt; its value is found by gradient descent on the
request's wanted texts. The base computes as it always did wherever no key fires. Keys do not depend on other
edits, because nothing below the layer is ever changed. Knows nothing about evaluation.

Three things differ from the released code. It looks at one token, whose position it is told; here each token is
looked up, so that neither teacher forcing nor generation needs to know where a prompt ends. Its replace_prompt
stops one token short of the prompt's last; here that one is replaced too. It compares labels by their mean token id;
here by their texts.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import torch
from torch import LongTensor, Tensor

from instructedit.base.model import Base
from instructedit.base.sites import SiteSpec, find_sites
from instructedit.data.rows import Rows
from instructedit.data.tokenise import tokenise
from instructedit.errors import InputError
from instructedit.hooks import record
from instructedit.hooks import replace as hooked
from instructedit.metatrain import Stage
from instructedit.methods.base import Edit, some
from instructedit.methods.codebook import Codebook, Expansion
from instructedit.methods.iterative import optimise
from instructedit.methods.lookup import CodebookEdit, Replacement
from instructedit.records import EditRequest

ValueInit = Literal["warm", "cold"]
"""Where a value starts: at the layer's own output, or at random numbers between 0 and 1."""


@dataclass(frozen=True)
class GRACE:
    """GRACE as a method. Every request is edited, also one the base answers already.

    A request whose texts tokenise to different prompts has one key for each; a value is trained on all its texts.

    Args:
        name: the row of the table.
        block: the block the layer is in; None takes the one at three fifths of the depth, where on SmolLM2-135M bf16's
            rounding stays furthest below the distances between prompts (published: 35 of GPT2-XL's 48, 27 of LLaMA's
            32). In the last block no later token could see the value: only a target's first token would change.
        module: the layer: a matrix of the block, such as ``"c_fc"`` (published for GPT2-XL) or ``"down_proj"``
            (LLaMA), or ``"mlp"``, the whole MLP; None takes the MLP's output matrix.
        epsilon: a new key's radius, Euclidean, in the units of the layer's input.
        replacement: ``"replace_last"`` changes the token that fires, ``"replace_prompt"`` those before it as well.
        eps_expand: how a key takes in a near query with its own label.
        value_init: where a value starts.
        lr: Adam's step.
        steps: the most steps for one request.
        stop_at: a request whose loss (mean NLL, in nats) is below this takes no further step; None takes all steps, as
            published: the same answers on SmolLM2-135M in seven times the time.
        at_once: keys whose values are optimised in one batch; does not change the result.

    Raises:
        InputError: an option has a value it cannot have.
    """

    name: str = "GRACE"
    block: int | None = None
    module: str | None = None
    epsilon: float = 1.0
    replacement: Replacement = "replace_prompt"
    eps_expand: Expansion = "coverage"
    value_init: ValueInit = "cold"
    lr: float = 1.0
    steps: int = 100
    stop_at: float | None = 0.05
    at_once: int = 16
    _stages: dict[int, Stage] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        choices = {"replacement": Replacement, "eps_expand": Expansion, "value_init": ValueInit}
        for option, known in choices.items():
            if getattr(self, option) not in get_args(known):
                raise InputError(
                    f"{option} of {self.name} is {getattr(self, option)!r}. Choose one of {', '.join(get_args(known))}."
                )
        if self.epsilon < 0 or self.lr <= 0 or self.steps < 1 or self.at_once < 1:
            raise InputError(
                f"{self.name} needs epsilon of at least 0, lr above 0, steps and at_once of at least 1; found "
                f"epsilon={self.epsilon}, lr={self.lr}, steps={self.steps}, at_once={self.at_once}."
            )

    def first_block(self, base: Base) -> int:
        """Return the block of the layer.

        Raises:
            InputError: the base has no such block.
        """
        if self.block is None:
            return max(0, min(round(0.6 * base.n_blocks), base.n_blocks - 2))
        if not 0 <= self.block < base.n_blocks:
            raise InputError(
                f"block of {self.name} is {self.block}, but base {base.name!r} has blocks 0-{base.n_blocks - 1}. "
                "Set it to one of these."
            )
        return self.block

    def stage_for(self, base: Base) -> Stage:
        """Return the base split before the layer's block; the same stage each time."""
        if id(base) not in self._stages:
            self._stages[id(base)] = Stage.for_evaluation(base, self.first_block(base))
        return self._stages[id(base)]

    def edit(self, base: Base, requests: Sequence[EditRequest]) -> CodebookEdit:
        """Give each request a codebook of its own.

        Raises:
            InputError: the list is empty, a text is longer than the context, the block or the layer does not exist.
        """
        books: list[Codebook | None] = [None] * len(some(requests))
        for request, _, entry in self._entries(base, requests):
            before = books[request]
            books[request] = entry if before is None else before.insert(entry, self.eps_expand)[0]
        return self._as_edit(base, [book for book in books if book is not None])

    def edit_together(self, base: Base, requests: Sequence[EditRequest]) -> CodebookEdit:
        """Put all requests into one codebook, in order, as if they had come one after another.

        Raises:
            InputError: as ``edit``.
        """
        return self._inserted(base, None, some(requests))

    def edit_next(self, base: Base, before: Edit | None, request: EditRequest) -> CodebookEdit:
        """Put one more request into the codebook; see ``Codebook.insert`` for what becomes of near keys.

        Raises:
            InputError: as ``edit``.
        """
        if before is not None and not isinstance(before, CodebookEdit):
            raise ValueError(f"GRACE goes on from its own edits; found {type(before).__name__}.")
        return self._inserted(base, None if before is None else before.together, [request])

    def _inserted(self, base: Base, book: Codebook | None, requests: Sequence[EditRequest]) -> CodebookEdit:
        for _, rows, entry in self._entries(base, requests):
            if book is None:
                book = entry
                continue
            labels = book.labels
            book, index = book.insert(entry, self.eps_expand)
            if index < len(labels) and labels[index] == entry.labels[0]:
                # A grown key's value goes on from where it was, on the new prompt, as in the released code.
                value = self._values(self.stage_for(base), self._path(base), [rows], book.values[index : index + 1])
                book = book.with_value(index, value[0])
        assert book is not None
        return self._as_edit(base, [book])

    def _entries(self, base: Base, requests: Sequence[EditRequest]) -> list[tuple[int, Rows, Codebook]]:
        """Optimise every request's entries: (request, the texts behind the entry, the entry), in order."""
        stage, path = self.stage_for(base), self._path(base)
        found: list[tuple[int, Rows]] = []
        for index, request in enumerate(requests):
            texts = [tokenise(base.tokenizer, request.text, target, base.max_tokens) for target in request.targets]
            prompts = dict.fromkeys(text.ids[: -text.n_target] for text in texts)
            found += [
                (index, Rows.of((0, text) for text in texts if text.ids[: -text.n_target] == prompt))
                for prompt in prompts
            ]
        # A trainer validates in inference mode, whose tensors no gradient can be taken through.
        with torch.inference_mode(False), torch.no_grad():
            seen = [_at_prompt(stage, path, rows) for _, rows in found]
            keys, outputs = torch.stack([x for x, _ in seen]), torch.stack([y for _, y in seen])
            starts = outputs
            if self.value_init == "cold":
                # The same start for every request: what it becomes must not depend on the requests beside it.
                generator = torch.Generator().manual_seed(0)
                starts = torch.rand(outputs.shape[1], generator=generator).to(outputs.device).repeat(len(outputs), 1)
            units, chunk = [rows for _, rows in found], self.at_once
            groups = [slice(i, i + chunk) for i in range(0, len(units), chunk)]
            values = torch.cat([self._values(stage, path, units[group], starts[group]) for group in groups])
        radius = torch.full((1,), float(self.epsilon), device=keys.device)
        return [
            (index, rows, Codebook(keys[i : i + 1], values[i : i + 1], radius, (requests[index].targets,)))
            for i, (index, rows) in enumerate(found)
        ]

    def _values(self, stage: Stage, path: str, units: Sequence[Rows], starts: Tensor) -> Tensor:
        """Optimise values (m, d_out), one for the texts of each unit, from starts (m, d_out)."""
        rows = sum((replace(unit, request=(index,) * len(unit)) for index, unit in enumerate(units)), Rows())

        def run(parameters: Sequence[Tensor], row_unit: LongTensor) -> AbstractContextManager[None]:
            return hooked(stage.base.model, {path: _put(parameters[0][row_unit], last[row_unit], self.replacement)})

        def adam(tensors: list[Tensor]) -> torch.optim.Optimizer:
            return torch.optim.Adam(tensors, self.lr)

        with torch.inference_mode(False):
            last = torch.tensor([_last(unit) for unit in units], device=starts.device)
            values = starts.clone()
            optimise(stage, rows, [values], run, adam, steps=self.steps, stop_at=self.stop_at)
        return values

    def _path(self, base: Base) -> str:
        block = self.first_block(base)
        if self.module == base.adaptor.mlp:
            return f"{base.adaptor.block_path(block)}.{base.adaptor.mlp}"
        wanted = self.module or base.adaptor.matrices[-1]
        sites = find_sites(base, SiteSpec(base.n_blocks - block, (wanted,)))
        return sites[0].name

    def _as_edit(self, base: Base, books: Sequence[Codebook]) -> CodebookEdit:
        return CodebookEdit(base, self._path(base), self.replacement, self.eps_expand, tuple(books))


def _last(rows: Rows) -> int:
    """Position of the prompt's last token, the same in all rows of one key."""
    return len(rows.ids[0]) - rows.n_target[0] - 1


def _at_prompt(stage: Stage, path: str, rows: Rows) -> tuple[Tensor, Tensor]:
    """Input (d_in,) and output (d_out,) of the layer at the prompt's last token, fp32.

    From the prompt alone in a pass of its own, so that the same prompt always has the same key.
    """
    prompt = Rows((rows.ids[0][: _last(rows) + 1],), (1,), (0,))
    with record(stage.base.model, [path]) as seen:
        stage.split.tail(stage.hidden(prompt))
    # Widened by a copy: a recorded fp32 tensor is the model's own.
    return seen[path].x[0, -1].float().clone(), seen[path].y[0, -1].float().clone()


def _put(values: Tensor, last: Tensor, replacement: Replacement) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a hook that puts values (n, d_out) where looking up would: the key fires at ``last`` (n,)."""

    def function(x: Tensor, y: Tensor) -> Tensor:
        place = torch.arange(y.shape[1], device=y.device)
        at = last.unsqueeze(1)
        chosen = place == at if replacement == "replace_last" else place <= at
        return torch.where(chosen.unsqueeze(-1), values.to(y.dtype).unsqueeze(1), y)

    return function
