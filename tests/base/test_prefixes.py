"""Inputs in pieces: shared beginnings are computed once, and nothing else changes."""

from collections.abc import Sequence

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from instructedit.base import Base, TrunkStore, load_base
from instructedit.base.prefixes import Pass, cut, groups, idle
from instructedit.base.split import Split
from tests.base.test_split import SHAPES

CPU = torch.device("cpu")
INSTRUCTION = tuple(range(7, 26))
INPUTS = [
    *(INSTRUCTION + tuple(range(start, start + length)) for start, length in ((90, 4), (40, 23), (90, 9), (120, 1))),
    INSTRUCTION,
    INSTRUCTION[:8],
    (3,),
    tuple(range(50, 82)),
]


def pieces(inputs: list[tuple[int, ...]], tokens: int) -> int:
    """Count the distinct beginnings that end with a piece."""
    return len({ids[: start + tokens] for ids in inputs for start in range(0, len(ids), tokens)})


def store_of(base: Base, share: bool = True, **options: object) -> TrunkStore:
    shape = {"rows_per_pass": 12, "pad_to_tokens": 8} if share else {}
    return TrunkStore(base.split(2), base.fingerprint, **{**shape, **options}, share_prefixes=share)


def test_a_beginning_is_cut_once_and_each_piece_knows_what_is_before_it() -> None:
    both = cut([(1, 2, 3, 4, 5), (1, 2, 9), (1, 2, 3, 4)], tokens=2, rows_per_pass=2, device=CPU)
    assert [one.ids.tolist() for one in both.passes] == [[[1, 2], [3, 4]], [[9, 0], [5, 0]]]
    assert [one.starts.tolist() for one in both.passes] == [[0, 2], [2, 4]]
    assert [[depth.rows.tolist() for depth in one.depths] for one in both.passes] == [
        [[[0]], [[0, 1]]],
        [[[0, 2]], [[0, 1, 3]]],
    ]
    assert [[depth.places for depth in one.depths] for one in both.passes] == [[slice(0, 1), slice(1, 2)]] * 2
    assert both.passes[1].positions.tolist() == [[2, 3], [4, 5]]
    assert both.rows == {(1, 2, 3, 4, 5): [0, 1, 3], (1, 2, 9): [0, 2], (1, 2, 3, 4): [0, 1]}
    assert pieces([(1, 2, 3, 4, 5), (1, 2, 9), (1, 2, 3, 4)], 2) == 4


def test_a_last_piece_that_is_filled_up_is_not_taken_for_one_of_token_zero() -> None:
    both = cut([(1, 2), (1, 2, 0)], tokens=4, rows_per_pass=2, device=CPU)
    assert both.rows == {(1, 2): [0], (1, 2, 0): [1]}


def test_groups_hold_what_there_is_room_for() -> None:
    found = list(groups(INPUTS, 8, 6))
    assert sorted(ids for group in found for ids in group) == sorted(INPUTS)
    assert all(pieces(group, 8) <= 6 for group in found) and len(found) > 1
    assert list(groups(INPUTS, 8, 1000)) == [sorted(INPUTS)]
    assert list(groups([], 8, 3)) == []


def test_states_are_those_of_each_input_by_itself(tiny_base: Base) -> None:
    plain = store_of(tiny_base, share=False).states(INPUTS)
    for ids, state, wanted in zip(INPUTS, store_of(tiny_base).states(INPUTS), plain, strict=True):
        assert state.shape == (len(ids), 32)
        torch.testing.assert_close(state, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 12])
def test_a_state_does_not_depend_on_its_neighbours(
    rows: int, tiny_base: Base, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def states(inputs: list[tuple[int, ...]]) -> list[torch.Tensor]:
        return store_of(tiny_base, rows_per_pass=rows).states(inputs)

    together = states(INPUTS)
    backwards = states(INPUTS[::-1])[::-1]
    alone = [states([ids])[0] for ids in INPUTS]
    monkeypatch.setattr("instructedit.base.split.PIECES", 3)
    in_groups = states(INPUTS)
    # To the bit, or it has been said that this processor rounds by place.
    slack = 1e-5 if "place in a pass" in caplog.text else 0.0
    assert slack == 0 or rows > 1
    for state, *others in zip(together, backwards, alone, in_groups, strict=True):
        for other in others:
            torch.testing.assert_close(state, other, rtol=slack, atol=slack)


def test_a_shared_beginning_goes_through_the_trunk_once(tiny_base: Base) -> None:
    tokens: list[int] = []
    hook = tiny_base.adaptor.blocks_of(tiny_base.model)[0].register_forward_pre_hook(
        lambda _, args: tokens.append(args[0].shape[0] * args[0].shape[1])
    )
    store_of(tiny_base, rows_per_pass=1).states(INPUTS)
    hook.remove()
    assert sum(tokens) == 8 * pieces(INPUTS, 8) < 0.7 * sum(-(-len(ids) // 8) * 8 for ids in INPUTS)


@pytest.mark.parametrize("name", SHAPES)
def test_every_family_can_go_on_from_keys_and_values(name: str, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(0)
    base = Base.from_model(SHAPES[name](), tiny_tokenizer)
    plain = store_of(base, share=False).states(INPUTS)
    for state, wanted in zip(store_of(base).states(INPUTS), plain, strict=True):
        torch.testing.assert_close(state, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("first", [0, 1])
def test_a_trunk_of_few_blocks(tiny_base: Base, first: int) -> None:
    shared = TrunkStore(tiny_base.split(first), "x", 4, 8, share_prefixes=True).states(INPUTS)
    plain = TrunkStore(tiny_base.split(first), "x").states(INPUTS)
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-5) for a, b in zip(shared, plain, strict=True))


def test_a_paged_trunk_computes_the_same_to_the_bit(
    tiny_base: Base, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("paged")
    monkeypatch.setenv("INSTRUCTEDIT_CACHE", str(folder / "cache"))
    tiny_base.model.save_pretrained(folder / "base")
    tiny_base.tokenizer.save_pretrained(folder / "base")
    whole, paged = load_base(folder / "base"), load_base(folder / "base", placement="tail_only")
    paged.keep_tail(2)
    assert all(map(torch.equal, store_of(whole).states(INPUTS), store_of(paged).states(INPUTS)))


@pytest.mark.parametrize("bent", [False, True])
def test_a_processor_on_which_places_count_is_told(
    bent: bool, tiny_base: Base, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trunk_pieces = Split.trunk_pieces

    def rounded(split: Split, passes: Sequence[Pass]) -> list[torch.Tensor]:
        states = trunk_pieces(split, passes)
        for state in states if bent else ():
            state[-1] *= 1 + 1e-6
        return states

    monkeypatch.setattr(Split, "trunk_pieces", rounded)
    store = store_of(tiny_base)
    for inputs in (INPUTS[:3], INPUTS[3:]):
        store.states(inputs)
    said = [message for message in caplog.messages if "place in a pass" in message]
    assert len(said) == bent and all("12 rows of 8 tokens" in message for message in said)


def test_ranks_agree_on_the_number_of_passes(tiny_base: Base) -> None:
    asked: list[int] = []

    def agree(own: int) -> int:
        asked.append(own)
        return 9

    ran: list[int] = []
    block = tiny_base.adaptor.blocks_of(tiny_base.model)[1]
    hook = block.register_forward_pre_hook(lambda *_: ran.append(1))
    store = store_of(tiny_base, agree=agree)
    states = store.states(INPUTS)
    store.states(INPUTS)  # nothing is missing: it runs beside the others all the same
    hook.remove()
    assert len(ran) == 18 and asked[1:] == [0] and 1 < asked[0] < 9
    assert all(map(torch.equal, states, store_of(tiny_base).states(INPUTS)))


def test_an_idle_pass_begins_at_the_first_token() -> None:
    assert not idle(8, 4, CPU).starts.any() and idle(8, 4, CPU).ids.shape == (4, 8)


def test_other_pieces_lie_elsewhere_on_disk(tiny_base: Base, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("states")
    for share in (True, False):
        store = TrunkStore(tiny_base.split(2), "x", 12, 8, folder=folder, share_prefixes=share)
        store.states(INPUTS)
        assert (store.hits, store.misses) == (0, len(INPUTS))
        store.flush()
    again = store_of(tiny_base, folder=folder)
    again.fingerprint = "x"
    again.states(INPUTS)
    assert (again.hits, again.misses) == (len(INPUTS), 0)
