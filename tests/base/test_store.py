import json
from pathlib import Path

import pytest
import torch

from instructedit.base import Base, TrunkStore
from instructedit.errors import InputError

INPUTS = [
    tuple(range(start, start + length)) for start, length in ((0, 5), (40, 12), (80, 1), (9, 5), (3, 33), (60, 8))
]


SHAPE = {"rows_per_pass": 1, "pad_to_tokens": 32}
"""What runs use: with odd shapes a matrix product's last bits may depend on a row's place, where threads share it."""


def store_of(base: Base, **options: object) -> TrunkStore:
    return TrunkStore(base.split(2), base.fingerprint, **options)


def test_states_are_the_trunks(tiny_base: Base) -> None:
    for ids, state in zip(INPUTS, store_of(tiny_base).states(INPUTS), strict=True):
        assert torch.equal(state, tiny_base.split(2).trunk(torch.tensor([ids]))[0])


@pytest.mark.parametrize(("rows_per_pass", "pad_to_tokens"), [(1, 1), (1, 8), (12, 8), (3, 1)])
def test_a_state_does_not_depend_on_its_neighbours(tiny_base: Base, rows_per_pass: int, pad_to_tokens: int) -> None:
    options = {"rows_per_pass": rows_per_pass, "pad_to_tokens": pad_to_tokens}
    together = store_of(tiny_base, **options).states(INPUTS)
    backwards = store_of(tiny_base, **options).states(INPUTS[::-1])[::-1]
    alone = [store_of(tiny_base, **options).states([ids])[0] for ids in INPUTS]
    for ids, *states in zip(INPUTS, together, backwards, alone, strict=True):
        assert all(state.shape == (len(ids), 32) for state in states)
        # Several rows: not every processor's product gives every place of an odd shape the same bits.
        slack = 0.0 if rows_per_pass == 1 else 1e-6
        torch.testing.assert_close(states[1:], [states[0]] * 2, rtol=slack, atol=slack)
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


def filled(base: Base, folder: Path, **options: object) -> list[torch.Tensor]:
    store = store_of(base, folder=folder, **options)
    states = store.states(INPUTS)
    store.flush()
    return states


def never_computes(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base.split(2), "trunk", lambda _ids: pytest.fail("computed again"))


def test_a_folder_keeps_states_between_runs(tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = filled(tiny_base, tmp_path)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1
    assert not list(tmp_path.rglob("*.tmp"))
    never_computes(tiny_base, monkeypatch)
    later = store_of(tiny_base, folder=tmp_path, memory_mib=0)
    assert later.missing([*INPUTS, (1, 2), (1, 2)]) == [(1, 2)]
    assert all(map(torch.equal, later.states(INPUTS), expected))
    assert (later.hits, later.misses) == (len(INPUTS), 0)
    (about,) = tmp_path.rglob("about.json")
    assert json.loads(about.read_text())["fingerprint"] == tiny_base.fingerprint
    assert about.parent.name.startswith(tiny_base.fingerprint[:16])


def test_states_that_are_not_written_yet_are_found(tiny_base: Base, tmp_path: Path) -> None:
    store = store_of(tiny_base, folder=tmp_path, memory_mib=0)
    expected = store.states(INPUTS)
    assert not list(tmp_path.rglob("*.safetensors")) and store.missing(INPUTS) == []
    assert all(map(torch.equal, store.states(INPUTS), expected))
    assert (store.hits, store.misses) == (len(INPUTS), len(INPUTS))


def test_a_pack_is_written_when_there_is_enough_for_one(
    tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instructedit.base.store.PACK_BYTES", 4096)  # 32 tokens of 32 numbers
    expected = store_of(tiny_base, folder=tmp_path).states(INPUTS)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1  # after the longest input; the last one waits
    later = store_of(tiny_base, folder=tmp_path)
    assert later.missing(INPUTS) == INPUTS[-1:]
    assert all(map(torch.equal, later.states(INPUTS), expected))


def test_what_another_process_wrote_is_found(tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of(tiny_base, folder=tmp_path)
    store.states(INPUTS[:1])
    expected = filled(tiny_base, tmp_path)
    never_computes(tiny_base, monkeypatch)
    assert all(map(torch.equal, store.states(INPUTS), expected))
    assert (store.hits, store.misses) == (len(INPUTS), 1)


def test_a_broken_pack_is_removed_and_its_states_are_written_again(
    tiny_base: Base, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = filled(tiny_base, tmp_path)
    (file,) = tmp_path.rglob("*.safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert all(map(torch.equal, filled(tiny_base, tmp_path), expected))
    assert str(file) in caplog.text and "computed again" in caplog.text
    later = store_of(tiny_base, folder=tmp_path)
    assert all(map(torch.equal, later.states(INPUTS), expected)) and later.misses == 0


def test_what_was_read_from_a_pack_before_it_was_found_broken_is_written_again(tiny_base: Base, tmp_path: Path) -> None:
    expected = filled(tiny_base, tmp_path)
    (file,) = tmp_path.rglob("*.safetensors")
    with file.open("r+b") as opened:  # the data of a state in the middle; its neighbours are whole
        opened.seek(-40 * 32 * 4, 2)
        opened.write(bytes(32))
    assert all(map(torch.equal, filled(tiny_base, tmp_path), expected))
    assert store_of(tiny_base, folder=tmp_path).missing(INPUTS) == []


@pytest.mark.parametrize("kept", [torch.bfloat16, torch.float64])
def test_another_dtype_is_rounded_once_and_for_all(tiny_base: Base, tmp_path: Path, kept: torch.dtype) -> None:
    plain = store_of(tiny_base).states(INPUTS)
    computed = filled(tiny_base, tmp_path, dtype=kept)
    read = store_of(tiny_base, folder=tmp_path, dtype=kept)
    for state, first, again in zip(plain, computed, read.states(INPUTS), strict=True):
        assert first.dtype == kept and torch.equal(first, state.to(kept)) and torch.equal(again, first)
    assert read.misses == 0
    assert store_of(tiny_base, folder=tmp_path).missing(INPUTS) == INPUTS


def test_fill_writes_what_is_missing_and_keeps_nothing(
    tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = store_of(tiny_base, **SHAPE).states(INPUTS)
    some = store_of(tiny_base, folder=tmp_path, **SHAPE)
    some.states(INPUTS[:2])
    some.flush()
    store = store_of(tiny_base, folder=tmp_path, **SHAPE)
    assert sum(store.fill(INPUTS)) == sum(map(len, INPUTS[2:]))
    store.flush()
    assert not store._kept and (store.hits, store.misses) == (0, 0)
    never_computes(tiny_base, monkeypatch)
    assert all(map(torch.equal, store_of(tiny_base, folder=tmp_path, **SHAPE).states(INPUTS), expected))


def test_fill_ends_where_nothing_can_be_kept(tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="without a folder"):
        next(store_of(tiny_base).fill(INPUTS))
    monkeypatch.setattr("instructedit.base.store.PACK_BYTES", 1)
    with pytest.raises(InputError, match="full.*disk_gib"):
        list(store_of(tiny_base, folder=tmp_path, disk_gib=1e-6).fill(INPUTS))


def test_ranks_agree_on_the_number_of_passes(tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = tiny_base.split(2)
    shapes: list[tuple[int, ...]] = []
    asked: list[int] = []
    trunk = split.trunk
    monkeypatch.setattr(split, "trunk", lambda ids: (shapes.append(tuple(ids.shape)), trunk(ids))[1])

    def agree(own: int) -> int:
        asked.append(own)
        return 4

    store = store_of(tiny_base, folder=tmp_path, rows_per_pass=3, pad_to_tokens=8, agree=agree)
    states = store.states(INPUTS[:3])
    assert shapes == [(3, 8), (3, 16), (3, 8), (3, 8)]
    store.states(INPUTS[:3])  # nothing is missing: it runs beside the others all the same
    assert shapes[4:] == [(3, 8)] * 4 and asked == [2, 0]
    assert (store.hits, store.misses) == (3, 3)
    plain = store_of(tiny_base, rows_per_pass=3, pad_to_tokens=8)
    assert all(map(torch.equal, states, plain.states(INPUTS[:3])))


def test_nothing_is_shared_that_could_differ(tiny_base: Base, tmp_path: Path) -> None:
    filled(tiny_base, tmp_path)
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


@pytest.mark.parametrize("option", [{"rows_per_pass": 0}, {"pad_to_tokens": 0}, {"memory_mib": -1}, {"disk_gib": 0}])
def test_sizes_that_make_no_sense(tiny_base: Base, option: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        store_of(tiny_base, **option)
