"""The runner against a naive reference: one example at a time, the whole model, dense weight changes."""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from instructedit.base import Base, SiteSpec, find_sites
from instructedit.base.store import TrunkStore
from instructedit.data.rows import Rows
from instructedit.data.tokenise import tokenise
from instructedit.errors import InputError, MismatchError
from instructedit.evaluation.forced import passes
from instructedit.evaluation.runner import Editing, dress, evaluate
from instructedit.hooks import count_hooks
from instructedit.hypernet.editor import EditorConfig, HyperEditor
from instructedit.instructions.pools import InstructionPool
from instructedit.lowrank import weight_change
from instructedit.metatrain import Stage, request_gradients
from instructedit.methods.hyper import HyperEdit, HyperMethod
from instructedit.methods.none import NoEdit
from instructedit.records import EditExample, EditRequest, Outcome, Probe

POOL = InstructionPool("facts", "Facts", tuple(f"Answer fact number {n}." for n in range(10)))


def example(number: int, extra: bool) -> EditExample:
    subject = ["Ghent", "Lima", "the Nile", "a tuba", "Oslo"][number % 5]
    request = EditRequest(
        f"The colour of {subject} is", ["green", "blue", "red"][number % 3], id=f"record {number}", task="facts"
    )
    if extra:
        request = replace(request, more_targets=("rather pale",), avoid=("black",))
    probes = (
        Probe("rephrase", f"What is the colour of {subject}?", request.target),
        Probe("portability", f"Is {subject} the colour of grass?", "no"),
        Probe("portability", f"{subject} on a long and winding photograph that was taken is", "a plain thing"),
        Probe("locality", f"The weight of {subject} is", "ten"),
        Probe("locality", "Two and two make", "four"),
        Probe("wanted", f"Say something about {subject}.", "It is nice."),
        Probe("wanted", f"Say something about {subject}.", "Lovely, and a joy to see."),
        Probe("unwanted", f"Say something about {subject}.", "I hate it."),
    )
    return EditExample(request, probes if extra else probes[:1] + probes[3:4])


EXAMPLES = tuple(example(number, number % 2 == 0) for number in range(5))


def editor_for(base: Base, stage: Stage, examples: Sequence[EditExample], alpha: float = 0.01) -> HyperEditor:
    """A fresh editor whose first updates are large enough to change what the base says."""
    torch.manual_seed(1)
    sites = find_sites(base, SiteSpec(last_blocks=2))
    editor = HyperEditor(sites, EditorConfig(rank=8, alpha_init=alpha))
    rows = Rows.of((n, tokenise(base.tokenizer, e.request.text, e.request.target, 512)) for n, e in enumerate(examples))
    editor.merge(editor.sums(request_gradients(editor, stage, rows, len(examples))))
    return editor


def with_edit(model: torch.nn.Module, edit: HyperEdit) -> torch.nn.Module:
    """A copy of a whole model with the weights of one request's edit."""
    edited = copy.deepcopy(model)
    for site, update in edit.updates.items():
        module = edited.get_submodule(site)
        module.weight.data += weight_change(update, module)
    return edited


def naive(
    base: Base,
    method: HyperMethod | NoEdit,
    examples: Sequence[EditExample],
    shared: torch.nn.Module | None = None,
) -> dict[tuple[str, str], float]:
    """What ``evaluate`` is to give: whole models in the plain, one request and one text at a time."""
    values = {}
    for each in examples:
        edited = shared or base.model
        if shared is None and isinstance(method, HyperMethod):
            edited = with_edit(base.model, method.edit(base, [each.request]))

        def argmaxes(model: torch.nn.Module, text: str, target: str) -> tuple[list[int], list[int]]:
            whole = base.tokenizer(text + " " + target)["input_ids"]
            # Every byte is a token here, so the target and the space before it can be counted.
            n = len(target.encode())
            said = model(torch.tensor([whole])).logits[0].argmax(-1).tolist()
            return said[-n - 1 : -1], whole[-n:]

        per_metric: dict[str, list[list[bool]]] = {}
        asked = [("reliability", each.request.text, target) for target in each.request.targets]
        names = {"rephrase": "generalization", "portability": "portability", "locality": "locality"}
        asked += [(names[p.kind], p.text, p.target) for p in each.probes if p.kind in names]
        for metric, text, target in asked:
            after, wanted = argmaxes(edited, text, target)
            if metric == "locality":
                wanted = argmaxes(base.model, text, target)[0]
            per_metric.setdefault(metric, []).append([a == b for a, b in zip(after, wanted, strict=True)])

        def likelihood(model: torch.nn.Module, probes: Sequence[Probe]) -> float:
            values = []
            for probe in probes:
                whole = base.tokenizer(probe.text + " " + probe.target)["input_ids"]
                log_p = model(torch.tensor([whole])).logits[0].log_softmax(-1)
                n = len(probe.target.encode())
                values.append(sum(log_p[at - 1, whole[at]].item() for at in range(len(whole) - n, len(whole))) / n)
            return sum(values) / len(values)

        wanted, unwanted = each.of_kind("wanted"), each.of_kind("unwanted")
        if wanted:
            p, q, before = (
                math.exp(likelihood(*asked)) for asked in ((edited, wanted), (edited, unwanted), (base.model, wanted))
            )
            values[each.request.id, "success"] = p / (p + q) * min(1, p / before)
        for metric, hit in per_metric.items():
            values[each.request.id, metric] = sum(sum(h) / len(h) for h in hit) / len(hit)
            values[each.request.id, metric + "_exact"] = sum(all(h) for h in hit) / len(hit)
    return values


def values_of(outcomes: Sequence[Outcome]) -> dict[tuple[str, str], float]:
    return {(outcome.id, outcome.metric): outcome.value for outcome in outcomes}


@pytest.mark.slow
@pytest.mark.parametrize("first_block", [0, 2])
@pytest.mark.parametrize("which", ["seen", None])
def test_equals_the_naive_reference(tiny_base: Base, first_block: int, which: str | None) -> None:
    stage = Stage.of(tiny_base, first_block)
    examples = dress(EXAMPLES, {"facts": POOL}, which)  # type: ignore[arg-type]
    method = HyperMethod(editor_for(tiny_base, stage, examples), stage, "Editor")
    outcomes = evaluate(method, stage, examples, batch=3)
    expected = naive(tiny_base, method, examples)
    assert values_of(outcomes) == pytest.approx(expected, rel=1e-5)
    assert sum(metric == "success" for _, metric in expected) == 3
    # The edits did something, to what was asked for and to what was not, and not everywhere the same.
    assert expected != values_of(evaluate(NoEdit(), stage, examples))
    assert 0 < sum(v for (_, metric), v in expected.items() if metric == "locality") < len(EXAMPLES)
    assert len({v for (_, metric), v in expected.items() if metric == "reliability"}) > 1


def test_the_base_row_has_full_locality_and_the_bases_own_answers(tiny_base: Base) -> None:
    outcomes = evaluate(NoEdit(), Stage.of(tiny_base, 3), EXAMPLES)
    assert values_of(outcomes) == pytest.approx(naive(tiny_base, NoEdit(), EXAMPLES), rel=1e-5)
    assert {o.value for o in outcomes if o.metric.startswith("locality")} == {1.0}
    assert {o.method for o in outcomes} == {"Base"}


def test_outcomes_say_what_is_behind_them(tiny_gpt2_base: Base) -> None:
    stage = Stage.of(tiny_gpt2_base, 2)
    outcomes = evaluate(NoEdit(), stage, EXAMPLES[:2], name="Row")
    first = [(o.metric, o.n_probes, o.n_tokens) for o in outcomes if o.id == "record 0" and "_exact" not in o.metric]
    assert first == [
        ("reliability", 2, len("green") + len("rather pale")),
        ("generalization", 1, len("green")),
        ("locality", 2, len("ten") + len("four")),
        ("portability", 2, len("no") + len("a plain thing")),
        ("success", 3, len("It is nice.") + len("Lovely, and a joy to see.") + len("I hate it.")),
    ]
    assert [o.metric for o in outcomes if o.id == "record 1"] == [
        name + suffix for name in ("reliability", "generalization", "locality") for suffix in ("", "_exact")
    ]
    assert {(o.method, o.task) for o in outcomes} == {("Row", "facts")}


def test_neighbours_and_passes_do_not_matter(tiny_base: Base) -> None:
    stage = Stage.of(tiny_base, 2)
    method = HyperMethod(editor_for(tiny_base, stage, EXAMPLES), stage, "Editor")
    progress: list[int] = []
    together = evaluate(method, stage, EXAMPLES, batch=4, on_progress=progress.append)
    assert progress == [4, 1]
    alone = [outcome for each in EXAMPLES for outcome in evaluate(method, stage, [each], tokens_per_pass=1)]
    # Likelihoods are floating point sums, which may depend on the shape of a pass in their last digits.
    assert values_of(together) == pytest.approx(values_of(alone), rel=1e-5)
    hits_of = [[o for o in outcomes if o.metric != "success"] for outcomes in (together, alone)]
    assert hits_of[0] == hits_of[1] and len(hits_of[0]) < len(together)


@pytest.mark.slow
@pytest.mark.parametrize("editing", ["together", "sequence"])
def test_a_batch_in_one_base_is_asked_with_all_its_edits(tiny_base: Base, editing: Editing) -> None:
    stage = Stage.of(tiny_base, 2)
    editor = editor_for(tiny_base, stage, EXAMPLES)
    method = HyperMethod(editor, stage, "Editor")
    expected = {}
    for chunk in (EXAMPLES[:3], EXAMPLES[3:]):
        model, now = tiny_base.model, method
        for each in chunk:
            model = with_edit(model, now.edit(now.stage.base, [each.request]))
            if editing == "sequence":
                changed = Base.from_model(copy.deepcopy(model), tiny_base.tokenizer)
                now = HyperMethod(editor, Stage.of(changed, 2), "Editor")
        expected |= naive(tiny_base, method, chunk, model)
    found = values_of(evaluate(method, stage, EXAMPLES, batch=3, editing=editing))
    assert found == pytest.approx(expected, rel=1e-4)
    alone, one = (evaluate(method, stage, EXAMPLES, batch=n) for n in (3, 1))
    assert values_of(evaluate(method, stage, EXAMPLES, batch=1, editing=editing)) == pytest.approx(
        values_of(one), rel=1e-5
    )
    changed_values = [name for name, value in values_of(alone).items() if abs(value - found[name]) > 0.01]
    assert {name.removesuffix("_exact") for _, name in changed_values} >= {"locality", "success"}


def test_success_rises_with_an_edit_to_the_wanted_side_and_falls_with_one_to_the_other(tiny_base: Base) -> None:
    question, wanted, unwanted = "What of tubas?", ("Oh, lovely.", "Lovely, lovely."), ("How dull.", "Dull, dull.")
    request = EditRequest(question, wanted[0], id="to", task="convsent", avoid=unwanted[:1])
    probes = (Probe("wanted", question, wanted[1]), Probe("unwanted", question, unwanted[1]))
    swapped = (Probe("wanted", question, unwanted[1]), Probe("unwanted", question, wanted[1]))
    examples = [EditExample(request, probes), EditExample(replace(request, id="away"), swapped)]
    stage = Stage.of(tiny_base, 2)
    method = HyperMethod(editor_for(tiny_base, stage, EXAMPLES, alpha=1e-3), stage, "Editor")
    after, before = (
        {o.id: o.value for o in evaluate(each, stage, examples) if o.metric == "success"} for each in (method, NoEdit())
    )
    # Without an edit nothing leaves the topic, and the two sides' shares are all there is.
    assert before["to"] + before["away"] == pytest.approx(1)
    assert after["to"] > before["to"] + 0.01 and after["away"] < before["away"] - 0.01


def test_metrics_that_are_left_out_cost_nothing(tiny_gpt2_base: Base) -> None:
    everything = evaluate(NoEdit(), Stage.of(tiny_gpt2_base, 2), EXAMPLES)
    stage = Stage.of(tiny_gpt2_base, 2)
    some = evaluate(NoEdit(), stage, EXAMPLES, metrics=("reliability", "locality"))
    assert some == [o for o in everything if o.metric.removesuffix("_exact") in ("reliability", "locality")]
    texts = {(e.request.text, t) for e in EXAMPLES for t in e.request.targets}
    texts |= {(p.text, p.target) for e in EXAMPLES for p in e.of_kind("locality")}
    assert stage.store.misses == len(texts)
    with pytest.raises(InputError, match="Unknown metric 'sucess'.*'success'"):
        evaluate(NoEdit(), stage, EXAMPLES, metrics=["sucess"])


def test_one_side_alone_gives_no_success(tiny_gpt2_base: Base) -> None:
    one_sided = replace(EXAMPLES[0], probes=EXAMPLES[0].of_kind("wanted"))
    outcomes = evaluate(NoEdit(), Stage.of(tiny_gpt2_base, 2), [one_sided])
    assert {o.metric for o in outcomes} == {"reliability", "reliability_exact"}


def test_leaves_the_base_and_the_store_as_training_needs_them(tiny_base: Base) -> None:
    before = {name: tensor.clone() for name, tensor in tiny_base.model.state_dict().items()}
    stage = Stage.of(tiny_base, 2)
    editor = editor_for(tiny_base, Stage.of(tiny_base, 2), EXAMPLES)
    method = HyperMethod(editor, stage, "Editor")
    with torch.inference_mode():  # what a trainer validates in
        under = evaluate(method, stage, EXAMPLES)
    assert under == evaluate(method, Stage.of(tiny_base, 2), EXAMPLES)
    assert not any(state.is_inference() for state in stage.hidden(Rows.of([(0, tokenise_first(tiny_base))])))
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny_base.model.state_dict().items())
    assert count_hooks(tiny_base.model) == 0
    assert all(parameter.grad is None for parameter in editor.parameters())


def tokenise_first(base: Base):  # type: ignore[no-untyped-def]
    return tokenise(base.tokenizer, EXAMPLES[0].request.text, EXAMPLES[0].request.target, 512)


def test_a_second_evaluation_computes_no_trunk_state_again(tiny_gpt2_base: Base) -> None:
    split = tiny_gpt2_base.split(2)
    store = TrunkStore(split, tiny_gpt2_base.fingerprint)
    stage = Stage(tiny_gpt2_base, split, store)
    first = evaluate(NoEdit(), stage, EXAMPLES)
    misses = store.misses
    assert misses > 0
    assert evaluate(NoEdit(), stage, EXAMPLES) == first
    assert store.misses == misses


def test_dress_puts_instructions_where_they_belong() -> None:
    seen, unseen = (dress(EXAMPLES, {"facts": POOL}, which) for which in ("seen", "unseen"))  # type: ignore[arg-type]
    assert dress(EXAMPLES, None, None) == list(EXAMPLES)
    assert {e.request.instruction for e in unseen} == {"Task: Facts\nDescription: Answer fact number 9.\nInput: "}
    assert len({e.request.instruction for e in seen}) > 1
    assert not {e.request.instruction for e in seen} & {e.request.instruction for e in unseen}
    for each in (*seen, *unseen):
        assert all(p.instruction == ("" if p.kind == "locality" else each.request.instruction) for p in each.probes)
    with pytest.raises(InputError, match="No instruction pools"):
        dress(EXAMPLES, None, "seen")


def test_dress_puts_controls_where_instructions_belong() -> None:
    other = InstructionPool("other", "Another task", tuple(f"Count to {n} backwards." for n in range(10)))
    pools = {"facts": POOL, "other": other}
    texts = set()
    for which in ("wrong", "shuffled", "filler"):
        for each in dress(EXAMPLES, pools, which):  # type: ignore[arg-type]
            assert each.request.instruction
            assert all(p.instruction == ("" if p.kind == "locality" else each.request.instruction) for p in each.probes)
            texts.add(each.request.instruction)
    assert not texts & {e.request.instruction for which in ("seen", "unseen") for e in dress(EXAMPLES, pools, which)}  # type: ignore[arg-type]
    assert dress(EXAMPLES, None, "empty") == list(EXAMPLES)


def test_a_bare_method_puts_no_instruction_in(tiny_gpt2_base: Base) -> None:
    stage = Stage.of(tiny_gpt2_base, 2)
    editor = editor_for(tiny_gpt2_base, stage, EXAMPLES)
    with_pools = HyperMethod(editor, stage, "InstructEdit", {"facts": POOL})
    empty = dress(EXAMPLES, with_pools.pools, "empty")
    bare = evaluate(with_pools.bare(), stage, empty)
    assert bare == evaluate(HyperMethod(editor, stage, "InstructEdit"), stage, EXAMPLES)
    assert bare != evaluate(with_pools, stage, empty)
    assert with_pools.pools == {"facts": POOL}


def test_requests_without_instruction_get_the_seen_one(tiny_gpt2_base: Base) -> None:
    stage = Stage.of(tiny_gpt2_base, 2)
    editor = editor_for(tiny_gpt2_base, stage, EXAMPLES)
    requests = [each.request for each in EXAMPLES]
    dressed = [each.request for each in dress(EXAMPLES, {"facts": POOL}, "seen")]
    with_pools = HyperMethod(editor, stage, "InstructEdit", {"facts": POOL}).edit(tiny_gpt2_base, requests)
    by_hand = HyperMethod(editor, stage, "InstructEdit").edit(tiny_gpt2_base, dressed)
    bare = HyperMethod(editor, stage, "MEND").edit(tiny_gpt2_base, requests)
    for site, update in with_pools.updates.items():
        assert torch.equal(update.u, by_hand.updates[site].u) and torch.equal(update.v, by_hand.updates[site].v)
        assert update.u.dtype == torch.float32 and not update.u.requires_grad
    assert any(
        u.v.shape != bare.updates[s].v.shape or not torch.equal(u.v, bare.updates[s].v)
        for s, u in with_pools.updates.items()
    )


def test_what_cannot_be_done_is_refused(tiny_gpt2_base: Base, tiny_llama_base: Base) -> None:
    stage = Stage.of(tiny_gpt2_base, 2)
    method = HyperMethod(editor_for(tiny_gpt2_base, stage, EXAMPLES), stage, "Editor")
    with pytest.raises(InputError, match="split before block 3"):
        evaluate(method, Stage.of(tiny_gpt2_base, 3), EXAMPLES)
    with pytest.raises(InputError, match="at least 1"):
        evaluate(method, stage, EXAMPLES, batch=0)
    with pytest.raises(InputError, match="Unknown way of editing 'togehter'.*'together'"):
        evaluate(method, stage, EXAMPLES, editing="togehter")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="list is empty"):
        method.edit(tiny_gpt2_base, [])
    with pytest.raises(MismatchError, match="tiny-gpt2"):
        method.edit(tiny_llama_base, [EXAMPLES[0].request])
    long = replace(EXAMPLES[0], probes=(Probe("locality", "word " * 200, "end"),))
    with pytest.raises(InputError, match="longer than the base's context"):
        evaluate(method, stage, [*EXAMPLES, long], on_progress=lambda _: pytest.fail("an edit was made first"))


@given(st.lists(st.integers(1, 400), max_size=60), st.integers(1, 1000))
def test_passes_hold_every_row_once_within_their_bound(lengths: list[int], bound: int) -> None:
    groups = passes(lengths, bound)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    for group in groups:
        longest, shortest = (choose(lengths[index] for index in group) for choose in (max, min))
        assert group == sorted(group)
        assert len(group) == 1 or len(group) * longest <= bound
        assert 2 * longest <= 3 * shortest


def test_passes_are_few() -> None:
    assert passes([40] * 10 + [12] * 10, 1000) == [list(range(10, 20)), list(range(10))]
