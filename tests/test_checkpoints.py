"""Editor folders: what is saved comes back, and what does not belong together is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from instructedit.base import Base, SiteSpec, find_sites
from instructedit.checkpoints import EditorCard, load_editor, read_card, save_editor
from instructedit.data.rows import Rows
from instructedit.data.tokenise import tokenise
from instructedit.errors import InputError, MismatchError
from instructedit.hypernet.editor import EditorConfig, HyperEditor
from instructedit.hypernet.ke import KEEditor
from instructedit.instructions.pools import InstructionPool
from instructedit.metatrain import Stage, request_gradients
from instructedit.methods.hyper import HyperMethod
from instructedit.provenance import revision, versions
from instructedit.records import EditRequest
from tests.core import ke_on

POOL = InstructionPool("facts", "Facts", tuple(f"Réponds à la question {n}." for n in range(10)))
CONFIG = EditorConfig(rank=8, n_blocks=1, direction="site", alpha_init=0.02, alpha_scale="log")


def started_editor(base: Base) -> HyperEditor:
    """An editor of unusual settings whose every parameter and moment is away from its start."""
    torch.manual_seed(3)
    editor = HyperEditor(find_sites(base, SiteSpec(last_blocks=2)), CONFIG)
    editor.merge(editor.sums(gradients_of(editor, base)))
    with torch.no_grad():
        for parameter in editor.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    return editor


def gradients_of(editor: HyperEditor, base: Base):  # type: ignore[no-untyped-def]
    rows = Rows.of([(0, tokenise(base.tokenizer, "The sky is", "blue", 512))])
    return request_gradients(editor, Stage.of(base, 2), rows, 1)


@pytest.fixture
def saved(tiny_gpt2_base: Base, tmp_path: Path) -> tuple[Path, HyperEditor]:
    editor = started_editor(tiny_gpt2_base)
    folder = tmp_path / "run" / "editor"
    card = EditorCard.of(
        editor, tiny_gpt2_base, tasks=["a", "b"], pools={"facts": POOL}, data={"a": "0f"}, steps=7, results={"x": 0.5}
    )
    save_editor(folder, editor, card)
    return folder, editor


def test_what_is_saved_comes_back(tiny_base: Base, tmp_path: Path) -> None:
    editor = started_editor(tiny_base)
    card = EditorCard.of(editor, tiny_base, tasks=["a", "b"], pools={"facts": POOL}, steps=7, results={"x": [0.5]})
    save_editor(tmp_path, editor, card)
    loaded, its_card = load_editor(tmp_path, tiny_base)
    assert its_card == card == read_card(tmp_path)
    assert (card.method, card.base, card.sites, card.config) == ("InstructEdit", tiny_base.name, editor.sites, CONFIG)
    assert (card.commit, card.versions) == (revision().commit, versions())
    assert loaded.started and loaded.config == CONFIG
    state = loaded.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in editor.state_dict().items())
    before, after = (each(gradients_of(each, tiny_base)) for each in (editor, loaded))
    assert all(torch.equal(before[site].v, after[site].v) and before[site].v.abs().max() > 0 for site in before)


def test_an_editor_without_pools_is_mend(tiny_gpt2_base: Base, tmp_path: Path) -> None:
    editor = started_editor(tiny_gpt2_base)
    save_editor(tmp_path, editor, EditorCard.of(editor, tiny_gpt2_base, tasks=["a"], pools=None))
    card = read_card(tmp_path)
    assert (card.method, card.pools) == ("MEND", None)


def test_ke_is_saved_and_comes_back(tiny_base: Base, tmp_path: Path) -> None:
    editor, _ = ke_on(tiny_base, hidden=4, max_scale=2.0, direction="site")
    card = EditorCard.of(editor, tiny_base, tasks=["a"], pools=None)
    save_editor(tmp_path, editor, card)
    loaded, its_card = load_editor(tmp_path, tiny_base)
    assert its_card == card and card.method == "KE" and isinstance(loaded, KEEditor)
    assert loaded.config == editor.config
    request = [EditRequest("The sky is", "blue")]
    method = HyperMethod.load(tmp_path, tiny_base)
    before = HyperMethod(editor, method.stage, "KE").edit(tiny_base, request)
    after = method.edit(tiny_base, request)
    assert method.name == "KE"
    assert all(torch.equal(before.updates[site].u, after.updates[site].u) for site in before.updates)


def test_only_the_two_files_remain_and_both_are_replaced(saved: tuple[Path, HyperEditor], tiny_gpt2_base: Base) -> None:
    folder, editor = saved
    card = replace(read_card(folder), steps=8)
    with torch.no_grad():
        editor.alpha += 1
    save_editor(folder, editor, card)
    assert sorted(path.name for path in folder.iterdir()) == ["card.json", "editor.safetensors"]
    loaded, its_card = load_editor(folder, tiny_gpt2_base)
    assert torch.equal(loaded.alpha, editor.alpha)
    assert its_card.steps == 8


def test_the_card_can_be_read_by_people(saved: tuple[Path, HyperEditor]) -> None:
    text = (saved[0] / "card.json").read_text(encoding="utf-8")
    assert "Réponds à la question 3." in text
    assert '"alpha_scale": "log"' in text


def test_another_base_is_refused(saved: tuple[Path, HyperEditor], tiny_llama_base: Base) -> None:
    with pytest.raises(MismatchError, match="'tiny-gpt2'.*'tiny-llama'") as caught:
        load_editor(saved[0], tiny_llama_base)
    assert tiny_llama_base.fingerprint[:12] in str(caught.value)
    assert read_card(saved[0]).fingerprint[:12] in str(caught.value)


def change_card(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    card = json.loads((folder / "card.json").read_text())
    change(card)
    (folder / "card.json").write_text(json.dumps(card))


def change_weights(folder: Path, keep_hash: bool = False) -> None:
    tensors = load_file(folder / "editor.safetensors")
    tensors["alpha"] = tensors["alpha"][:-1]
    save_file(tensors, folder / "editor.safetensors")
    if not keep_hash:
        import hashlib

        digest = hashlib.sha256((folder / "editor.safetensors").read_bytes()).hexdigest()
        change_card(folder, lambda card: card.update(weights_sha256=digest))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda f: (f / "card.json").unlink(), "No editor at"),
        (lambda f: (f / "card.json").write_text("{"), "malformed"),
        (lambda f: (f / "card.json").write_text("[]"), "malformed"),
        (lambda f: change_card(f, lambda card: card.pop("sites")), "no 'sites'"),
        (lambda f: change_card(f, lambda card: card.pop("fingerprint")), "fingerprint"),
        (lambda f: change_card(f, lambda card: card.update(extra=1)), "extra"),
        (lambda f: change_card(f, lambda card: card["config"].update(rank=0)), "rank"),
        (lambda f: change_card(f, lambda card: card["config"].update(rank=9)), r"should be .* and is"),
        (lambda f: (f / "editor.safetensors").unlink(), "Cannot read"),
        (lambda f: change_weights(f, keep_hash=True), "damaged or was replaced"),
        (lambda f: change_weights(f), r"alpha should be \(4,\) torch.float32 and is \(3,\)"),
    ],
)
def test_a_damaged_folder_is_refused_in_one_line(
    saved: tuple[Path, HyperEditor], tiny_gpt2_base: Base, damage: Callable[[Path], object], told: str
) -> None:
    damage(saved[0])
    with pytest.raises(InputError, match=told) as caught:
        load_editor(saved[0], tiny_gpt2_base)
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_written(saved: tuple[Path, HyperEditor], tmp_path: Path) -> None:
    folder, editor = saved
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Cannot write"):
        save_editor(tmp_path / "file" / "editor", editor, read_card(folder))


def test_an_interrupted_write_leaves_the_old_editor(
    saved: tuple[Path, HyperEditor], tiny_gpt2_base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, editor = saved
    card = read_card(folder)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("instructedit.checkpoints.save_file", stop)
    with pytest.raises(KeyboardInterrupt):
        save_editor(folder, editor, replace(card, steps=99))
    assert sorted(path.name for path in folder.iterdir()) == ["card.json", "editor.safetensors"]
    assert load_editor(folder, tiny_gpt2_base)[1] == card


def test_a_base_of_another_dtype_is_warned_of(
    tiny_llama_base: Base, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    editor = started_editor(tiny_llama_base)
    card = EditorCard.of(editor, tiny_llama_base, tasks=["a"], pools=None)
    assert card.dtype == "torch.float32"
    save_editor(tmp_path, editor, replace(card, dtype="torch.bfloat16"))
    load_editor(tmp_path, tiny_llama_base)
    assert "torch.bfloat16" in caplog.text and "torch.float32" in caplog.text
    caplog.clear()
    save_editor(tmp_path, editor, card)
    load_editor(tmp_path, tiny_llama_base)
    assert caplog.text == ""
