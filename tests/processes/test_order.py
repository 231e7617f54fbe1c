"""Global batches are the same on any number of ranks; a run that changes the number trains as if it had not."""

import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from tests.processes.conftest import Place, check_close, first_weights, last, vector

STEPS, BATCH, RECORDS = 20, 4, 16


def order(folder: Path) -> dict[int, list[str]]:
    """Per step the ids of the global batch; a step made again after a stop must have been the same."""
    parts: dict[int, dict[tuple[int, int, int], list[str]]] = defaultdict(dict)
    for path in sorted(folder.glob("order-*.jsonl")):
        for text in path.read_text().splitlines():
            line = json.loads(text)
            key = line["ranks"], line["rank"], int(path.name.split("-")[1])
            parts[line["index"]][key] = line["ids"]
    found = {}
    for step, ids in parts.items():
        # One whole batch for each number of ranks that made this step, and for each start.
        wholes: dict[int, dict[int, list[str]]] = defaultdict(dict)
        for (ranks, rank, _), own in ids.items():
            assert wholes[ranks].setdefault(rank, own) == own
        batches = {tuple(sum((of[rank] for rank in sorted(of)), [])) for n, of in wholes.items() if len(of) == n}
        assert len(batches) == 1, f"step {step} had {batches}"
        found[step] = list(batches.pop())
    return found


@pytest.mark.long
def test_one_two_and_four_ranks_and_a_change_midway_see_the_same_batches(place: Place, tmp_path: Path) -> None:
    folders = {}
    for ranks in (1, 2, 4):
        folders[str(ranks)] = tmp_path / f"order-{ranks}"
        folders[str(ranks)].mkdir()
        strategy = "ddp" if ranks > 1 else "auto"
        place.start(f"r{ranks}", strategy, ranks, patch="note_order", folder=folders[str(ranks)]).succeeds()
    changed = folders["changed"] = tmp_path / "order-changed"
    changed.mkdir()
    place.start("changed", "ddp", 2, patch="stop_at", step=7, folder=changed).succeeds()
    assert last(place.path("changed"))["global_step"] == 7
    job = place.start("changed", "auto", 1, patch="stop_at", step=6, folder=changed).succeeds()
    assert "going on at step 7 from" in job.output() and last(place.path("changed"))["global_step"] == 13
    job = place.start("changed", "ddp", 4, patch="note_order", folder=changed).succeeds()
    assert "going on at step 13 from" in job.output()
    orders = {name: order(folder) for name, folder in folders.items()}
    for name, found in orders.items():
        assert {step: found[step] for step in range(STEPS)} == {s: orders["1"][s] for s in range(STEPS)}, name
    draws = Counter(record for step in range(STEPS) for record in orders["1"][step])
    # Equal shares: each task has half of the draws, so each of its records the epochs that makes, whole and begun.
    epochs = STEPS * BATCH / 2 / RECORDS
    assert len(draws) == 2 * RECORDS and set(draws.values()) <= {int(epochs), int(epochs) + 1}
    assert sum(n for record, n in draws.items() if record.startswith("recent")) == STEPS * BATCH / 2
    one, start = last(place.path("r1")), first_weights(place.base)
    for name in ("r2", "r4", "changed"):
        other = last(place.path(name))
        assert other["optimizer_states"][0]["state"][0]["step"] == STEPS
        print(f"{name}: {check_close(one, other, start, 1e-3)}")


@pytest.mark.deepspeed
def test_a_run_goes_on_under_every_strategy_in_turn(place: Place, tmp_path: Path) -> None:
    place.start("alone").succeeds()
    turns = [("ddp", 2), ("zero_2", 2), ("auto", 1), ("zero_3", 2), ("fsdp2", 2), ("zero_1_offload", 4), ("ddp", 2)]
    for turn, (strategy, ranks) in enumerate(turns):
        patch = {"patch": "stop_at", "step": 3, "folder": tmp_path} if turn < len(turns) - 1 else {}
        job = place.start("turns", strategy, ranks, **patch).succeeds()
        begun = f"going on at step {3 * turn} from" if turn else "starting"
        assert begun in job.output(), strategy
    one, other = last(place.path("alone")), last(place.path("turns"))
    assert other["global_step"] == STEPS and other["optimizer_states"][0]["state"][0]["step"] == STEPS
    print(f"in turn: {check_close(one, other, first_weights(place.base), 1e-3)}")


@pytest.mark.deepspeed
@pytest.mark.parametrize("strategy", ["zero_3", "zero_2_offload"])
def test_a_run_of_a_cut_base_or_with_offload_goes_on_to_the_bit(strategy: str, place: Place, tmp_path: Path) -> None:
    flags = ("--model.placement", "sharded") if strategy == "zero_3" else ()
    steps = {"trainer__max_steps": 8, "validation__every_n_steps": 4}
    place.start("alone", strategy, 2, *flags, **steps).succeeds()
    place.start("stopped", strategy, 2, *flags, patch="stop_at", step=5, folder=tmp_path, **steps).succeeds()
    place.start("stopped", strategy, 2, *flags, **steps).succeeds()
    one, other = (last(place.path(name)) for name in ("alone", "stopped"))
    for part in ("state_dict", "exp_avg", "exp_avg_sq"):
        assert vector(one, part).equal(vector(other, part)), part
    files = [place.path(name) / "metrics.csv" for name in ("alone", "stopped")]
    assert files[0].read_bytes() == files[1].read_bytes()
