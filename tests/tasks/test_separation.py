"""Splits share no (subject, prompt) pair, and nothing trained on scores."""

from instructedit.records import EditExample, EditRequest, Probe
from instructedit.tasks.separation import cut_validation, keep_apart, limit_probes


def example(prompt: str, *probes: Probe, subject: str = "s", id: str = "") -> EditExample:
    return EditExample(EditRequest(prompt, "t", id=id or prompt, subject=subject), probes)


def ask(prompt: str) -> Probe:
    return Probe("locality", prompt, "t")


def test_at_most_so_many_probes_of_each_kind_in_their_order() -> None:
    probes = [Probe("locality", f"l{i}", "t") for i in range(9)] + [Probe("rephrase", f"r{i}", "t") for i in range(2)]
    limited = limit_probes(example("p", *probes), 3)
    assert len(limited.of_kind("locality")) == 3 and len(limited.of_kind("rephrase")) == 2
    assert list(limited.probes) == [probe for probe in probes if probe in limited.probes]
    # The choice does not depend on the order of the source.
    assert set(limit_probes(example("p", *probes[::-1]), 3).probes) == set(limited.probes)
    other = limit_probes(example("p", *probes, id="another"), 3)
    assert set(other.probes) != set(limited.probes)


def test_validation_is_cut_by_pair_whatever_the_other_records() -> None:
    records = [example(f"p{i}", id=f"{i}-{side}") for i in range(200) for side in "ab"]
    parts = cut_validation(records, [], 0.25).splits
    assert len(parts["train"]) + len(parts["validation"]) == 400
    assert 60 <= len(parts["validation"]) <= 140
    assert not {e.request.prompt for e in parts["train"]} & {e.request.prompt for e in parts["validation"]}
    half = cut_validation(records[:100], [], 0.25).splits["validation"]
    assert half == [e for e in parts["validation"] if e in records[:100]]
    assert cut_validation(records, [], 0.0).splits["validation"] == []


def test_training_records_of_tested_pairs_are_left_out_with_the_reason() -> None:
    separated = cut_validation([example("A  prompt", id="clash"), example("other")], [example("a prompt")], 0.0)
    assert [e.request.id for e in separated.splits["train"]] == ["other"]
    assert separated.records == [("clash", "its subject and prompt are a test record's")]


def test_scored_texts_are_kept_out_of_training_over_all_tasks() -> None:
    one = cut_validation(
        [
            example("asked by a test probe", subject="x"),
            example("kept", ask("tested prompt"), ask("asked by a test probe"), ask("Validated  prompt"), ask("free")),
        ],
        [],
        0.0,
    )
    one.splits["validation"] = [example("validated prompt", ask("kept"), ask("tested prompt"), ask("also free"))]
    two = cut_validation([], [example("Tested prompt", ask("asked by a test probe"))], 0.0)
    keep_apart({"one": one, "two": two})
    assert one.splits["train"] == [example("kept", ask("free"))]
    assert one.splits["validation"] == [example("validated prompt", ask("also free"))]
    assert two.splits["test"] == [example("Tested prompt", ask("asked by a test probe"))]
    assert [id for id, _ in one.records] == ["asked by a test probe"]
    assert len(one.probes) == 5


def test_completions_may_share_the_requests_prompt() -> None:
    wanted = Probe("wanted", "question", "a completion")
    task = cut_validation([], [example("question", wanted)], 0.0)
    task.splits["validation"] = [example("another", Probe("wanted", "another", "text"))]
    keep_apart({"task": task})
    assert task.splits["test"][0].probes == (wanted,)
    assert len(task.splits["validation"][0].probes) == 1
