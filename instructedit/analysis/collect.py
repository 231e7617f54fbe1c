"""Editing gradients of chosen records, raw and as an editor transforms them, and the table of their inner products.

The raw gradient of a request is what its inner loss says about a site, before L2 scaling and moments; the transformed
one is the update that the hypernetwork makes of it. Both stay factors. Knows editors, records and tables of inner
products; nothing of embeddings, statistics or files.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from instructedit.analysis.editors import Named
from instructedit.analysis.gram import Factors, gram
from instructedit.data.rows import Rows
from instructedit.data.tokenise import tokenise
from instructedit.editing.editor import Editor
from instructedit.errors import InputError
from instructedit.gradients import EditGradients
from instructedit.instructions.pools import InstructionPool, pool_for
from instructedit.instructions.rendering import seen_instruction, unseen_instruction
from instructedit.lowrank import LowRankUpdate
from instructedit.metatrain import request_gradients, request_updates
from instructedit.records import EditExample, EditRequest
from instructedit.tasks.choice import stable_sample
from instructedit.tasks.prepared import read_prepared

Which = Literal["seen", "unseen"]
Kind = Literal["raw", "transformed"]
KINDS: tuple[Kind, ...] = ("raw", "transformed")
ALL_SITES = "all"

Steps = Callable[[str, str, int], None]
"""Is told of a name, of what is being done, and how many of the steps that ``steps_of`` counts were done now."""


@dataclass(frozen=True)
class Collected:
    """The inner products of n records' gradients under one name.

    Args:
        name: of the editor.
        kind: raw or transformed.
        ids: (n,) the records' ids, task by task.
        tasks: (n,) their tasks.
        tables: per site, and summed over all sites, the inner products (n, n) in fp64.
    """

    name: str
    kind: Kind
    ids: tuple[str, ...]
    tasks: tuple[str, ...]
    tables: Mapping[str, Tensor]


def check_choice(tasks: Sequence[str], records: int) -> None:
    """Refuse what cannot be told apart, before a file is read.

    Raises:
        InputError: there are fewer than 2 tasks, one is there twice, or there are fewer than 2 records of each.
    """
    if len(set(tasks)) < 2 or len(set(tasks)) < len(tasks):
        raise InputError(f"--tasks is {', '.join(tasks) or 'empty'}. Name 2 or more different tasks to tell apart.")
    if records < 2:
        raise InputError(f"--records is {records}. Set it to 2 or more.")


def choose_records(data: str, tasks: Sequence[str], records: int, seed: int = 0) -> dict[str, list[EditExample]]:
    """Choose so many test records of each task by a hash of their ids: at seed 0 those that `evaluate` asks.

    Raises:
        InputError: there are fewer than 2 tasks, or a task is not prepared or has fewer than 2 test records.
    """
    check_choice(tasks, records)
    chosen = {}
    for task in tasks:
        examples = read_prepared(data, task, "test")
        if len({example.request.id for example in examples}) < 2:
            raise InputError(f"Task {task!r} in {data} has {len(examples)} test record(s), 2 are needed. Leave it out.")
        kept = set(stable_sample([one.request.id for one in examples], records, "limit", *[str(seed)] * (seed != 0)))
        chosen[task] = list({one.request.id: one for one in examples if one.request.id in kept}.values())
    return chosen


def instructed(editor: Editor, request: EditRequest, which: Which) -> EditRequest:
    """Put the seen or the unseen instruction of an editor's own pools before a request; none for MEND and KE."""
    pools: Mapping[str, InstructionPool] | None = editor.card.pools
    if pools is None:
        return request
    put = seen_instruction if which == "seen" else unseen_instruction
    return replace(request, instruction=put(pool_for(pools, request.task), request))


@dataclass(frozen=True)
class Group:
    """Names whose editors are given the same texts, so that their raw gradients are the same.

    Args:
        members: the names; MEND's of several tasks and of one, for instance.
        requests: the requests of each task, with their instructions.
    """

    members: tuple[Named, ...]
    requests: Mapping[str, Sequence[EditRequest]]

    @property
    def asked(self) -> list[EditRequest]:
        """All requests, task by task."""
        return [request for requests in self.requests.values() for request in requests]

    def places(self, one: Named) -> list[int]:
        """Where the requests of one member lie among ``asked``."""
        return [index for index, request in enumerate(self.asked) if request.task in one.tasks]


def groups_of(
    named: Sequence[Named], loaded: Mapping[Path, Editor], examples: Mapping[str, Sequence[EditExample]], which: Which
) -> list[Group]:
    """Put names together that put the same texts before the base.

    Args:
        named: the editors.
        loaded: the same by folder.
        examples: the records, by task.
        which: the instruction, for editors that take one.

    Raises:
        InputError: an editor has no instruction for a task.
    """
    groups: list[Group] = []
    for one in named:
        asked = {
            task: [instructed(loaded[folder], replace(each.request, task=task), which) for each in examples[task]]
            for task, folder in one.folders.items()
        }
        for index, group in enumerate(groups):
            if all(group.requests.get(task, requests) == requests for task, requests in asked.items()):
                # In the order of the examples, whoever brings a task in.
                both = {**group.requests, **asked}
                ordered = {task: both[task] for task in examples if task in both}
                groups[index] = Group((*group.members, one), ordered)
                break
        else:
            groups.append(Group((one,), {task: asked[task] for task in examples if task in asked}))
    return groups


def steps_of(groups: Sequence[Group]) -> int:
    """Count the steps of ``collect``: two a record for what a group shares, two for each name's own."""
    return sum(2 * len(group.asked) + sum(2 * len(group.places(one)) for one in group.members) for group in groups)


def collect(
    groups: Sequence[Group],
    loaded: Mapping[Path, Editor],
    batch: int = 8,
    on_steps: Steps = lambda name, what, steps: None,
) -> Iterator[Collected]:
    """Yield every name's inner products, raw and transformed, group by group.

    Args:
        groups: see ``groups_of``.
        loaded: the editors by folder, on one base, all with the same sites.
        batch: records in one pass.
        on_steps: see ``Steps``.

    Raises:
        InputError: a text is longer than the base's context.
    """
    for group in groups:
        told = group.members[0].name
        found: list[_Batch] = []
        for task, requests in group.requests.items():
            editor = loaded[next(one for one in group.members if task in one.tasks).folders[task]]
            for start in range(0, len(requests), batch):
                found.append(_Batch.of(editor, task, requests[start : start + batch]))
                on_steps(told, f"gradients of {task}", len(found[-1].requests))
        device = editor.base.device
        tables = _tables([one.factors() for one in found], device, partial(on_steps, told, "raw gradients"))
        for one in group.members:
            places = torch.tensor(group.places(one))
            own = {site: table[places][:, places] for site, table in tables.items()}
            yield _collected(one, "raw", group, own)
            updates = []
            for each in found:
                if each.task in one.tasks:
                    updates.append(each.transformed(loaded[one.folders[each.task]]))
                    on_steps(one.name, f"updates of {each.task}", len(each.requests))
            # The list is given away: its parts are freed site by site.
            made = _tables(updates, device, partial(on_steps, one.name, "updates"))
            yield _collected(one, "transformed", group, made)


@dataclass(frozen=True)
class _Batch:
    """Some requests of one task, and their gradients."""

    task: str
    requests: Sequence[EditRequest]
    gradients: Mapping[str, EditGradients]

    @classmethod
    def of(cls, editor: Editor, task: str, requests: Sequence[EditRequest]) -> "_Batch":
        base, method = editor.base, editor.method
        rows = Rows.of(
            (index, tokenise(base.tokenizer, request.text, target, base.max_tokens))
            for index, request in enumerate(requests)
            for target in request.targets
        )
        with torch.no_grad():
            return cls(task, requests, request_gradients(method.editor, method.stage, rows, len(requests)))

    def factors(self) -> dict[str, Factors]:
        return {
            site: Factors(
                found.x.cpu(), found.delta.cpu(), found.request.bincount(minlength=len(self.requests)).tolist()
            )
            for site, found in self.gradients.items()
        }

    def transformed(self, editor: Editor) -> dict[str, Factors]:
        with torch.no_grad():
            method = editor.method
            updates = request_updates(method.editor, method.stage, self.gradients, self.requests)
        return {site: _packed(update) for site, update in updates.items()}


def _packed(update: LowRankUpdate) -> Factors:
    """The factors of an update u (b, r, d_in), v (b, r, d_out), without the ranks that add nothing."""
    live = (update.u != 0).any(2) & (update.v != 0).any(2)
    return Factors(update.u[live].cpu(), update.v[live].cpu(), live.sum(1).tolist())


def _tables(parts: list[dict[str, Factors]], device: torch.device, done: Callable[[int], None]) -> dict[str, Tensor]:
    """Return each site's inner products and their sum; empties the parts on the way."""
    tables: dict[str, Tensor] = {}
    sites = list(parts[0])
    for number, site in enumerate(sites):
        joined = Factors.joined([part.pop(site) for part in parts])
        tables[site] = gram(joined, device)
        n = len(joined.counts)
        done(n * (number + 1) // len(sites) - n * number // len(sites))
    # The matrices of all sites, one below the other, are one matrix.
    return {**tables, ALL_SITES: torch.stack(list(tables.values())).sum(0)}


def _collected(one: Named, kind: Kind, group: Group, tables: Mapping[str, Tensor]) -> Collected:
    asked = [group.asked[place] for place in group.places(one)]
    return Collected(one.name, kind, tuple(r.id for r in asked), tuple(r.task for r in asked), tables)
