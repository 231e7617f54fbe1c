"""ZsRE: question answering, held out by default; MEND's layout with portability, and KnowEdit's own.

Knows both layouts' files and fields.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructedit.records import EditExample, EditRequest
from instructedit.tasks.base import Reject, SourceFile, SourceSplit
from instructedit.tasks.knowedit import (
    ANSWERS_NOTE,
    LICENCE,
    ProbeReader,
    Unfit,
    answers,
    load_list,
    optional_text,
    present,
    read_records,
    required_text,
    shown,
    text_key,
)
from instructedit.tasks.triples import triple_example

TRAIN = SourceFile(
    ("ZsRE/zsre_mend_train_10000.json", "ZsRE/zsre_mend_train.json", "zsre/zsre_mend_train_10000.json"), required=False
)
TEST = SourceFile(("ZsRE/zsre_mend_eval_portability_gpt4.json", "zsre/zsre_mend_eval_portability_gpt4.json"))
TEST_ALL = SourceFile(("ZsRE/ZsRE-test-all.json", "zsre/ZsRE-test-all.json"))
NATURAL_QUESTIONS = "nq question: "

NOTES = (
    "zsre is held out: it has no training records unless the source holds a file zsre_mend_train*.json.",
    "The test set is zsre_mend_eval_portability_gpt4.json. Where the source has ZsRE-test-all.json alone, that is the "
    "test set; with --zsre_all it is added to the other, without the prompts they share.",
    "Locality questions come from Natural Questions; their prefix 'nq question: ' is taken off and a question mark put "
    "at their end, so that no prompt gives the kind of probe away.",
    "The old answer is the first true answer; a record whose target is any of the true answers is set aside.",
    "Every record has a rephrase, so Subject_Aliasing (ZsRE-test-all.json) stays in portability.",
    ANSWERS_NOTE,
)


@dataclass(frozen=True)
class ZsRE:
    """Answer a question differently.

    Args:
        extra: add ZsRE-test-all.json to the test set.
    """

    name: str = "zsre"
    family: str = "zsre"
    licence: str = LICENCE
    notes: tuple[str, ...] = NOTES
    extra: bool = False

    @property
    def sources(self) -> Mapping[SourceSplit, tuple[SourceFile, ...]]:
        """The files behind each split."""
        either = SourceFile(TEST.candidates + TEST_ALL.candidates)
        return {"train": (TRAIN,), "test": (TEST, TEST_ALL) if self.extra else (either,)}

    def read(self, source: Path, split: SourceSplit) -> Iterator[EditExample | Reject]:
        """Yield the split's examples and rejects."""
        seen: set[tuple[str, str]] = set()
        prompts: set[str] = set()
        for number, path in enumerate(present(source, self.sources[split])):
            prefix = f"{self.name}-{split}" if number == 0 else f"{self.name}-{split}-all"
            # The second file repeats questions of the first with other targets: one set, one edit a question.
            earlier = frozenset(prompts)

            def build(
                record: Mapping[str, Any], index: int, prefix: str = prefix, earlier: frozenset[str] = earlier
            ) -> tuple[EditExample, list[str]]:
                layout = mend_example if "src" in record else triple_example
                example, left_out = layout(record, self.name, f"{prefix}-{index}")
                if text_key(example.request.prompt) in earlier:
                    raise Unfit("its prompt is in the first test file", "unusable")
                return example, left_out

            for item in read_records(load_list(path), shown(path, source), build, seen):
                if isinstance(item, EditExample):
                    prompts.add(text_key(item.request.prompt))
                yield item


def mend_example(record: Mapping[str, Any], task: str, id: str) -> tuple[EditExample, list[str]]:
    """Make a record of MEND's layout an example, with the reasons for which probes were left out; raises Unfit.

    Fields: src, alt (the target), answers (the true ones), rephrase, loc, loc_ans, subject and, where there is one,
    portability with "New Question" and "New Answer".
    """
    prompt, target = required_text(record, "src"), required_text(record, "alt")
    try:
        true_names = [name for answer in answers(record.get("answers")) for name in answer]
    except Unfit as unfit:
        raise Unfit(f"'answers': {unfit.reason}") from unfit
    if text_key(target) in map(text_key, true_names):
        raise Unfit("the target is the old answer", "unusable")
    request = EditRequest(
        prompt=prompt,
        target=target,
        id=id,
        task=task,
        subject=optional_text(record, "subject"),
        old_answer=true_names[0],
    )
    reader = ProbeReader(prompt, target)
    reader.add_rephrases(record.get("rephrase"))
    portability = record.get("portability")
    if portability is not None:
        if not isinstance(portability, dict):
            raise Unfit("'portability' is not an object")
        reader.add("portability", portability.get("New Question"), portability.get("New Answer"), "Reasoning")
    if record.get("loc") is not None:
        reader.add("locality", _locality_prompt(record["loc"]), record.get("loc_ans"), "Natural_Questions")
    return EditExample(request, reader.finished()), reader.left_out


def _locality_prompt(value: Any) -> Any:
    if not isinstance(value, str) or not value.strip():
        return value
    question = value.strip().removeprefix(NATURAL_QUESTIONS)
    return question if question.endswith("?") else f"{question}?"
