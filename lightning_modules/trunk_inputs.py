"""Every input a run will ask of its trunk: the texts of its steps, of its validations and of its test, as token ids.

Makes them with the code that asks them, so that nothing is missing and nothing too much. Knows nothing about states.
"""

from array import array
from collections.abc import Iterable, Iterator
from zlib import crc32

from instructedit.base import Base
from instructedit.data.tokenise import tokenise
from instructedit.evaluation.metrics import METRICS
from instructedit.evaluation.questions import questions_of
from instructedit.evaluation.runner import dress
from instructedit.hypernet.editor import HyperEditor
from instructedit.records import EditExample
from lightning_modules.callbacks.validation import validation_examples
from lightning_modules.edit_datamodule import EditDataModule
from lightning_modules.editor_module import WARM_UP_STEPS, EditorModule

Ids = tuple[int, ...]


class DistinctInputs:
    """Token ids, each kept once, in four bytes a token: a run may ask for a million inputs."""

    def __init__(self) -> None:
        self._found: dict[bytes, None] = {}

    def add(self, inputs: Iterable[Ids]) -> None:
        """Add inputs."""
        self._found.update((array("i", ids).tobytes(), None) for ids in inputs)

    def __len__(self) -> int:
        return len(self._found)

    @property
    def n_tokens(self) -> int:
        """Tokens of all inputs."""
        return sum(map(len, self._found)) // array("i").itemsize

    def portions(self, size: int) -> Iterator[list[Ids]]:
        """Yield lists of at most so many inputs, the longest first."""
        ordered = sorted(self._found, key=len, reverse=True)
        for start in range(0, len(ordered), size):
            yield [tuple(array("i", packed)) for packed in ordered[start : start + size]]

    def part(self, i: int, n: int) -> "DistinctInputs":
        """Return the i-th of n parts, counted from 1; an input's part follows from the input alone."""
        chosen = DistinctInputs()
        chosen._found = {packed: None for packed in self._found if crc32(packed) % n == i - 1}
        return chosen


def of_step(data: EditDataModule, step: int) -> Iterator[Ids]:
    """Yield what one optimiser step asks, on all ranks together."""
    batch = data.collator(data.sampler.global_batch(step))
    for rows in (batch.inner, batch.rephrase, batch.avoid, batch.locality):
        yield from rows.ids


def of_warm_up(module: EditorModule, data: EditDataModule) -> Iterator[Ids]:
    """Yield what starts the moments; a run shorter than the warm-up looks at batches it never trains on."""
    if not isinstance(module.editor, HyperEditor):
        return  # it has none
    for batch in data.first_batches(WARM_UP_STEPS):
        yield from batch.inner.ids


def of_validation(module: EditorModule, data: EditDataModule) -> Iterator[Ids]:
    """Yield what a validation asks; each asks the same."""
    for examples in validation_examples(data).values():
        yield from _asked(module.evaluation_stage.base, examples, METRICS[:4])


def of_test(module: EditorModule, data: EditDataModule) -> Iterator[Ids]:
    """Yield what the test at the end asks: of the base, and of the editor with seen and with unseen instructions."""
    base = module.evaluation_stage.base
    for examples in data.test().values():
        yield from _asked(base, examples, METRICS)
        if data.pools is not None:
            for which in ("seen", "unseen"):
                yield from _asked(base, dress(examples, data.pools, which), METRICS)


def _asked(base: Base, examples: Iterable[EditExample], metrics: Iterable[str]) -> Iterator[Ids]:
    """Yield the questions of examples that are dressed already, and the texts that they are edited in with."""
    for example in examples:
        yield from (question.text.ids for question in questions_of(base, example, frozenset(metrics)))
        request = example.request
        for target in request.targets:
            yield tokenise(base.tokenizer, request.text, target, base.max_tokens).ids
