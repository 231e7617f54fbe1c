"""Generation: token ids in, the base's continuations out, greedy or sampled from the k likeliest tokens.

Inside an edit's ``applied`` block the edited base generates; the cache of keys and values is used. What one row
gets does not depend on its neighbours but for rounding: padding is on the left and masked, and a sampled row
has a seed of its own. Knows nothing about edits or records.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import LongTensor, Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from instructedit.base.model import Base
from instructedit.errors import InputError


def continuations(
    base: Base,
    inputs: Sequence[tuple[int, ...]],
    max_new_tokens: int,
    *,
    top_k: int | None = None,
    seeds: Sequence[int] | None = None,
    full_length: bool = False,
) -> list[tuple[int, ...]]:
    """Continue n inputs in one batch.

    Args:
        base: the base; rows of an edit that is applied are the rows of ``inputs``.
        inputs: token ids of each input, at least one.
        max_new_tokens: tokens to add, at most.
        top_k: sample from so many likeliest tokens; None is greedy.
        seeds: one per input, for sampling: the same seed and logits give the same tokens, whatever is beside them.
        full_length: never end early: the end-of-text token is not allowed.

    Returns:
        The new tokens of each input, without the end-of-text token and what follows it.

    Raises:
        ValueError: sampling without a seed for each input.
    """
    if top_k is not None and (seeds is None or len(seeds) != len(inputs)):
        raise ValueError("Sampling needs one seed for each input.")
    longest = max(len(ids) for ids in inputs)
    ends = _end_tokens(base)
    fill = ends[0] if ends else 0
    padded = torch.tensor([(fill,) * (longest - len(ids)) + tuple(ids) for ids in inputs], device=base.device)
    lengths = torch.tensor([len(ids) for ids in inputs], device=base.device)
    mask = (torch.arange(longest, device=base.device) >= longest - lengths.unsqueeze(1)).long()
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        min_new_tokens=max_new_tokens if full_length else None,
        eos_token_id=ends or None,
        pad_token_id=fill,
        use_cache=True,
    )
    noise = LogitsProcessorList([] if top_k is None else [_TopK(top_k, seeds or (), longest)])
    # A trainer validates in inference mode, whose tensors an edit's own may not meet.
    with torch.inference_mode(False), torch.no_grad(), _as_it_is(base.model):
        found: Tensor = base.model.generate(
            padded, attention_mask=mask, generation_config=config, logits_processor=noise
        )
    return [_cut(row, ends) for row in found[:, longest:].tolist()]


def continue_text(base: Base, prompt: str, max_new_tokens: int) -> str:
    """Continue one text greedily; see ``Base.generate``."""
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens must be at least 1; found {max_new_tokens}.")
    (ids,) = prompt_ids(base, [prompt], max_new_tokens)
    return decoded(base, continuations(base, [ids], max_new_tokens)[0])


def prompt_ids(base: Base, prompts: Sequence[str], max_new_tokens: int) -> list[tuple[int, ...]]:
    """Tokenise prompts that are to be continued.

    Raises:
        InputError: one is empty, or longer than the context leaves room for.
    """
    found = []
    encoded = base.tokenizer(list(prompts), return_offsets_mapping=True, verbose=False) if prompts else {}
    for prompt, ids, ends in zip(prompts, *(encoded.get(k, ()) for k in ("input_ids", "offset_mapping")), strict=True):
        if not prompt.strip():
            raise InputError("An empty prompt cannot be continued. Give the start of a sentence or a question.")
        # A closing special token, which some tokenizers add, would end the text before it begins.
        ids = ids[:-1] if ends[-1][0] == ends[-1][1] else ids
        if len(ids) + max_new_tokens > base.max_tokens:
            raise InputError(
                f"A prompt of {len(ids)} tokens leaves no room for {max_new_tokens} more in the base's context of "
                f"{base.max_tokens}: {prompt[:60]!r}... Shorten it."
            )
        found.append(tuple(ids))
    return found


def decoded(base: Base, tokens: Sequence[int]) -> str:
    """Return the text of a continuation."""
    text: str = base.tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


def like_lengths(lengths: Sequence[int], rows: int) -> list[list[int]]:
    """Group rows of like length, at most so many in a group; the shortest first, each group's indices increasing."""
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    return [sorted(order[start : start + rows]) for start in range(0, len(order), rows)]


class _TopK(LogitsProcessor):
    """Turns a greedy choice into a draw from the k likeliest tokens, with noise of each row's own.

    The largest of logits plus independent Gumbel noise is a draw from the softmax (the Gumbel-max trick).
    """

    def __init__(self, k: int, seeds: Sequence[int], prompt_tokens: int) -> None:
        self.k = k
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.prompt_tokens = prompt_tokens

    def __call__(self, input_ids: LongTensor, scores: Tensor) -> Tensor:
        values, tokens = scores.float().topk(self.k, -1)
        uniform = torch.stack([torch.rand(self.k, generator=generator) for generator in self.generators])
        gumbel = -(-uniform.clamp_min(1e-20).log()).clamp_min(1e-20).log()
        drawn = (values + gumbel.to(values.device)).argmax(-1, keepdim=True)
        return torch.full_like(scores, -torch.inf).scatter(-1, tokens.gather(-1, drawn), 0.0)


@contextmanager
def _as_it_is(model: PreTrainedModel) -> Iterator[None]:
    """Inside the block a model generates from its own logits, and quickly.

    Settings that come with a checkpoint (a repetition penalty, beams) would otherwise fill whatever is not given, and
    a greedy continuation would not be one. And the head's input is copied into one piece: what generation hands
    over after a prompt is a slice, the last position of every row, for which torch would copy the whole head once a
    row: for 25 rows of SmolLM2-135M two thirds of the time, and 56 MB a row.
    """
    own = model.generation_config
    head = model.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _module, args: (args[0].contiguous(), *args[1:]))
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own
        handle.remove()


def _end_tokens(base: Base) -> list[int]:
    """Every token that ends a text: what the tokenizer, the config and the generation config say."""
    found: list[int] = []
    for owner in (base.tokenizer, base.model.config, base.model.generation_config):
        value = getattr(owner, "eos_token_id", None)
        found += value if isinstance(value, list) else [] if value is None else [value]
    return list(dict.fromkeys(int(token) for token in found))


def _cut(tokens: Sequence[int], ends: Sequence[int]) -> tuple[int, ...]:
    end = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
    return tuple(tokens[:end])
