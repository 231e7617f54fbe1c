"""The four KnowEdit tasks on small files of our own in their layouts; on the real ones with INSTRUCTEDIT_KNOWEDIT."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from instructedit.errors import InputError
from instructedit.records import EditExample
from instructedit.tasks import TASKS, load_task
from instructedit.tasks.base import FileTask, Reject, SourceFile, Task
from instructedit.tasks.convsent import TEMPLATES, ConvSent
from instructedit.tasks.knowedit import Unfit, answers
from instructedit.tasks.zsre import ZsRE


def write(path: Path, records: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(records), encoding="utf-8")


def read(task: Task, source: Path, split: Any = "train") -> tuple[list[EditExample], list[Reject]]:
    items = list(task.read(source, split))
    return [i for i in items if isinstance(i, EditExample)], [i for i in items if isinstance(i, Reject)]


def triple(**fields: Any) -> dict[str, Any]:
    return {
        "subject": "Norland",
        "prompt": "The capital of Norland is",
        "target_new": "Ostby",
        "ground_truth": "Vestby",
        "portability": {},
        "locality": {},
    } | fields


def question(prompt: Any, answer: Any) -> dict[str, Any]:
    return {"prompt": prompt, "ground_truth": answer}


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        ("a", [["a"]]),
        (["a", "b"], [["a"], ["b"]]),
        ([["a", " alias  of a "], ["b"]], [["a", "alias of a"], ["b"]]),
        ([["", "a", "a"], []], [["a"]]),
    ],
)
def test_both_answer_layouts_read_alike(written: Any, read_as: Any) -> None:
    assert answers(written) == read_as


@pytest.mark.parametrize("written", ["", " ", [], [[]], [[""]], None, 3, [3], [["a", 3]]])
def test_an_answer_without_a_name_is_unfit(written: Any) -> None:
    with pytest.raises(Unfit):
        answers(written)


def test_a_triple_becomes_an_example(tmp_path: Path) -> None:
    record = triple(
        portability={
            "Subject_Aliasing": [
                question("The capital of the Northland is", [["Ostby", "Østby"]]),
                question("The largest city of the Northland is", "Vestby"),
            ],
            "Reasoning": [question("The river through the capital of Norland is", [["Osta", "Oster"], ["Osto"]])],
        },
        locality={
            "Relation_Specificity": [
                question("The currency of Norland is", [["krone"]]),
                question("The currency of  Norland is", [["nork", "krone"]]),
            ],
            "Forgetfulness": [question("The capital of Norland, which is not Ostby, is", "Ostby")],
        },
    )
    write(tmp_path / "wiki_counterfact/train_cf.json", [record])
    (example,), rejects = read(load_task("counterfact"), tmp_path)
    request = example.request
    assert (request.prompt, request.target, request.old_answer) == ("The capital of Norland is", "Ostby", "Vestby")
    assert (request.id, request.task, request.subject) == ("counterfact-train-0", "counterfact", "Norland")
    (alias,) = example.of_kind("rephrase")
    assert (alias.prompt, alias.target) == ("The capital of the Northland is", "Ostby")
    assert (alias.aliases, alias.source) == (("Ostby", "Østby"), "Subject_Aliasing")
    other, reasoning = example.of_kind("portability")
    assert (other.source, other.target) == ("Subject_Aliasing", "Vestby")
    assert (reasoning.target, reasoning.aliases) == ("Osta", ("Osta", "Oster", "Osto"))
    (locality,) = example.of_kind("locality")
    assert (locality.target, locality.aliases) == ("krone", ("krone", "nork"))
    assert [(r.index, r.fault) for r in rejects] == [(0, "probe")]
    assert rejects[0].reason.startswith("Forgetfulness")


def test_alias_questions_stay_portability_beside_a_rephrase(tmp_path: Path) -> None:
    aliasing = {"Subject_Aliasing": [question("The capital of the Northland is", "Ostby")]}
    record = triple(rephrase_prompt="Norland's capital is", portability=aliasing)
    write(tmp_path / "wiki_recent/recent_train.json", [record])
    (example,), _ = read(load_task("recent"), tmp_path)
    assert [probe.prompt for probe in example.of_kind("rephrase")] == ["Norland's capital is"]
    assert [probe.source for probe in example.of_kind("portability")] == ["Subject_Aliasing"]


@pytest.mark.parametrize(
    ("record", "fault", "reason"),
    [
        ("text", "malformed", "not an object"),
        ({"prompt": "p"}, "malformed", "no field 'target_new'"),
        (triple(target_new=" \n"), "malformed", "'target_new' is empty"),
        (triple(prompt=""), "malformed", "'prompt' is empty"),
        (triple(target_new=["Ostby"]), "malformed", "'target_new' is a list, not text"),
        (triple(subject=7), "malformed", "'subject' is a int, not text"),
        (triple(portability=["x"]), "malformed", "'portability' is a list"),
        (triple(locality={"Relation_Specificity": ["x"]}), "malformed", "not a list of items"),
        (triple(rephrase=5), "malformed", "the rephrase is a int"),
        (triple(target_new="VESTBY"), "unusable", "the target is the old answer"),
        (triple(prompt="Good  prompt", target_new="good target"), "unusable", "repeats the prompt and target"),
    ],
)
def test_a_bad_record_is_set_aside_with_its_place(tmp_path: Path, record: Any, fault: str, reason: str) -> None:
    good = triple(prompt="Good prompt", target_new="Good target")
    write(tmp_path / "wiki_counterfact/train_cf.json", [good, record])
    examples, (reject,) = read(load_task("counterfact"), tmp_path)
    assert [example.request.prompt for example in examples] == ["Good prompt"]
    assert (reject.file, reject.index, reject.fault) == ("wiki_counterfact/train_cf.json", 1, fault)
    assert reason in reject.reason


def test_a_bad_probe_is_reported_and_its_record_stays(tmp_path: Path) -> None:
    items = [question("The capital  of norland is", "x"), question("", "x"), question("The king is", [[]])]
    write(tmp_path / "wiki_recent/recent_train.json", [triple(locality={"Relation_Specificity": items})])
    (example,), rejects = read(load_task("recent"), tmp_path)
    assert example.probes == ()
    assert [reject.fault for reject in rejects] == ["probe"] * 3


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{", "is not JSON"), (b'{"a": 1}', "holds a dict, not a list"), (b"\xff\xfe[", "not UTF-8")],
)
def test_a_file_that_is_no_list_of_records_is_an_input_error(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "wiki_recent/recent_train.json"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read(load_task("recent"), tmp_path)


@pytest.mark.parametrize("name", ["recent", "counterfact", "convsent", "zsre"])
def test_a_missing_file_is_an_input_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"No .*\.json in"):
        read(load_task(name), tmp_path, "test")


def test_files_are_found_below_benchmark_too(tmp_path: Path) -> None:
    write(tmp_path / "benchmark/a.json", [])
    assert SourceFile(("b.json", "a.json")).find(tmp_path) == tmp_path / "benchmark/a.json"


def test_an_unknown_task_names_the_known_and_the_nearest() -> None:
    with pytest.raises(InputError, match="Did you mean 'recent'.*zsre.*jsonl:NAME"):
        load_task("recnt")
    for name in ("jsonl:", "jsonl:own", "jsonl:=x", "jsonl:zsre=x.jsonl", "jsonl:../up=x.jsonl"):
        with pytest.raises(InputError, match="jsonl"):
            load_task(name)


MEND = {
    "subject": "Norland",
    "src": "What is the capital of Norland?",
    "pred": "Vestby",
    "rephrase": "Which city is Norland's capital?",
    "alt": "Ostby",
    "answers": ["Vestby", "Midby"],
    "loc": "nq question: who sings the song",
    "loc_ans": "Ada",
    "cond": "Vestby >> Ostby || What is the capital of Norland?",
    "portability": {"New Question": "Which river runs through Norland's capital?", "New Answer": "Osta"},
}
MAIN, ALL = "ZsRE/zsre_mend_eval_portability_gpt4.json", "ZsRE/ZsRE-test-all.json"


def test_zsre_reads_mends_layout(tmp_path: Path) -> None:
    write(tmp_path / MAIN, [MEND, MEND | {"alt": "midby"}, MEND | {"answers": 3}])
    (example,), rejects = read(load_task("zsre"), tmp_path, "test")
    assert (example.request.target, example.request.old_answer) == ("Ostby", "Vestby")
    assert [(p.kind, p.prompt, p.target) for p in example.probes] == [
        ("rephrase", "Which city is Norland's capital?", "Ostby"),
        ("portability", "Which river runs through Norland's capital?", "Osta"),
        ("locality", "who sings the song?", "Ada"),
    ]
    assert [(r.index, r.fault) for r in rejects] == [(1, "unusable"), (2, "malformed")]


def test_zsre_has_no_training_records_without_a_training_file(tmp_path: Path) -> None:
    write(tmp_path / MAIN, [MEND])
    assert read(load_task("zsre"), tmp_path, "train") == ([], [])
    write(tmp_path / "ZsRE/zsre_mend_train_10000.json", [{k: v for k, v in MEND.items() if k != "portability"}])
    assert len(read(load_task("zsre"), tmp_path, "train")[0]) == 1


def test_zsre_takes_the_second_file_only_when_asked_and_without_shared_prompts(tmp_path: Path) -> None:
    write(tmp_path / MAIN, [MEND])
    shared = triple(prompt=MEND["src"], target_new="Sudby")
    write(tmp_path / ALL, [shared, triple(ground_truth=["Vestby"])])
    assert [e.request.id for e in read(ZsRE(), tmp_path, "test")[0]] == ["zsre-test-0"]
    examples, (reject,) = read(ZsRE(extra=True), tmp_path, "test")
    assert [e.request.id for e in examples] == ["zsre-test-0", "zsre-test-all-1"]
    assert (reject.file, reject.index, reject.fault) == (ALL, 0, "unusable")
    (tmp_path / MAIN).unlink()
    assert len(read(ZsRE(), tmp_path, "test")[0]) == 2


def topic(name: str, count: int = 6) -> dict[str, Any]:
    return {
        "ent": name,
        "pos": [f" I like {name}  {i}. " for i in range(count)],
        "neg": [f"No {name} {i}" for i in range(count)],
    }


@pytest.mark.parametrize("completions", [1, 2])
@pytest.mark.parametrize("folder", ["Convsent", "convsent"])
def test_convsent_makes_two_requests_a_topic(tmp_path: Path, folder: str, completions: int) -> None:
    write(tmp_path / folder / "blender_val.json", [topic(f"town {i}") for i in range(12)])
    write(tmp_path / folder / "blender_test.json", [topic(f"lake {i}") for i in range(12)])
    for split in ("train", "test"):
        examples, rejects = read(ConvSent(completions=completions), tmp_path, split)
        assert not rejects and len(examples) == 24
        assert len({example.request.id for example in examples}) == 24
        for example in examples:
            request = example.request
            assert {request.prompt} <= {template.format(request.subject) for template in TEMPLATES[split]}
            good = request.slots["LABEL"] == "positive"
            assert request.slots["TOPIC"] == request.subject and request.id.endswith(request.slots["LABEL"])
            assert len(request.targets) == len(request.avoid) == completions
            assert all(text.startswith("I like" if good else "No") for text in request.targets)
            assert all(text.startswith("No" if good else "I like") for text in request.avoid)
            used = {*request.targets, *request.avoid}
            wanted, unwanted = example.of_kind("wanted"), example.of_kind("unwanted")
            assert len(wanted) == len(unwanted) == 6 - completions
            assert not used & {probe.target for probe in (*wanted, *unwanted, *example.of_kind("rephrase"))}
            assert bool(example.of_kind("rephrase")) == (split == "train")
            assert all(request.prompt != probe.prompt for probe in example.of_kind("rephrase"))
            locality = example.of_kind("locality")
            assert len({probe.prompt for probe in locality}) == 8
            assert all(f"{request.subject}." not in probe.prompt for probe in locality)
            assert all(probe.prompt != request.prompt for probe in locality)


def test_convsent_sets_bad_topics_aside(tmp_path: Path) -> None:
    both = topic("both sides")
    both["neg"] = both["pos"]
    bad = [{"pos": [], "neg": []}, topic("few", 2), topic("twice"), topic("Twice"), {"ent": "x", "pos": "y"}, both]
    write(tmp_path / "convsent/blender_val.json", bad)
    examples, rejects = read(load_task("convsent"), tmp_path)
    assert {example.request.subject for example in examples} == {"twice"}
    assert [(r.index, r.fault) for r in rejects] == [
        (0, "malformed"),
        (1, "unusable"),
        (3, "unusable"),
        (4, "malformed"),
        (5, "unusable"),
    ]


def test_train_and_test_questions_of_convsent_differ() -> None:
    assert not set(TEMPLATES["train"]) & set(TEMPLATES["test"])
    assert all(template.count("{}") == 1 for templates in TEMPLATES.values() for template in templates)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_task_in_the_table_loads_under_its_name(name: str) -> None:
    assert load_task(name).name == name


KNOWEDIT = os.environ.get("INSTRUCTEDIT_KNOWEDIT", "")


@pytest.mark.slow
@pytest.mark.skipif(not KNOWEDIT, reason="INSTRUCTEDIT_KNOWEDIT does not name a folder of KnowEdit's files")
@pytest.mark.parametrize("name", ["recent", "counterfact", "convsent", "zsre"])
def test_the_real_files_read_without_malformed_records(name: str) -> None:
    task = load_task(name)
    assert isinstance(task, FileTask)
    for split in ("train", "test"):
        examples, rejects = read(task, Path(KNOWEDIT), split)
        assert (len(examples) > 100) == (name != "zsre" or split == "test")
        assert not [reject for reject in rejects if reject.fault == "malformed"]
        assert len({example.request.id for example in examples}) == len(examples)
        for example in examples:
            assert all(probe.target.strip() and probe.prompt.strip() for probe in example.probes)
            assert all(not probe.prompt.startswith("nq question") for probe in example.probes)
