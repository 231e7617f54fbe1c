"""The report: every number against the whole model, with dense weights; and edits far outside of validation."""

import json
import math
from pathlib import Path

import pytest
import torch

from instructedit.base import Base
from instructedit.editing.edit import Edit
from instructedit.editing.editor import Editor
from instructedit.editing.limits import Limits
from instructedit.editing.report import BUILT_IN
from instructedit.errors import InputError
from instructedit.evaluation.sizes import edit_sizes, size_quantiles
from instructedit.records import EditExample, EditRequest, Probe
from tests.core import dense_copy
from tests.editing.kinds import KINDS, saved_editor

REQUEST = EditRequest("The tower of Pisa stands in", "Lima", subject="Pisa")


def changes(edit: Edit) -> dict[str, torch.Tensor]:
    return {name: update.merged().materialise()[0] for name, update in edit.updates.items()}


def log_p(model: torch.nn.Module, ids: list[int], n: int) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.tensor([ids])).logits[0, -n - 1 : -1].double().log_softmax(-1)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_number_is_the_whole_models(tiny_base: Base, tmp_path: Path, kind: str) -> None:
    edit = Editor.load(saved_editor(tmp_path / "e", tiny_base, kind), tiny_base).edit(REQUEST)
    report = edit.report(rephrases=["Pisa's tower is in"], keep=["Water is made of", "Ten and two is"], answer_tokens=5)
    kinds = ["request", *(["instructed"] if kind == "InstructEdit" else []), "rephrase", "kept", "kept"]
    assert [line.kind for line in report.lines] == kinds
    edited, encode = dense_copy(tiny_base, changes(edit)), lambda text: tiny_base.tokenizer(text)["input_ids"]
    for line in report.edited:
        ids, n = encode(f"{line.prompt} Lima"), 4  # a token is a byte; the space before the target is the prompt's
        labels = torch.tensor(ids[-n:]).unsqueeze(1)
        for model, probability in (
            (tiny_base.model, line.probability_before),
            (edited, line.probability_after),
        ):
            wanted = float(log_p(model, ids, n).gather(1, labels).sum().exp())
            assert probability == pytest.approx(wanted, rel=1e-2, abs=1e-12)
        for model, answer in ((tiny_base.model, line.before), (edited, line.after)):
            assert answer == greedy(model, tiny_base, ids[:-n], 5 + 4)
        assert line.right == line.after.lstrip().startswith("Lima")
    assert report.lines[0].probability_after != pytest.approx(report.lines[0].probability_before, rel=1e-3)
    for line in report.kept:
        assert line.before == greedy(tiny_base.model, tiny_base, encode(line.prompt), 5)
        assert line.after == greedy(edited, tiny_base, encode(line.prompt), 5)
        ids = encode(line.prompt + line.before)
        n = len(ids) - len(encode(line.prompt))
        p, q = (log_p(model, ids, n) for model in (tiny_base.model, edited))
        if n == 5:  # the text gives the very tokens back: no byte that is no UTF-8 among them
            assert line.kl == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-2)
    assert report.drift == pytest.approx(sum(line.kl for line in report.kept) / 2)
    assert report.changed == sum(line.before != line.after for line in report.kept)


def greedy(model: torch.nn.Module, base: Base, ids: list[int], tokens: int) -> str:
    """The textbook's greedy continuation: the whole text again for every token."""
    found = list(ids)
    for _ in range(tokens):
        with torch.no_grad():
            found.append(int(model(torch.tensor([found])).logits[0, -1].argmax()))
        if found[-1] == 256:
            break
    text: str = base.tokenizer.decode(found[len(ids) :], skip_special_tokens=True)
    return text


def test_a_report_speaks_for_any_number_of_requests(tiny_llama_base: Base, tmp_path: Path) -> None:
    editor = Editor.load(saved_editor(tmp_path / "e", tiny_llama_base, "MEND"), tiny_llama_base)
    requests = [EditRequest(f"The height of tower {n} is", "ten") for n in range(40)]
    probes = [[Probe("rephrase", f"How high is {n}?", "ten"), Probe("locality", "Ice is", "cold")] for n in range(40)]
    edit = editor.edit(requests)
    report = edit.report(probes=probes)
    assert len(report.edited) == 80 and len(report.kept) == 40 and report.kept[0].kind == "kept"
    # More than one pass and more than one group of answers: the same as one by one.
    alone = Edit(edit.base, edit.updates, edit.requests, edit.norms).report(keep=["Ice is"])
    for line, other in zip(report.edited[::2], alone.edited, strict=True):
        assert line.prompt == other.prompt and line.after == other.after
        assert line.probability_after == pytest.approx(other.probability_after, rel=1e-4)


def test_without_anything_to_keep_a_few_questions_are_built_in(tiny_llama_base: Base, tmp_path: Path) -> None:
    editor = Editor.load(saved_editor(tmp_path / "e", tiny_llama_base), tiny_llama_base)
    report = editor.edit(EditRequest(BUILT_IN[0][0].upper(), "wine")).report()
    assert [(line.prompt, line.target) for line in report.kept] == list(BUILT_IN[1:])
    assert all(line.kl > 0 and line.before == "" for line in report.kept)
    assert {line.kind for line in editor.edit(REQUEST).report(keep=["Ice is"]).kept} == {"kept"}


def test_the_report_as_json_has_no_nan(tiny_llama_base: Base, tmp_path: Path) -> None:
    editor = Editor.load(saved_editor(tmp_path / "e", tiny_llama_base), tiny_llama_base)
    told = editor.edit(REQUEST).report(keep=["Ice is"]).as_object()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["lines"][-1]["probability_before"] is None and told["lines"][0]["probability_before"] > 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"keep": [""]}, "empty prompt"),
        ({"keep": ["x" * 600]}, "leaves no room"),
        ({"rephrases": [" "]}, "empty prompt"),
        ({"probes": [[], []]}, "probes for 2 requests, but the edit has 1"),
        ({"answer_tokens": 0}, "answer_tokens"),
    ],
)
def test_bad_questions_are_refused(
    tiny_llama_base: Base, tmp_path: Path, arguments: dict[str, object], told: str
) -> None:
    editor = Editor.load(saved_editor(tmp_path / "e", tiny_llama_base), tiny_llama_base)
    with pytest.raises(InputError, match=told):
        editor.edit(REQUEST).report(**arguments)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="edit of 2 requests"):
        editor.edit([REQUEST, REQUEST]).report(rephrases=["Where is it?"])


@pytest.mark.slow
def test_an_editor_with_its_step_sizes_scaled_up_is_flagged(tiny_base: Base, tmp_path: Path) -> None:
    """What validation saw is measured on the editor as it was; then it breaks."""
    first = Editor.load(saved_editor(tmp_path / "first", tiny_base, "MEND", alpha=1e-3), tiny_base)
    local = (Probe("locality", "Water is made of", "hydrogen"), Probe("locality", "The sun is", "hot"))
    examples = [EditExample(EditRequest(f"The tower {n} is in", "Lima", str(n)), local) for n in range(6)]
    results = {"validation_edits": size_quantiles(edit_sizes(first.method, first.method.stage, examples))}
    for alpha, flagged in ((1e-3, False), (1.0, True)):
        folder = saved_editor(tmp_path / str(alpha), tiny_base, "MEND", alpha=alpha, results=results)
        report = Editor.load(folder, tiny_base).edit(examples[0].request).report(keep=["Water is made of"])
        assert bool(report.warnings) == flagged
        if flagged:
            assert " times what 95 % of 6 validation edits stay within" in report.warnings[0]
            assert "have moved by KL" in report.warnings[1]
            with pytest.raises(InputError, match="refused: answers that should stay moved by KL"):
                report.check(0.05)
        else:
            report.check(0.05)
    # Loaded from a file, without its editor, it is flagged all the same.
    edit = Editor.load(folder, tiny_base).edit(examples[0].request)
    edit.save(tmp_path / "edit.safetensors")
    assert Edit.load(tmp_path / "edit.safetensors", tiny_base).report().warnings


def test_limits_are_read_or_unknown() -> None:
    whole = {"records": 3, "update_norm": {"q95": 2.0, "max": 9.0}}
    assert Limits.of({"validation_edits": whole}) is not None
    for told in ({}, {"validation_edits": None}, {"validation_edits": {"records": 3}}, {"validation_edits": []}):
        assert Limits.of(told) is None  # type: ignore[arg-type]


def test_what_is_far_outside_is_said_in_words() -> None:
    limits = Limits(48, 2.0, 0.1)
    assert list(limits.warnings([3.9], 3.9, 0.19)) == []
    assert list(limits.warnings([3.9], 3.9, math.nan)) == []
    (large,) = limits.warnings([1.0, 8.0], 8.0, 0.0)
    assert large.startswith("1 of 2 updates: norm 8, 4 times what 95 % of 48 validation edits stay within (2)")
    (whole,) = limits.warnings([1.0] * 100, 10.0, 0.0)
    assert whole.startswith("The 100 updates together have norm 10, 5 times")
    (drift,) = limits.warnings([1.0], 1.0, math.inf)
    assert "moved by KL inf" in drift
    # A validation that saw next to nothing makes no alarm of next to nothing.
    assert list(Limits(48, 2.0, 1e-5).warnings([1.0], 1.0, 0.04)) == []
