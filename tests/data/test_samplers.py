"""The stream of draws: pure, exact in its shares, complete in its epochs, the same for any number of ranks."""

import subprocess
import sys
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructedit.data.samplers import MAX_PERIOD, Draw, MultiTaskSampler
from instructedit.errors import InputError

TASKS = ("convsent", "counterfact", "recent", "zsre")
SIZES = st.dictionaries(st.sampled_from(TASKS), st.integers(1, 40), min_size=1)
SEEDS = st.integers(0, 2**32)


def stream(sampler: MultiTaskSampler, slots: int) -> list[Draw]:
    return [draw for step in range(-(-slots // sampler.batch)) for draw in sampler.global_batch(step)][:slots]


@given(SIZES, st.integers(1, 4), st.integers(1, 4), st.integers(0, 10**6), SEEDS)
def test_ranks_are_disjoint_and_together_complete(
    sizes: dict[str, int], per_rank: int, world: int, step: int, seed: int
) -> None:
    sampler = MultiTaskSampler(sizes, per_rank * world, seed)
    slices = [sampler.local_batch(step, rank, world) for rank in range(world)]
    assert {len(part) for part in slices} == {per_rank}
    assert [draw for part in slices for draw in part] == sampler.global_batch(step)


@given(SIZES, st.integers(1, 8), SEEDS, st.permutations(range(12)))
def test_a_batch_depends_on_its_step_alone(sizes: dict[str, int], batch: int, seed: int, visited: list[int]) -> None:
    first = MultiTaskSampler(sizes, batch, seed)
    wandering = {step: first.global_batch(step) for step in visited}
    fresh = MultiTaskSampler(dict(reversed(sizes.items())), batch, seed)
    assert [wandering[step] for step in range(12)] == [fresh.global_batch(step) for step in range(12)]


@given(SIZES, st.integers(1, 7), SEEDS, st.integers(1, 3))
def test_every_epoch_holds_each_record_once(sizes: dict[str, int], batch: int, seed: int, epochs: int) -> None:
    sampler = MultiTaskSampler(sizes, batch, seed)
    draws = stream(sampler, epochs * max(sizes.values()) * len(sizes))
    for task, size in sizes.items():
        indices = [draw.index for draw in draws if draw.task == task]
        for epoch in range(epochs):
            assert sorted(indices[epoch * size : (epoch + 1) * size]) == list(range(size))


@given(
    st.dictionaries(st.sampled_from(TASKS), st.integers(1, 30), min_size=1),
    st.integers(1, 7),
    st.sampled_from(["equal", "proportional", "weights", "tenths"]),
)
def test_shares_are_exact_at_every_moment(numbers: dict[str, int], batch: int, balance: str) -> None:
    weights = {
        "equal": "equal",
        "proportional": "proportional",
        "weights": {task: float(number) for task, number in numbers.items()},
        "tenths": {task: number / 10 for task, number in numbers.items()},
    }[balance]
    sampler = MultiTaskSampler(numbers, batch, 0, balance=weights)  # type: ignore[arg-type]
    shares = {task: Fraction(1 if balance == "equal" else number) for task, number in numbers.items()}
    total = sum(shares.values())
    draws = stream(sampler, 3 * int(total))
    seen: Counter[str] = Counter()
    for slot, draw in enumerate(draws, start=1):
        seen[draw.task] += 1
        assert all(abs(seen[task] - slot * share / total) < 1 for task, share in shares.items())
    assert seen == {task: 3 * share for task, share in shares.items()}
    assert sampler.shares == pytest.approx({task: float(share / total) for task, share in shares.items()})


@pytest.mark.slow
@given(st.dictionaries(st.sampled_from(TASKS), st.integers(1, 10**7), min_size=1), st.floats(0.5, 100))
def test_temperature_shares(sizes: dict[str, int], temperature: float) -> None:
    sampler = MultiTaskSampler(sizes, 4, 0, balance="temperature", temperature=temperature)
    powers = {task: size ** (1 / temperature) for task, size in sizes.items()}
    wanted = {task: power / sum(powers.values()) for task, power in powers.items()}
    assert sampler.shares == pytest.approx(wanted, abs=3 / MAX_PERIOD)
    assert min(sampler.shares.values()) > 0


def test_temperature_lies_between_proportional_and_equal() -> None:
    sizes = {"convsent": 14390, "recent": 570}
    share = [
        MultiTaskSampler(sizes, 8, 0, balance=balance, temperature=3.0).shares["recent"]  # type: ignore[arg-type]
        for balance in ("proportional", "temperature", "equal")
    ]
    assert share[0] < share[1] < share[2] == 0.5
    assert MultiTaskSampler(sizes, 8, 0, "temperature", temperature=1.0).shares["recent"] == pytest.approx(
        share[0], abs=1e-4
    )


@given(st.integers(2, 40), st.data(), SEEDS)
def test_a_cap_uses_one_subset_whatever_the_seed(size: int, data: st.DataObject, seed: int) -> None:
    cap = data.draw(st.integers(1, size - 1))
    subsets = []
    for number in (seed, seed + 1):
        sampler = MultiTaskSampler({"convsent": size, "recent": 3}, 2, number, caps={"convsent": cap})
        draws = [draw.index for draw in stream(sampler, 4 * cap) if draw.task == "convsent"]
        assert Counter(draws) == dict.fromkeys(draws, 2)
        assert len(set(draws)) == cap
        assert max(draws) < size
        subsets.append(set(draws))
    assert subsets[0] == subsets[1]


def test_a_cap_counts_as_the_size_and_a_wide_one_changes_nothing() -> None:
    sizes = {"convsent": 14390, "recent": 1427}
    capped = MultiTaskSampler(sizes, 8, 0, balance="proportional", caps={"convsent": 1427})
    assert capped.shares == {"convsent": 0.5, "recent": 0.5}
    wide = MultiTaskSampler(sizes, 8, 0, caps={"convsent": 10**6})
    plain = MultiTaskSampler(sizes, 8, 0)
    assert wide.global_batch(5) == plain.global_batch(5)
    assert wide.fingerprint == plain.fingerprint


@given(SIZES, st.integers(1, 6), st.integers(1, 6), SEEDS)
def test_the_stream_does_not_depend_on_the_batch_size(sizes: dict[str, int], one: int, two: int, seed: int) -> None:
    assert stream(MultiTaskSampler(sizes, one, seed), 30) == stream(MultiTaskSampler(sizes, two, seed), 30)


def test_seeds_and_epochs_differ() -> None:
    draws = stream(MultiTaskSampler({"recent": 50}, 10, seed=0), 100)
    first, second = ([draw.index for draw in draws[start : start + 50]] for start in (0, 50))
    assert first != second
    assert first != list(range(50))
    assert first != [draw.index for draw in stream(MultiTaskSampler({"recent": 50}, 10, seed=1), 50)]
    seeds = {draw.seed for draw in draws}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_fingerprint_tells_every_deciding_argument() -> None:
    sizes = {"convsent": 20, "recent": 10}
    samplers = [
        MultiTaskSampler(sizes, 4, 0),
        MultiTaskSampler(sizes, 8, 0),
        MultiTaskSampler(sizes, 4, 1),
        MultiTaskSampler({**sizes, "recent": 11}, 4, 0),
        MultiTaskSampler(sizes, 4, 0, balance="proportional"),
        MultiTaskSampler(sizes, 4, 0, balance={"convsent": 3, "recent": 1}),
        MultiTaskSampler(sizes, 4, 0, caps={"convsent": 19}),
        MultiTaskSampler({"convsent": 20}, 4, 0),
    ]
    assert len({sampler.fingerprint for sampler in samplers}) == len(samplers)
    assert MultiTaskSampler({"recent": 10, "convsent": 20}, 4, 0).fingerprint == samplers[0].fingerprint


def test_draws_are_pinned_and_the_same_in_another_process() -> None:
    # A checkpoint is resumed by later versions: these numbers may never change.
    code = (
        "from instructedit.data.samplers import MultiTaskSampler as S;"
        "print([(d.task, d.index, d.seed) for d in S({'recent': 7, 'zsre': 1000}, 4, 3).global_batch(11)])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    batch = MultiTaskSampler({"recent": 7, "zsre": 1000}, 4, 3).global_batch(11)
    assert output.strip() == str([(draw.task, draw.index, draw.seed) for draw in batch])
    assert batch == [
        Draw("recent", 1, 5494352105332566836),
        Draw("zsre", 922, 8780861893697343955),
        Draw("recent", 5, 125472657658131153),
        Draw("zsre", 852, 1262682975398204589),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sizes": {}}, "no task to draw from"),
        ({"sizes": {"recent": 0}}, "Task 'recent' has 0 records"),
        ({"batch": 0}, "The global batch is 0"),
        ({"balance": "even"}, "Unknown balance 'even'"),
        ({"balance": {"recent": 1.0}}, "Task 'zsre' has weight 0.0"),
        ({"balance": {"recent": 1.0, "zsre": -1.0}}, "weight -1.0"),
        ({"balance": {"recent": 1.0, "zsre": float("nan")}}, "weight nan"),
        ({"balance": {"recent": 1.0, "zsre": 1.0, "zrse": 1.0}}, "Did you mean 'zsre'"),
        ({"balance": "temperature", "temperature": 0.0}, "temperature is 0.0"),
        ({"caps": {"recent": 0}}, "cap of task 'recent' is 0"),
        ({"caps": {"rcent": 5}}, "Did you mean 'recent'"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message.replace("[", r"\[")):
        MultiTaskSampler(**{"sizes": {"recent": 5, "zsre": 5}, "batch": 4, "seed": 0, **arguments})  # type: ignore[arg-type]


def test_impossible_ranks_and_steps_are_refused() -> None:
    sampler = MultiTaskSampler({"recent": 5}, 4, 0)
    with pytest.raises(InputError, match="4 cannot be shared equally by 3 ranks"):
        sampler.local_batch(0, 0, 3)
    with pytest.raises(InputError, match="cannot be shared equally by 0 ranks"):
        sampler.local_batch(0, 0, 0)
    for rank in (-1, 2):
        with pytest.raises(InputError, match=f"Rank {rank} does not exist"):
            sampler.local_batch(0, rank, 2)
    with pytest.raises(InputError, match="Step -1"):
        sampler.global_batch(-1)
