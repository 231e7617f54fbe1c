"""N edits in one base: every number against the whole model with dense weights, one edit at a time."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from instructedit.base import Base
from instructedit.editing.curve import draw, lines, table
from instructedit.editing.editor import Editor
from instructedit.editing.retention import Kept, Moved, Point, choose, retention
from instructedit.errors import InputError
from instructedit.evaluation.runner import evaluate
from instructedit.metatrain import Stage
from instructedit.records import EditExample, EditRequest, Probe
from tests.core import dense_copy
from tests.editing.kinds import saved_editor

WORDS = ("ten", "twelve feet", "one", "nine or so", "six")


def example(n: int, word: str | None = None) -> EditExample:
    local = tuple(Probe("locality", f"The river of {place} {n} is", "long") for place in ("Oslo", "Lima", "Rome"))
    request = EditRequest(f"The height of tower {n} is", word or WORDS[n % 5], f"r{n}", "counterfact", f"tower {n}")
    return EditExample(request, local)


EXAMPLES = [example(n) for n in range(12)]


@pytest.fixture
def editor(tiny_llama_base: Base, tmp_path: Path) -> Editor:
    return Editor.load(saved_editor(tmp_path / "editor", tiny_llama_base, alpha=0.02), tiny_llama_base)


def points(editor: Editor, *counts: int) -> dict[tuple[str, int], Point]:
    chosen = choose(EXAMPLES, max(counts), 3)
    requests = [one.request for one in chosen.edited]
    return {(point.how, point.n): point for point in retention(editor, requests, chosen.unrelated, counts)}


def test_what_is_left_of_one_edit_is_its_own_reliability(editor: Editor) -> None:
    found = points(editor, 1, 4)
    base = editor.base
    chosen = choose(EXAMPLES, 4, 3)
    asked = [EditExample(editor.instructed(one.request)) for one in chosen.edited]
    stage = Stage.for_evaluation(base, editor.method.first_block(base))
    wanted = {
        (outcome.id, outcome.metric): outcome.value
        for outcome in evaluate(editor.method, stage, asked, metrics=["reliability"], batch=1)
    }
    assert len(set(wanted.values())) > 1, "nothing to tell apart"
    for one in found["alone", 4].edits:
        assert (one.share, one.exact) == (wanted[one.id, "reliability"], wanted[one.id, "reliability_exact"])
    assert found["alone", 1].edits == found["alone", 4].edits[:1]
    # One request is one edit, whatever it is called.
    assert found["together", 1].edits == found["sequence", 1].edits == found["alone", 1].edits
    for one, two in zip(found["together", 1].unrelated, found["sequence", 1].unrelated, strict=True):
        assert one.id == two.id and one.kl == pytest.approx(two.kl, rel=1e-4) and one.unchanged == two.unchanged
    assert found["together", 1].update_norm == pytest.approx(found["sequence", 1].update_norm, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["together", "sequence"])
def test_every_number_is_the_whole_models(editor: Editor, how: str) -> None:
    base, n = editor.base, 5
    point = points(editor, 2, n)[how, n]
    chosen = choose(EXAMPLES, n, 3)
    edit = editor.edit([one.request for one in chosen.edited], how=how)  # type: ignore[arg-type]
    model = dense_copy(base, {name: update.merged().materialise()[0] for name, update in edit.updates.items()})

    def logits(of: torch.nn.Module, prompt: str, target: str) -> tuple[torch.Tensor, list[int]]:
        ids = base.tokenizer(f"{prompt} {target}")["input_ids"]
        length = len(target)  # a token is a byte; the space before the target is the prompt's
        with torch.no_grad():
            return of(torch.tensor([ids])).logits[0, -length - 1 : -1].double(), ids[-length:]

    assert [one.place for one in point.edits] == [1, 2, 3, 4, 5]
    for one, request in zip(point.edits, edit.requests, strict=True):
        found, wanted = logits(model, request.text, request.target)
        hit = [a == b for a, b in zip(found.argmax(-1).tolist(), wanted, strict=True)]
        assert one.id == request.id
        assert one.share == pytest.approx(sum(hit) / len(hit)) and one.exact == float(all(hit))
    assert len(point.unrelated) == 3
    for moved, local in zip(point.unrelated, chosen.unrelated, strict=True):
        kl, same = [], []
        for probe in local.probes:
            before, after = (logits(each, probe.prompt, probe.target)[0] for each in (base.model, model))
            p, q = before.log_softmax(-1), after.log_softmax(-1)
            kl.append(float((p.exp() * (p - q)).sum(-1).mean()))
            same.append(float((before.argmax(-1) == after.argmax(-1)).double().mean()))
        assert moved.id == local.request.id and len(kl) == 2
        assert moved.kl == pytest.approx(sum(kl) / 2, rel=1e-3) and moved.kl > 1e-3
        assert moved.unchanged == pytest.approx(sum(same) / 2)
    assert point.update_norm == pytest.approx(edit.norm, rel=1e-4)


def test_the_lists_grow_and_the_questions_stay(editor: Editor) -> None:
    found = points(editor, 4, 1, 4)
    assert list(found) == [(how, n) for how in ("alone", "together", "sequence") for n in (1, 4)]
    for how in ("together", "sequence"):
        one, four = found[how, 1], found[how, 4]
        assert [each.id for each in four.edits][:1] == [each.id for each in one.edits]
        assert [each.id for each in one.unrelated] == [each.id for each in four.unrelated]
        assert not {each.id for each in four.edits} & {each.id for each in four.unrelated}
        assert [each.kl for each in one.unrelated] != [each.kl for each in four.unrelated]


def test_records_are_chosen_by_hash() -> None:
    few, many, other = choose(EXAMPLES, 2, 3), choose(EXAMPLES, 6, 3), choose(EXAMPLES, 6, 3, seed=1)
    assert few.edited == many.edited[:2] and other.edited != many.edited
    assert choose(EXAMPLES[::-1], 6, 3) == many
    assert all(len(one.probes) == 2 for one in many.unrelated)
    # About an edited subject, or asking an edited prompt: not unrelated.
    first = few.edited[0].request
    same_subject = [
        e if e in few.edited else replace(e, request=replace(e.request, subject=first.subject)) for e in EXAMPLES
    ]
    with pytest.raises(InputError, match="about something else"):
        choose(same_subject, 2, 3)
    same_prompt = [
        e if e in few.edited else EditExample(e.request, (Probe("locality", first.prompt.upper(), "x"),))
        for e in EXAMPLES
    ]
    with pytest.raises(InputError, match="locality probe"):
        choose(same_prompt, 2, 3)


def test_what_is_refused(editor: Editor) -> None:
    requests, unrelated = [e.request for e in EXAMPLES[:3]], EXAMPLES[3:]
    for counts, words in (((), "found none"), ((0, 1), "1 or more"), ((1, 4), "There are 3 requests")):
        with pytest.raises(InputError, match=words):
            list(retention(editor, requests, unrelated, counts))
    with pytest.raises(InputError, match="way of editing"):
        list(retention(editor, requests, unrelated, [1], ["at once"]))  # type: ignore[list-item]
    with pytest.raises(InputError, match="12 records, too few to edit 13"):
        choose(EXAMPLES, 13, 3)
    with pytest.raises(InputError, match="locality probe"):
        choose(EXAMPLES, 12, 3)
    with pytest.raises(InputError, match="one id"):
        choose([*EXAMPLES, EXAMPLES[0]], 2, 3)
    with pytest.raises(InputError, match="1 or more"):
        choose(EXAMPLES, 2, 0)


def point(how: str, n: int, shares: list[float], kl: list[float]) -> Point:
    edits = tuple(Kept(f"r{k}", k + 1, share, float(share == 1)) for k, share in enumerate(shares))
    return Point(how, n, 1.5, edits, tuple(Moved(f"u{k}", value, 0.5) for k, value in enumerate(kl)))  # type: ignore[arg-type]


def test_means_and_the_first_tenth() -> None:
    found = point("sequence", 20, [0.0, 1.0, *[0.5] * 18], [0.1, 0.3]).estimates()
    assert found["retention"].mean == found["first_tenth"].mean == 0.5 and found["first_tenth"].n == 2
    assert found["retention"].low < 0.5 < found["retention"].high and found["exact"].mean == 1 / 20
    assert found["kl"].mean == pytest.approx(0.2) and found["unchanged"].n == 2
    assert math.isinf(point("together", 1, [1.0], [0.1, math.inf]).estimates()["kl"].mean)
    assert set(point("alone", 1, [1.0], []).estimates()) == {"retention", "exact", "first_tenth"}


@pytest.mark.slow
def test_files_hold_ids_and_numbers_and_are_the_same_again(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = [
        point("alone", 1, [1.0], []),
        point("alone", 2, [1.0, 0.5], []),
        point("together", 1, [1.0], [0.0, 0.1]),
        point("together", 2, [0.5, 0.5], [math.inf, 0.2]),
        point("sequence", 2, [0.5, 0.0], [2.0, 3.0]),
    ]
    rows = list(csv.DictReader(table(found).splitlines()))
    assert [(row["how"], row["n"]) for row in rows] == [(one.how, str(one.n)) for one in found]
    assert rows[0]["kl"] == "" and rows[3]["kl"] == "inf" and float(rows[4]["kl"]) == 2.5
    assert float(rows[4]["retention_low"]) == 0 and rows[4]["unrelated"] == "2"
    told = [json.loads(line) for line in lines(found)]
    assert len(told) == 14 and told[-1] == {
        "how": "sequence", "n": 2, "kind": "unrelated", "id": "u1", "kl": 3.0, "unchanged": 0.5,
    }  # fmt: skip
    assert [one["kl"] for one in told if one["how"] == "together" and one["kind"] == "unrelated"][2] is None
    pictures = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        pictures.append([path.read_bytes() for path in draw(found, tmp_path / name, "a title")])
    assert pictures[0] == pictures[1] and pictures[0][0][:4] == b"\x89PNG" and b"<svg" in pictures[0][1]
