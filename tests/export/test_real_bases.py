"""Exports of SmolLM2-135M and of a random GPT-2 of the published width, with real requests of KnowEdit."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from instructedit.base import Base, load_base, load_tokenizer
from instructedit.lowrank import LowRankUpdate
from instructedit.methods.hyper import HyperEdit, HyperMethod
from instructedit.records import EditExample, EditRequest
from instructedit.tasks import load_task
from tests.core import editor_on
from tests.export.made import all_logits, greedy, in_folder, saved, status, target_logits
from tests.export.test_agreement import by_peft, by_transformers

KNOWEDIT = os.environ.get("INSTRUCTEDIT_KNOWEDIT", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not KNOWEDIT, reason="INSTRUCTEDIT_KNOWEDIT does not name a folder of KnowEdit's files"),
]

WITHOUT_US = """
import json, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("instructedit", "lightning_modules"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocked())
try:
    import instructedit
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("instructedit was not blocked")
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype="auto")
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
said = []
for prompt in json.loads(sys.argv[2]):
    question = tokenizer(prompt, return_tensors="pt")
    ids = model.generate(**question, max_new_tokens=6, do_sample=False)[0]
    said.append(tokenizer.decode(ids[question["input_ids"].shape[1]:]))
print(json.dumps(said))
"""
"""What somebody runs who has transformers and nothing of ours."""


def smollm2(folder: Path) -> Base:
    return load_base("smollm2-135m", torch.float32)


def gpt2(folder: Path) -> Base:
    """GPT-2 small with half its blocks, random weights and SmolLM2's tokenizer, loaded from a folder."""
    tokenizer = load_tokenizer("smollm2-135m")
    torch.manual_seed(0)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=512, n_layer=6, initializer_range=0.05, **ends)
    return in_folder(Base.from_model(GPT2LMHeadModel(config), tokenizer, "gpt2"), folder)


def real_requests(n: int) -> list[EditRequest]:
    examples = (item for item in load_task("counterfact").read(Path(KNOWEDIT), "test") if isinstance(item, EditExample))
    return [example.request for example in islice(examples, n)]


def large_enough(base: Base, requests: list[EditRequest]) -> HyperEdit:
    """An untrained hypernetwork's updates, made as large as it takes to move targets of every request by over 1."""
    editor, stage = editor_on(base)
    made = HyperMethod(editor, stage, "MEND").edit(base, requests)
    before = target_logits(base.model, base.tokenizer, requests)
    size = 1.0
    for _ in range(20):
        edit = HyperEdit(base, {name: LowRankUpdate(each.u, each.v * size) for name, each in made.updates.items()})
        with edit.applied():
            after = target_logits(base.model, base.tokenizer, requests)
        if min(float((b - a).abs().max()) for a, b in zip(before, after, strict=True)) > 1:
            return edit
        size *= 2
    raise AssertionError("no size of the updates moves the targets of every request")


@pytest.mark.long
@pytest.mark.parametrize("made", [smollm2, gpt2], ids=["smollm2-135m", "gpt2"])
def test_twenty_real_requests_say_the_same_everywhere(
    made: Callable[[Path], Base], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base, requests = made(tmp_path / "base"), real_requests(20)
    edit = large_enough(base, requests)
    before = target_logits(base.model, base.tokenizer, requests)
    with edit.applied():
        after = target_logits(base.model, base.tokenizer, requests)
        wanted, said = all_logits(base.model, base.tokenizer, requests), greedy(base.model, base.tokenizer, requests)
    moved = [float((b - a).abs().max()) for a, b in zip(before, after, strict=True)]
    assert min(moved) > 1
    file = saved(tmp_path, edit)
    folder = tmp_path / "base" if made is gpt2 else Path(_folder_of_alias())
    ways: dict[str, Callable[[Path, Path], PreTrainedModel]] = {"lora": by_peft, "model": by_transformers}
    for form, load in ways.items():
        assert status("export", "--edit", file, "--as", form, "--out", form) == 0
        model = load(folder, tmp_path / form)
        found = all_logits(model, base.tokenizer, requests)
        print(
            f"{base.adaptor.family} {form}: logits within {float((found - wanted).abs().max()):.2g}, "
            f"moved {min(moved):.3g} to {max(moved):.3g}"
        )
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
        assert greedy(model, base.tokenizer, requests) == said
    # The same folder, in a process that can import nothing of ours.
    prompts = json.dumps([request.text for request in requests])
    done = subprocess.run(
        [sys.executable, "-I", "-c", WITHOUT_US, tmp_path / "model", prompts], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == said


def _folder_of_alias() -> Path:
    from instructedit.base.smollm2 import converted_folder

    return converted_folder()
