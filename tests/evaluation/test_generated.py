"""What is asked by generation: against a loop over the whole model without a cache, one record at a time."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import pytest
import torch
from torch import LongTensor, Tensor

from instructedit import hooks
from instructedit.base import Base
from instructedit.errors import InputError
from instructedit.evaluation import greedy
from instructedit.evaluation.fluency import ngram_entropy
from instructedit.evaluation.generated import BeforeCache, Generated, GeneratedText
from instructedit.evaluation.runner import evaluate
from instructedit.metatrain import Stage
from instructedit.methods.base import Edit
from instructedit.methods.hyper import HyperMethod
from instructedit.methods.none import NoEdit
from instructedit.methods.several import edit_in_sequence, edit_together
from instructedit.records import EditExample, EditRequest, Outcome, Probe
from tests.core import editor_on


def example(number: int) -> EditExample:
    subject, colour = ["Ghent", "the river Nile", "a tuba"][number], ["green", "blue", "a deep and dark red"][number]
    request = EditRequest(f"The colour of {subject} is", colour, id=f"r{number}", task="facts")
    if number == 1:
        request = replace(request, more_targets=("rather pale",), instruction="Task: Facts\nInput: ")
    probes = (
        Probe("rephrase", f"What colour has {subject}?", colour, instruction=request.instruction),
        Probe("portability", f"Is {subject} like grass?", "no", aliases=("no", "not at all")),
        Probe("locality", f"The weight of {subject} is", "ten"),
        Probe("locality", "Two and two make", "four"),
        Probe("wanted", f"Say something about {subject}.", "It is nice."),
        Probe("unwanted", f"Say something about {subject}.", "I hate it."),
    )
    return EditExample(request, probes if number else probes[:4])


EXAMPLES = [example(number) for number in range(3)]
EVERYONE = Generated(greedy=frozenset({"r0", "r1", "r2"}))
METRIC = {"rephrase": "generalization", "portability": "portability", "locality": "locality"}


def said_by_hand(base: Base, edit: Edit | None, row: int | None, text: str, tokens: int) -> list[int]:
    """Greedy tokens of the whole model, all of it computed anew for each; -1 from the end of text on."""
    ids = list(base.tokenizer(text + " ")["input_ids"])
    start = len(ids)
    rows: LongTensor | None = None if row is None else torch.tensor([row])  # type: ignore[assignment]
    while len(ids) < start + tokens:
        if edit is None:
            logits = base.model(torch.tensor([ids]), use_cache=False).logits
        else:
            with edit.applied(rows):
                logits = base.model(torch.tensor([ids]), use_cache=False).logits
        token = int(logits[0, -1].argmax())
        if token == base.tokenizer.eos_token_id:
            return ids[start:] + [-1] * (start + tokens - len(ids))
        ids.append(token)
    return ids[start:]


def by_hand(base: Base, edit: Edit, rows: Sequence[int | None]) -> dict[tuple[str, str], float]:
    """Every greedy value, by its definition; the answers of these requests are no prefixes of longer words."""
    values = {}
    for row, each in zip(rows, EXAMPLES, strict=True):
        shares: dict[str, list[tuple[float, float]]] = {}
        asked = [("reliability", each.request.text, t, each.request.targets) for t in each.request.targets]
        asked += [(METRIC[p.kind], p.text, p.target, (p.target, *p.aliases)) for p in each.probes if p.kind in METRIC]
        for metric, text, target, answers in asked:
            wanted = base.tokenizer(target)["input_ids"]
            said = said_by_hand(base, edit, row, text, len(wanted))
            if metric == "locality":
                wanted = said_by_hand(base, None, None, text, len(wanted))
            right = [a == b for a, b in zip(said, wanted, strict=True)]
            whole = all(right)
            if metric != "locality":
                longest = max(len(base.tokenizer(" " + answer)["input_ids"]) for answer in answers) + greedy.LOOK_AHEAD
                tokens = [token for token in said_by_hand(base, edit, row, text, longest) if token >= 0]
                text = base.tokenizer.decode(tokens).strip().lower()
                whole = any(text.startswith(a) and not text[len(a) : len(a) + 1].isalnum() for a in answers)
            shares.setdefault(metric, []).append((sum(right) / len(right), float(whole)))
        for metric, found in shares.items():
            values[each.request.id, f"{metric}_greedy"] = sum(s for s, _ in found) / len(found)
            values[each.request.id, f"{metric}_greedy_exact"] = sum(w for _, w in found) / len(found)
    return values


def values_of(outcomes: Sequence[Outcome], part: str = "_greedy") -> dict[tuple[str, str], float]:
    return {(o.id, o.metric): o.value for o in outcomes if part in o.metric}


@dataclass(frozen=True)
class Chant:
    """A method whose edit n makes the base say the first letter of request n's target, and nothing else."""

    name: str = "Chant"

    def first_block(self, base: Base) -> int:
        return base.n_blocks - 1

    def stage_for(self, base: Base) -> Stage:
        return Stage.for_evaluation(base, self.first_block(base))

    def edit(self, base: Base, requests: Sequence[EditRequest]) -> "Chanting":
        letters = [base.tokenizer(request.target)["input_ids"][0] for request in requests]
        return Chanting(base, base.model.get_output_embeddings().weight[letters] * 1e3)


@dataclass(frozen=True)
class Chanting:
    base: Base
    states: Tensor

    def applied(self, rows: LongTensor | None = None) -> AbstractContextManager[None]:
        norm = f"{self.base.adaptor.decoder}.{self.base.adaptor.norm}"
        state = self.states.sum(0) if rows is None else self.states[rows].unsqueeze(1)
        return hooks.replace(self.base.model, {norm: lambda x, y: torch.zeros_like(y) + state})


@pytest.mark.slow
def test_greedy_values_are_those_of_the_whole_model_without_a_cache(tiny_base: Base) -> None:
    editor, stage = editor_on(tiny_base, alpha=0.1)
    method = HyperMethod(editor, stage, "Editor")
    edit = method.edit(tiny_base, [each.request for each in EXAMPLES])
    texts: list[GeneratedText] = []
    found = values_of(evaluate(method, stage, EXAMPLES, generated=EVERYONE, batch=3, on_text=texts.append))
    expected = by_hand(tiny_base, edit, range(3))
    assert found == pytest.approx(expected)
    assert len(set(expected.values())) > 2
    for text in texts:
        row = int(text.id[1:])
        said = said_by_hand(tiny_base, edit, row, text.prompt, 3)
        assert text.text.startswith(tiny_base.tokenizer.decode([t for t in said if t >= 0]).rstrip("\ufffd"))
    few = replace(EVERYONE, rows_per_pass=1)
    assert values_of(evaluate(method, stage, EXAMPLES, generated=few, batch=2)) == pytest.approx(expected)
    # The edits change what is said.
    unedited: list[GeneratedText] = []
    evaluate(NoEdit(), stage, EXAMPLES, generated=EVERYONE, on_text=unedited.append)
    assert sum(a.text != b.text for a, b in zip(texts, unedited, strict=True)) > len(texts) / 2


@pytest.mark.slow
@pytest.mark.parametrize("editing, compose", [("together", edit_together), ("sequence", edit_in_sequence)])
def test_edits_that_share_a_base_are_all_there_when_it_generates(tiny_base: Base, editing, compose) -> None:  # type: ignore[no-untyped-def]
    editor, stage = editor_on(tiny_base, alpha=0.1)
    method = HyperMethod(editor, stage, "Editor")
    expected = by_hand(tiny_base, compose(method, tiny_base, [each.request for each in EXAMPLES]), [None] * 3)
    found = evaluate(method, stage, EXAMPLES, generated=EVERYONE, batch=3, editing=editing)
    assert values_of(found) == pytest.approx(expected)
    alone = evaluate(method, stage, EXAMPLES, generated=EVERYONE, batch=3)
    assert values_of(found) != values_of(alone)


def test_an_edit_that_makes_the_target_certain_is_right_everywhere(tiny_base: Base) -> None:
    examples = [
        EditExample(EditRequest("She cried", letter * 3, id=letter), (Probe("rephrase", "What did she cry?", target),))
        for letter, target in (("!", "!!!"), ("?", "??"))
    ]
    stage = Chant().stage_for(tiny_base)
    outcomes = evaluate(Chant(), stage, examples, generated=Generated(greedy=frozenset("!?")))
    assert {o.metric for o in outcomes} == {
        f"{metric}{variant}"
        for metric in ("reliability", "generalization")
        for variant in ("", "_exact", "_greedy", "_greedy_exact")
    }
    assert {o.value for o in outcomes} == {1.0}


def test_whole_answers_know_aliases_and_end_with_their_words(tiny_base: Base) -> None:
    request = EditRequest("She cried", "aaa", id="r")
    probes = (
        Probe("rephrase", "What did she cry?", "what!", aliases=("what!", "aaaaaaaaaa")),
        Probe("portability", "How did she cry?", "zzz", aliases=("!!!",)),
    )
    outcomes = evaluate(Chant(), Chant().stage_for(tiny_base), [EditExample(request, probes)], generated=_of("r"))
    found = {o.metric: o.value for o in outcomes}
    # "aaaaaaa" has the target's tokens in their places but is another word than "aaa" and shorter than the alias asks.
    assert (found["reliability_greedy"], found["reliability_greedy_exact"]) == (1.0, 0.0)
    assert (found["generalization_greedy"], found["generalization_greedy_exact"]) == (0.2, 0.0)
    exclaimed = EditExample(replace(request, target="!"), probes)
    outcomes = evaluate(Chant(), Chant().stage_for(tiny_base), [exclaimed], generated=_of("r"))
    found = {o.metric: o.value for o in outcomes}
    assert (found["portability_greedy"], found["portability_greedy_exact"]) == (0.0, 1.0)
    assert found["portability_exact"] == 0.0


def test_any_of_a_requests_targets_is_a_whole_answer_and_shares_are_averaged(tiny_base: Base) -> None:
    request = EditRequest("She cried", "!!!", id="r", more_targets=("!?!?",))
    outcomes = evaluate(Chant(), Chant().stage_for(tiny_base), [EditExample(request)], generated=_of("r"))
    found = {o.metric: (o.value, o.n_tokens, o.n_probes) for o in outcomes}
    assert found["reliability_greedy"] == (0.75, 7, 2)
    assert found["reliability_greedy_exact"] == (1.0, 7, 2)
    assert found["reliability_exact"] == (0.5, 7, 2)


@pytest.mark.slow
def test_the_base_keeps_what_it_says_also_in_bf16_and_in_any_company(tiny_base: Base) -> None:
    half = Base.from_model(tiny_base.model.to(torch.bfloat16), tiny_base.tokenizer, "half")
    stage, before = NoEdit().stage_for(half), BeforeCache()
    for batch in (3, 2, 1):
        outcomes = evaluate(NoEdit(), stage, EXAMPLES, generated=EVERYONE, batch=batch, before=before)
        kept = [o.value for o in outcomes if o.metric.startswith("locality_greedy")]
        assert kept == [1.0] * 6


def test_what_the_base_says_is_generated_once_for_all_methods(
    tiny_gpt2_base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    real = greedy.continuations
    monkeypatch.setattr(greedy, "continuations", lambda *args: calls.append(len(args[1])) or real(*args))
    before = BeforeCache()
    stage = NoEdit().stage_for(tiny_gpt2_base)
    first = evaluate(NoEdit(), stage, EXAMPLES, generated=EVERYONE, before=before)
    once = len(calls)
    again = evaluate(NoEdit(), stage, EXAMPLES, generated=EVERYONE, before=before)
    assert again == first
    assert len(calls) - once < once
    anew = len(calls)
    evaluate(NoEdit(), stage, EXAMPLES, generated=EVERYONE)
    assert len(calls) - anew == once


def test_only_named_records_are_asked_and_only_what_is_measured(tiny_gpt2_base: Base) -> None:
    stage = NoEdit().stage_for(tiny_gpt2_base)
    chosen = Generated(greedy=frozenset({"r1"}), fluency=frozenset({"r2"}), fluency_tokens=5)
    outcomes = evaluate(NoEdit(), stage, EXAMPLES, generated=chosen)
    assert {o.id for o in outcomes if "greedy" in o.metric} == {"r1"}
    assert {o.id for o in outcomes if o.metric == "fluency"} == {"r2"}
    plain = evaluate(NoEdit(), stage, EXAMPLES)
    assert [o for o in outcomes if "greedy" not in o.metric and o.metric != "fluency"] == plain
    fewer = evaluate(NoEdit(), stage, EXAMPLES, generated=chosen, metrics=["reliability"])
    assert {o.metric for o in fewer} == {
        "reliability", "reliability_exact", "reliability_greedy", "reliability_greedy_exact"
    }  # fmt: skip
    only = evaluate(NoEdit(), stage, EXAMPLES, generated=chosen, metrics=["fluency"])
    assert [(o.id, o.metric, o.n_tokens) for o in only] == [("r2", "fluency", 5)]
    assert [o for o in outcomes if o.metric == "fluency"] == only


@pytest.mark.slow
def test_fluency_is_the_entropy_of_what_follows_the_request(tiny_base: Base) -> None:
    editor, stage = editor_on(tiny_base, alpha=0.1)
    method = HyperMethod(editor, stage, "Editor")
    settings = Generated(fluency=frozenset({"r0", "r1", "r2"}), fluency_tokens=30)
    texts: list[GeneratedText] = []
    outcomes = evaluate(method, stage, EXAMPLES, generated=settings, on_text=texts.append)
    found = [(o.id, o.value, o.n_tokens, o.n_probes) for o in outcomes if o.metric == "fluency"]
    assert found == [(text.id, ngram_entropy(text.text), 30, 1) for text in texts]
    assert [(t.kind, t.prompt, t.method, t.task, t.wanted) for t in texts] == [
        ("fluency", each.request.text, "Editor", "facts", ()) for each in EXAMPLES
    ]
    assert all(value > 0 for _, value, _, _ in found)

    def alone(**changes: object) -> list[float]:
        own = [evaluate(method, stage, [e], generated=replace(settings, **changes)) for e in EXAMPLES]  # type: ignore[arg-type]
        return [o.value for outcomes in own for o in outcomes if o.metric == "fluency"]

    values = [value for _, value, _, _ in found]
    assert alone() == values
    assert alone(seed=1) != values and alone(top_k=2) != values and alone(fluency_tokens=20) != values
    unedited = evaluate(NoEdit(), stage, EXAMPLES, generated=settings)
    assert [o.value for o in unedited if o.metric == "fluency"] != values


def test_one_token_to_draw_from_is_the_greedy_text(tiny_gpt2_base: Base) -> None:
    texts: list[GeneratedText] = []
    settings = Generated(fluency=frozenset({"r0"}), fluency_tokens=8, top_k=1)
    evaluate(NoEdit(), NoEdit().stage_for(tiny_gpt2_base), EXAMPLES, generated=settings, on_text=texts.append)
    said = said_by_hand(tiny_gpt2_base, None, None, EXAMPLES[0].request.text, 8)
    assert [text.text for text in texts] == [tiny_gpt2_base.tokenizer.decode(said)]


def test_every_continuation_is_handed_on_with_what_was_wanted(tiny_base: Base) -> None:
    texts: list[GeneratedText] = []
    evaluate(Chant(), Chant().stage_for(tiny_base), EXAMPLES, name="Row", generated=EVERYONE, on_text=texts.append)
    own = [text for text in texts if text.id == "r1"]
    request = EXAMPLES[1].request
    assert [(t.kind, t.prompt) for t in own] == [
        ("request", request.text),
        ("request", request.text),
        *((p.kind, p.text) for p in EXAMPLES[1].probes if p.kind in METRIC),
    ]
    assert own[0].wanted == ("blue", "rather pale") and own[1].wanted == ("rather pale", "blue")
    assert own[3].wanted == ("no", "not at all")
    assert {(t.method, t.task, set(t.text.strip()) == {"b"}) for t in own} == {("Row", "facts", True)}
    local = said_by_hand(tiny_base, None, None, "Two and two make", 4)
    assert own[-1].wanted == (tiny_base.tokenizer.decode([token for token in local if token >= 0]),)


def test_settings_and_records_that_cannot_be_generated_are_refused(tiny_gpt2_base: Base) -> None:
    with pytest.raises(InputError, match="generated.top_k must be at least 1; found 0"):
        Generated(top_k=0)
    stage = NoEdit().stage_for(tiny_gpt2_base)
    long = EditExample(EditRequest("word " * 101, "end", id="long"))
    assert evaluate(NoEdit(), stage, [long])
    for settings in (Generated(greedy=frozenset({"long"})), Generated(fluency=frozenset({"long"}))):
        with pytest.raises(InputError, match="'long' takes up to .* has 512"):
            evaluate(NoEdit(), stage, [*EXAMPLES, long], generated=settings, on_progress=lambda _: pytest.fail("late"))


def _of(name: str) -> Generated:
    return Generated(greedy=frozenset({name}))
