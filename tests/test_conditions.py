"""What KE is told: the three texts in their order, and greedy answers where there is no old one."""

from dataclasses import replace

import pytest
import torch

from instructedit.base import Base
from instructedit.base.generation import continuations
from instructedit.conditions import MAX_ANSWER, OldAnswers, condition_tokens, conditions_of
from instructedit.data.tokenise import tokenise
from instructedit.errors import InputError
from instructedit.hooks import replace as hooked
from instructedit.records import EditRequest

TOLD = EditRequest("The capital of Spain is", "Vienna", old_answer="Madrid")
SILENT = EditRequest("Anna speaks", "Dutch")
END = 256


def tokens_of(base: Base, text: str) -> tuple[int, ...]:
    return tuple(base.tokenizer(text)["input_ids"])


def test_prompt_old_answer_new_answer(tiny_base: Base) -> None:
    text = tokens_of(tiny_base, "The capital of Spain is <end>Madrid<end>Vienna")
    assert text.count(END) == 2
    assert condition_tokens(tiny_base, OldAnswers(), TOLD) == text


def test_without_an_old_answer_the_base_answers_greedily(tiny_base: Base) -> None:
    tokens = condition_tokens(tiny_base, OldAnswers(), SILENT)
    prompt = tokens_of(tiny_base, "Anna speaks ")
    answer = continuations(tiny_base, [prompt], 5)[0]
    assert tokens == (*prompt, END, *answer, END, *tokens_of(tiny_base, "Dutch"))
    model, ids = tiny_base.model, list(prompt)
    for _ in answer:
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    assert tuple(ids[len(prompt) :]) == answer and len(answer) == 5


def test_an_answer_is_no_longer_than_the_new_one_and_never_long(tiny_llama_base: Base) -> None:
    lengths = []
    for target in ("No", "An answer of many words"):
        tokens = condition_tokens(tiny_llama_base, OldAnswers(), replace(SILENT, target=target))
        first = tokens.index(END)
        lengths.append(tokens.index(END, first + 1) - first - 1)
    assert lengths == [2, MAX_ANSWER]


def test_the_instruction_and_further_targets_are_not_told(tiny_llama_base: Base) -> None:
    more = replace(TOLD, instruction="Task: facts. ", more_targets=("Graz",))
    answers = OldAnswers()
    assert condition_tokens(tiny_llama_base, answers, more) == condition_tokens(tiny_llama_base, answers, TOLD)


def test_an_answer_is_found_once(tiny_llama_base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = OldAnswers()
    first = condition_tokens(tiny_llama_base, answers, SILENT)
    monkeypatch.setattr(tiny_llama_base.model, "generate", None)
    assert condition_tokens(tiny_llama_base, answers, SILENT) == first
    with pytest.raises(TypeError):
        condition_tokens(tiny_llama_base, answers, replace(SILENT, prompt="Bert speaks"))


def test_under_an_edit_the_edited_base_answers_and_nothing_is_kept(tiny_llama_base: Base) -> None:
    answers = OldAnswers()
    plain = condition_tokens(tiny_llama_base, answers, SILENT)
    site = {"model.layers.3.mlp.down_proj": lambda x, y: y - 50 * y.roll(1, -1)}
    with hooked(tiny_llama_base.model, site):
        edited = condition_tokens(tiny_llama_base, answers, SILENT)
    assert edited != plain
    assert condition_tokens(tiny_llama_base, answers, SILENT) == plain


def test_vectors_are_the_bases_embeddings_of_one_size(tiny_base: Base) -> None:
    found = conditions_of(tiny_base, OldAnswers(), [TOLD, SILENT])
    lengths = [len(condition_tokens(tiny_base, OldAnswers(), request)) for request in (TOLD, SILENT)]
    assert found.lengths.tolist() == lengths and found.embedded.shape == (2, max(lengths), 32)
    vector = tiny_base.model.get_input_embeddings().weight[tokens_of(tiny_base, "T")[0]]
    expected = (vector - vector.mean()) / vector.std(unbiased=False)
    torch.testing.assert_close(found.embedded[0, 0], expected, rtol=1e-3, atol=1e-3)
    assert not found.embedded[1, lengths[1] :].any()


def test_a_tokenizer_without_an_end_and_an_empty_target_are_refused(tiny_llama_base: Base) -> None:
    class Endless:
        eos_token_id = None

    with pytest.raises(InputError, match="Empty target"):
        condition_tokens(tiny_llama_base, OldAnswers(), replace(TOLD, target=" "))
    tiny_llama_base.tokenizer = Endless()  # type: ignore[assignment]
    with pytest.raises(InputError, match="end-of-text"):
        condition_tokens(tiny_llama_base, OldAnswers(), TOLD)


def test_tokens_are_those_the_edit_input_has(tiny_base: Base) -> None:
    row = tokenise(tiny_base.tokenizer, TOLD.prompt, TOLD.target, 512)
    tokens = condition_tokens(tiny_base, OldAnswers(), TOLD)
    assert (
        tokens[: tokens.index(END)] == row.ids[: -row.n_target] and tokens[-row.n_target :] == row.ids[-row.n_target :]
    )
