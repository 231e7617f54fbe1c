"""What is collected against weight gradients and updates that are formed, on tiny bases of both families."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch

from instructedit.analysis.collect import ALL_SITES, Collected, Kind, choose_records, collect, groups_of, steps_of
from instructedit.analysis.editors import Named
from instructedit.base import Base
from instructedit.checkpoints import EditorCard
from instructedit.data.rows import Rows
from instructedit.data.tokenise import tokenise
from instructedit.editing.editor import Editor
from instructedit.errors import InputError
from instructedit.instructions.pools import load_pools
from instructedit.methods.hyper import HyperMethod
from instructedit.records import EditExample, EditRequest
from instructedit.tasks.prepared import write_prepared
from tests.core import editor_on, ke_on, textbook_gradients
from tests.lightning_modules.conftest import example

TASKS = ("recent", "convsent", "zsre")
EXAMPLES = {task: [example(task, "test", n) for n in range(3)] for task in TASKS}


def editor_of(base: Base, kind: str, alpha: float = 0.1) -> Editor:
    editor, stage = ke_on(base) if kind == "KE" else editor_on(base, alpha=alpha)
    pools = load_pools() if kind == "InstructEdit" else None
    card = EditorCard.of(editor, base, tasks=TASKS[:2], pools=pools)
    return Editor(HyperMethod(editor, stage, kind, pools), card)


def named(name: str, folders: Mapping[str, Path], loaded: Mapping[Path, Editor]) -> Named:
    return Named(name, folders, {task: loaded[folder].card for task, folder in folders.items()})


def everything(
    names: Sequence[Named], loaded: Mapping[Path, Editor], which: str = "seen", batch: int = 2
) -> dict[tuple[str, Kind], Collected]:
    groups = groups_of(names, loaded, EXAMPLES, which)  # type: ignore[arg-type]
    done: list[int] = []
    found = list(collect(groups, loaded, batch, lambda name, what, n: done.append(n)))
    assert sum(done) == steps_of(groups)
    return {(one.name, one.kind): one for one in found}


def formed_products(matrices: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The inner products of the matrices of n records by site, and of all sites, from the matrices themselves."""
    sites = list(matrices[0])
    flat = {site: torch.stack([one[site].flatten() for one in matrices]).double() for site in sites}
    flat[ALL_SITES] = torch.cat([flat[site] for site in sites], 1)
    return {site: rows @ rows.T for site, rows in flat.items()}


def close(found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> None:
    assert set(found) == set(wanted)
    for site, table in wanted.items():
        scale = table.diagonal().sqrt()
        assert (scale > 0).all()
        assert ((found[site] - table) / (scale.unsqueeze(1) * scale)).abs().max() < 1e-4, site


@pytest.mark.parametrize("kind", ["InstructEdit", "MEND", "KE"])
def test_tables_are_those_of_formed_matrices(tiny_base: Base, kind: str) -> None:
    loaded = {Path("a"): editor_of(tiny_base, kind)}
    one = named("a", dict.fromkeys(TASKS, Path("a")), loaded)
    found = everything([one], loaded)
    editor = loaded[Path("a")]
    requests = [each.request for task in TASKS for each in EXAMPLES[task]]
    raw, updates = [], []
    for request in requests:
        ready = editor.method.instructed(request)
        texts = [tokenise(tiny_base.tokenizer, ready.text, target, tiny_base.max_tokens) for target in ready.targets]
        rows = Rows.of((0, text) for text in texts)
        raw.append(textbook_gradients(tiny_base, editor.method.editor.sites, rows))
        # One request by itself, through the method.
        made = editor.method.edit(tiny_base, [ready]).updates
        updates.append({site: update.materialise()[0] for site, update in made.items()})
    assert found["a", "raw"].ids == tuple(request.id for request in requests)
    assert found["a", "raw"].tasks == ("recent",) * 3 + ("convsent",) * 3 + ("zsre",) * 3
    close(found["a", "raw"].tables, formed_products(raw))
    close(found["a", "transformed"].tables, formed_products(updates))


def test_names_share_raw_gradients_where_their_texts_are_the_same(tiny_gpt2_base: Base) -> None:
    base = tiny_gpt2_base
    loaded = {
        Path("i"): editor_of(base, "InstructEdit"),
        Path("m"): editor_of(base, "MEND"),
        Path("r"): editor_of(base, "MEND", alpha=0.3),
        Path("c"): editor_of(base, "MEND", alpha=0.2),
    }
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in loaded[Path("r")].method.editor.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=noise)
    alone = named("alone", {"convsent": Path("c"), "recent": Path("r")}, loaded)
    names = [
        alone,
        named("i", dict.fromkeys(TASKS, Path("i")), loaded),
        named("m", dict.fromkeys(TASKS, Path("m")), loaded),
    ]
    groups = groups_of(names, loaded, EXAMPLES, "seen")
    assert [[one.name for one in group.members] for group in groups] == [["alone", "m"], ["i"]]
    assert list(groups[0].requests) == list(TASKS)
    found = everything(names, loaded)
    # The same records come in the same order, whatever the order in which the name has its tasks.
    assert found["alone", "raw"].tasks == ("recent",) * 3 + ("convsent",) * 3
    assert torch.equal(found["alone", "raw"].tables[ALL_SITES], found["m", "raw"].tables[ALL_SITES][:6, :6])
    assert not torch.allclose(found["i", "raw"].tables[ALL_SITES], found["m", "raw"].tables[ALL_SITES])
    # Each task goes through its own editor: by itself each gives the same block.
    for task, folder, block in (("recent", "r", slice(0, 3)), ("convsent", "c", slice(3, 6))):
        by_itself = everything([named("x", {task: Path(folder), "zsre": Path(folder)}, loaded)], loaded)
        there = by_itself["x", "transformed"].tables[ALL_SITES][:3, :3]
        # In passes of another size, so to rounding.
        here = found["alone", "transformed"].tables[ALL_SITES][block, block]
        torch.testing.assert_close(here, there, rtol=1e-5, atol=1e-9)


def test_instructions_and_batches(tiny_gpt2_base: Base) -> None:
    loaded = {Path("i"): editor_of(tiny_gpt2_base, "InstructEdit"), Path("m"): editor_of(tiny_gpt2_base, "MEND")}
    one, mend = (named(name, dict.fromkeys(TASKS, Path(name)), loaded) for name in "im")
    seen, larger = everything([one], loaded), everything([one], loaded, batch=3)
    for key in seen:
        torch.testing.assert_close(seen[key].tables[ALL_SITES], larger[key].tables[ALL_SITES], rtol=1e-4, atol=1e-9)
    unseen = everything([one], loaded, "unseen")
    assert not torch.allclose(seen["i", "raw"].tables[ALL_SITES], unseen["i", "raw"].tables[ALL_SITES], rtol=1e-2)
    (group,) = groups_of([mend], loaded, EXAMPLES, "unseen")
    assert not any(request.instruction for request in group.asked)


def test_records_are_chosen_by_hash(tmp_path: Path) -> None:
    many = {task: [example(task, "test", n) for n in range(9)] for task in ("recent", "zsre")}
    for task, examples in many.items():
        write_prepared(tmp_path, task, {"test": examples}, {})
    write_prepared(tmp_path, "few", {"test": [EditExample(EditRequest("a", "b", "id", "few"), ())]}, {})
    data, tasks = str(tmp_path), ("recent", "zsre")
    some, more = choose_records(data, tasks, 3), choose_records(data, tasks, 5)
    assert [len(some[task]) for task in tasks] == [3, 3]
    ids = [[{one.request.id for one in found[task]} for task in tasks] for found in (some, more)]
    assert ids[0][0] < ids[1][0] and ids[0][1] < ids[1][1]
    assert choose_records(data, tasks, 3, seed=1) != some
    assert [len(found) for found in choose_records(data, tasks, 100).values()] == [9, 9]
    for wrong, words in (
        ((data, ("recent",), 3), "2 or more different"),
        ((data, ("recent", "recent"), 3), "2 or more different"),
        ((data, tasks, 1), "--records"),
        ((data, ("recent", "few"), 3), "1 test record"),
        ((data, ("recent", "nothing"), 3), "nothing/test"),
    ):
        with pytest.raises(InputError, match=words):
            choose_records(*wrong)  # type: ignore[arg-type]
