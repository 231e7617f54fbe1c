"""Rows and examples for tests of the core, and the textbook's way to edit: dense weights, one request at a time."""

import copy

import torch
from torch import Tensor, nn

from instructedit.base import Base
from instructedit.base.sites import Site, SiteSpec, find_sites
from instructedit.data.collate import Batch
from instructedit.data.rows import Rows
from instructedit.gradients import EditGradients
from instructedit.hypernet.editor import EditorConfig, HyperEditor
from instructedit.hypernet.face import MetaEditor
from instructedit.hypernet.ke import KEConfig, KEEditor
from instructedit.metatrain import Stage, request_gradients, warm_up


def random_rows(generator: torch.Generator, requests: list[int], n_target: int = 2) -> Rows:
    """One row of random tokens and random length for each entry of ``requests``."""
    ids = []
    for _ in requests:
        length = int(torch.randint(6, 14, (1,), generator=generator))
        ids.append(tuple(torch.randint(0, 256, (length,), generator=generator).tolist()))
    return Rows(tuple(ids), (n_target,) * len(ids), tuple(requests))


def random_batch(seed: int, n: int = 4) -> Batch:
    """A mixed batch: request 0 has two wanted texts and one to avoid, the others one and none."""
    generator = torch.Generator().manual_seed(seed)
    return Batch(
        inner=random_rows(generator, [0, *range(n)]),
        rephrase=random_rows(generator, list(range(n))),
        avoid=random_rows(generator, [0]),
        locality=random_rows(generator, [index for index in range(n) for _ in range(2)]),
        tasks=tuple("ab"[index % 2] for index in range(n)),
        record_ids=tuple(f"r{index}" for index in range(n)),
    )


def only_request(batch: Batch, request: int) -> Batch:
    """The same batch with one of its requests alone."""

    def pick(rows: Rows) -> Rows:
        parts = [(i, k) for i, k, r in zip(rows.ids, rows.n_target, rows.request, strict=True) if r == request]
        return Rows(tuple(i for i, _ in parts), tuple(k for _, k in parts), (0,) * len(parts))

    return Batch(
        inner=pick(batch.inner),
        rephrase=pick(batch.rephrase),
        avoid=pick(batch.avoid),
        locality=pick(batch.locality),
        tasks=(batch.tasks[request],),
        record_ids=(batch.record_ids[request],),
        requests=batch.requests[request : request + 1],
    )


def editor_on(base: Base, alpha: float = 1e-4, **config: object) -> tuple[HyperEditor, Stage]:
    """A small started editor on the last three blocks of a tiny base; ``alpha`` sets how hard it edits."""
    sites = find_sites(base, SiteSpec(last_blocks=3))
    torch.manual_seed(7)
    editor = HyperEditor(sites, EditorConfig(**{"rank": 16, "alpha_init": alpha, **config}))  # type: ignore[arg-type]
    stage = Stage.of(base, min(site.block for site in sites))
    warm_up(editor, stage, [random_batch(seed) for seed in (101, 102)])
    return editor, stage


def ke_on(base: Base, **config: object) -> tuple[KEEditor, Stage]:
    """A small KE editor on the last three blocks of a tiny base, with steps large enough to change answers."""
    sites = find_sites(base, SiteSpec(last_blocks=3))
    torch.manual_seed(7)
    settings = {"hidden": 8, "condition": 16, "head": 16, "step_init": 0.5, **config}
    editor = KEEditor(sites, KEConfig(**settings), base.d_model)  # type: ignore[arg-type]
    return editor, Stage.of(base, min(site.block for site in sites))


def textbook_gradients(base: Base, sites: tuple[Site, ...], rows: Rows) -> dict[str, Tensor]:
    """Full weight gradients (d_in, d_out) of one request's mean target NLL, by backward on the whole model."""
    model = copy.deepcopy(base.model)
    weights = {site.name: model.get_submodule(site.name).weight for site in sites}
    for weight in weights.values():
        weight.requires_grad_(True)
    losses = []
    for ids, n_target in zip(rows.ids, rows.n_target, strict=True):
        logits = model(torch.tensor([ids])).logits[0]
        labels = torch.tensor(ids[-n_target:])
        losses.append(nn.functional.cross_entropy(logits[-n_target - 1 : -1], labels, reduction="none"))
    torch.cat(losses).mean().backward()  # type: ignore[no-untyped-call]
    return {name: as_product(model.get_submodule(name), weight.grad) for name, weight in weights.items()}


def as_product(module: nn.Module, matrix: Tensor | None) -> Tensor:
    """A weight-shaped matrix in the orientation (d_in, d_out) of y = x W."""
    assert matrix is not None
    return matrix.T if isinstance(module, nn.Linear) else matrix


def dense_copy(base: Base, changes: dict[str, Tensor]) -> nn.Module:
    """The whole model with changes (d_in, d_out) added to its weights."""
    model = copy.deepcopy(base.model)
    for name, change in changes.items():
        module = model.get_submodule(name)
        with torch.no_grad():
            module.weight += as_product(module, change)
    return model


def gradients_of(editor: MetaEditor, stage: Stage, batch: Batch) -> dict[str, EditGradients]:
    return request_gradients(editor, stage, batch.inner, len(batch))
