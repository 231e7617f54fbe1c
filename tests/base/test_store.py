from pathlib import Path

import pytest
import torch

from instructedit.base import Base, TrunkStore

INPUTS = [
    tuple(range(start, start + length)) for start, length in ((0, 5), (40, 12), (80, 1), (9, 5), (3, 33), (60, 8))
]


def store_of(base: Base, **options: object) -> TrunkStore:
    return TrunkStore(base.split(2), base.fingerprint, **options)


def test_states_are_the_trunks(tiny_base: Base) -> None:
    for ids, state in zip(INPUTS, store_of(tiny_base).states(INPUTS), strict=True):
        assert torch.equal(state, tiny_base.split(2).trunk(torch.tensor([ids]))[0])


@pytest.mark.parametrize(("rows_per_pass", "pad_to_tokens"), [(1, 1), (1, 8), (4, 8), (3, 1)])
def test_a_state_does_not_depend_on_its_neighbours(tiny_base: Base, rows_per_pass: int, pad_to_tokens: int) -> None:
    options = {"rows_per_pass": rows_per_pass, "pad_to_tokens": pad_to_tokens}
    together = store_of(tiny_base, **options).states(INPUTS)
    backwards = store_of(tiny_base, **options).states(INPUTS[::-1])[::-1]
    alone = [store_of(tiny_base, **options).states([ids])[0] for ids in INPUTS]
    for ids, *states in zip(INPUTS, together, backwards, alone, strict=True):
        assert all(state.shape == (len(ids), 32) for state in states)
        assert torch.equal(states[0], states[1]) and torch.equal(states[0], states[2])
        torch.testing.assert_close(states[0], tiny_base.split(2).trunk(torch.tensor([ids]))[0])


def test_every_pass_has_the_same_rows_and_padded_lengths(tiny_base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    split = tiny_base.split(2)
    shapes: list[tuple[int, ...]] = []
    trunk = split.trunk
    monkeypatch.setattr(split, "trunk", lambda ids: (shapes.append(tuple(ids.shape)), trunk(ids))[1])
    store_of(tiny_base, rows_per_pass=3, pad_to_tokens=8).states(INPUTS)
    assert sorted(shapes) == [(3, 8), (3, 8), (3, 16), (3, 40)]


def test_a_distinct_input_is_computed_once(tiny_base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of(tiny_base)
    first = store.states([INPUTS[0], INPUTS[1], INPUTS[0]])
    assert (store.hits, store.misses) == (0, 2)
    assert first[0] is first[2]
    monkeypatch.setattr(tiny_base.split(2), "trunk", lambda _ids: pytest.fail("computed again"))
    assert torch.equal(store.states([INPUTS[1]])[0], first[1])
    assert (store.hits, store.misses) == (1, 2)


def test_the_least_recently_used_state_goes_first(tiny_base: Base) -> None:
    # A state of 256 tokens and 32 numbers has 32 KiB: 32 of them fill one MiB.
    inputs = [(index, *range(255)) for index in range(33)]
    store = store_of(tiny_base, memory_mib=1)
    store.states(inputs[:32])
    store.states(inputs[:1])
    store.states(inputs[32:])
    assert (store.hits, store.misses) == (1, 33)
    store.states(inputs[:1])
    assert (store.hits, store.misses) == (2, 33)
    store.states(inputs[1:2])
    assert (store.hits, store.misses) == (2, 34)


def test_more_than_fits_in_memory_is_still_returned(tiny_base: Base) -> None:
    store = store_of(tiny_base, memory_mib=0)
    expected = store_of(tiny_base).states(INPUTS)
    assert all(map(torch.equal, store.states(INPUTS), expected))
    store.states(INPUTS)
    assert (store.hits, store.misses) == (0, 2 * len(INPUTS))


def test_a_folder_keeps_states_between_runs(tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = store_of(tiny_base, folder=tmp_path).states(INPUTS)
    assert len(list(tmp_path.rglob("*.safetensors"))) == len(INPUTS)
    assert not list(tmp_path.rglob("*.tmp"))
    monkeypatch.setattr(tiny_base.split(2), "trunk", lambda _ids: pytest.fail("computed again"))
    later = store_of(tiny_base, folder=tmp_path)
    assert all(map(torch.equal, later.states(INPUTS), expected))
    assert (later.hits, later.misses) == (len(INPUTS), 0)


def test_a_broken_file_is_computed_again_and_replaced(
    tiny_base: Base, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = store_of(tiny_base, folder=tmp_path).states(INPUTS[:1])[0]
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(b"cut off")
    store = store_of(tiny_base, folder=tmp_path)
    assert torch.equal(store.states(INPUTS[:1])[0], expected)
    assert (store.hits, store.misses) == (0, 1)
    assert "computed again" in caplog.text
    assert store_of(tiny_base, folder=tmp_path).states(INPUTS[:1]) and file.stat().st_size > 100


def test_nothing_is_shared_that_could_differ(tiny_base: Base, tmp_path: Path) -> None:
    store_of(tiny_base, folder=tmp_path).states(INPUTS)
    others = [
        TrunkStore(tiny_base.split(1), tiny_base.fingerprint, folder=tmp_path),
        TrunkStore(tiny_base.split(2), "another base", folder=tmp_path),
        store_of(tiny_base, folder=tmp_path, rows_per_pass=2),
        store_of(tiny_base, folder=tmp_path, pad_to_tokens=4),
    ]
    for other in others:
        other.states(INPUTS)
        assert (other.hits, other.misses) == (0, len(INPUTS))
    tiny_base.model.to(torch.bfloat16)
    half = store_of(tiny_base, folder=tmp_path)
    assert half.states(INPUTS)[0].dtype == torch.bfloat16
    assert half.misses == len(INPUTS)


def test_a_state_holds_no_more_memory_than_itself(tiny_base: Base) -> None:
    (state,) = store_of(tiny_base, rows_per_pass=4, pad_to_tokens=64).states([INPUTS[0]])
    assert state.untyped_storage().nbytes() == 5 * 32 * 4


@pytest.mark.parametrize("option", [{"rows_per_pass": 0}, {"pad_to_tokens": 0}, {"memory_mib": -1}])
def test_sizes_that_make_no_sense(tiny_base: Base, option: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        store_of(tiny_base, **option)
