import pytest
import torch

from instructedit.base import Base
from instructedit.base.generation import continuations, like_lengths

INPUTS = [tuple(range(40, 47)), tuple(range(60, 63)), tuple(range(90, 101))]


def test_a_greedy_continuation_is_the_argmax_of_the_whole_model_without_a_cache(tiny_base: Base) -> None:
    for ids, found in zip(INPUTS, continuations(tiny_base, INPUTS, 6, full_length=True), strict=True):
        text = list(ids)
        for _ in range(6):
            logits = tiny_base.model(torch.tensor([text]), use_cache=False).logits[0, -1]
            logits[tiny_base.tokenizer.eos_token_id] = -torch.inf
            text.append(int(logits.argmax()))
        assert tuple(text[len(ids) :]) == found


def test_a_sampled_continuation_depends_on_its_seed_and_not_on_its_neighbours(tiny_base: Base) -> None:
    together = continuations(tiny_base, INPUTS, 12, top_k=5, seeds=[1, 2, 3], full_length=True)
    assert [len(tokens) for tokens in together] == [12, 12, 12]
    alone = [
        continuations(tiny_base, [ids], 12, top_k=5, seeds=[1 + i], full_length=True)[0] for i, ids in enumerate(INPUTS)
    ]
    assert together == alone
    assert continuations(tiny_base, INPUTS, 12, top_k=5, seeds=[4, 5, 6], full_length=True) != together


def test_samples_are_of_the_k_likeliest_in_their_proportions(tiny_base: Base) -> None:
    logits = tiny_base.model(torch.tensor([INPUTS[0]])).logits[0, -1]
    logits[tiny_base.tokenizer.eos_token_id] = -torch.inf
    likely = logits.topk(3)
    draws = continuations(tiny_base, [INPUTS[0]] * 2000, 1, top_k=3, seeds=list(range(2000)), full_length=True)
    shares = torch.tensor([[token[0] == k for k in likely.indices.tolist()] for token in draws]).float().mean(0)
    assert float(shares.sum()) == pytest.approx(1)
    assert torch.allclose(shares, likely.values.softmax(-1), atol=0.05)


def test_a_text_ends_before_its_end_token(tiny_base: Base) -> None:
    bias = torch.zeros(tiny_base.model.config.vocab_size)
    bias[tiny_base.tokenizer.eos_token_id] = 1e4
    handle = tiny_base.model.get_output_embeddings().register_forward_hook(lambda _m, _a, out: out + bias)
    try:
        assert continuations(tiny_base, INPUTS, 4) == [(), (), ()]
    finally:
        handle.remove()


def test_sampling_without_a_seed_for_each_row_is_refused(tiny_base: Base) -> None:
    with pytest.raises(ValueError, match="one seed for each"):
        continuations(tiny_base, INPUTS, 4, top_k=5, seeds=[1])


def test_groups_hold_every_index_once_and_like_lengths() -> None:
    assert like_lengths([5, 1, 9, 2, 8], 2) == [[1, 3], [0, 4], [2]]


def test_settings_that_come_with_a_checkpoint_do_not_count(tiny_base: Base) -> None:
    plain = continuations(tiny_base, INPUTS, 8, full_length=True)
    own = tiny_base.model.generation_config
    own.repetition_penalty, own.no_repeat_ngram_size, own.suppress_tokens = 3.0, 1, [plain[0][0]]
    assert continuations(tiny_base, INPUTS, 8, full_length=True) == plain
    assert tiny_base.model.generation_config is own
