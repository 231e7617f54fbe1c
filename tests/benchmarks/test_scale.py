import json
from pathlib import Path
from typing import Any

import pytest

from instructedit.base import Base, SiteSpec, find_sites
from instructedit.base.sizes import BaseSize, Placing, StepSize, accelerator_memory
from instructedit.hypernet.editor import EditorConfig, HyperEditor
from instructedit.hypernet.sizes import mend_size
from tests.benchmarks.scripts import last_line, load
from tests.core import gradients_of, random_batch
from tests.lightning_modules.conftest import llama_folder, prepared
from tests.processes.conftest import one_thread

__all__ = ["llama_folder", "one_thread", "prepared"]

scale = load("scale")
model = load("scale_model")
processes = load("scale_processes")

LLAMA = scale.model_of(scale.BASES["LLaMA-2-7B"])


def test_the_formula_has_the_bytes_of_the_tensors_themselves(tiny_llama_base: Base) -> None:
    from instructedit.metatrain import Stage

    sites = find_sites(tiny_llama_base, SiteSpec(last_blocks=2))
    editor = HyperEditor(sites, EditorConfig(rank=16))
    sums = editor.sums(gradients_of(editor, Stage.of(tiny_llama_base, sites[0].block), random_batch(0)))
    size = mend_size([(site.d_in, site.d_out) for site in sites], 16)
    found = {part.what: part.bytes for part in model.traffic("ddp", size, len(sites), n_tasks=3)}
    assert found["gradients"] == sum(value.nbytes for value in editor.parameters())
    assert found["moments' buffers"] == sum(value.nbytes for value in editor.buffers())
    assert found["moments' sums"] == sum(t.nbytes for s in sums for t in (s.count, s.first, s.second))


def test_a_ring_sends_almost_twice_what_is_reduced() -> None:
    part = model.Collective("gradients", "all_reduce", 1200)
    assert [part.sent(n) for n in (1, 2, 4)] == [0, 1200, 1800]
    assert model.Collective("parameters", "all_gather", 1200).sent(4) == 900


def test_time_is_bytes_over_the_slowest_link_and_hops() -> None:
    cluster = model.Cluster(node=8, intra=300, inter=50, latency=10)
    large = model.Collective("gradients", "all_reduce", 3e9)
    assert large.seconds(1, cluster) == 0
    assert large.seconds(8, cluster) == pytest.approx(2 * 7 / 8 * 3e9 / 300e9 + 2 * 7 * 10e-6)
    assert large.seconds(64, cluster) == pytest.approx(2 * 63 / 64 * 3e9 / 50e9 + 2 * 63 * 10e-6)
    small = model.Collective("flag", "all_reduce", 8)
    assert small.seconds(512, cluster) == pytest.approx(2 * 9 * 10e-6, rel=1e-3), "a tree, not a ring"


def test_operations_of_a_model_small_enough_to_count_by_hand() -> None:
    base = BaseSize(embeddings=0, trunk=0, tail=100, head=20, block=50, tail_blocks=2, width=2, inner=3, vocabulary=10)
    small = model.Model(base, [(2, 3), (2, 3)], 1, mend_size([(2, 3)], 4, 1), rank=4, n_blocks=1)
    text = model.Text(tokens=6, targets=2, inner=1, outer=3, kept=1)
    rows = 2 * 1 + 2 * 3 + 1
    tokens = 6 + 2  # of the site below the last block, and of that in it
    of_base, of_editor = small.flops(text)
    assert of_base == 2 * rows * 6 * 100 + 2 * rows * 2 * 2 * 10 + 3 * 2 * (3 * 6) * tokens * 5
    assert of_editor == 3 * 2 * tokens * (2 * 4 * 5)


@pytest.mark.parametrize("strategy", ["ddp", "zero_2"])
def test_the_least_batch_is_the_least(strategy: str) -> None:
    text, cluster = model.Text(), model.Cluster()
    least = LLAMA.least_edits(strategy, 64, 0.1, text, cluster)
    shares = [
        LLAMA.talk_seconds(strategy, 64, cluster) / LLAMA.step_seconds(strategy, 64, edits, text, cluster)
        for edits in (least - 1, least)
    ]
    assert shares[1] <= 0.1 < shares[0]


def test_the_largest_batch_fills_the_memory() -> None:
    cluster = model.Cluster(memory=40)
    most = LLAMA.most_edits("ddp", 8, model.Text(), cluster)
    used = [
        accelerator_memory(
            LLAMA.base,
            LLAMA.editor,
            Placing("replicated", "bfloat16"),
            StepSize(rows=4 * n, inner_rows=n, local_rows=2 * n),
        ).total
        for n in (most, most + 1)
    ]
    assert used[0] <= 40e9 < used[1]


def test_the_paper_part_prints_every_assumption_and_a_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    scale.main(["--no-measure", "--gpus", "1", "8", "64", "--inter", "25"])
    output = capsys.readouterr().out
    found = last_line(output)
    assert found["assumptions"]["inter"] == 25
    assert all(f"| {scale.flag(name)} |" in output for name in found["assumptions"])
    by_gpus = {row["gpus"]: row for row in found["weak"] if (row["base"], row["strategy"]) == ("GPT2-XL", "DDP")}
    assert by_gpus[1]["efficiency"] == 1 and by_gpus[1]["mb_sent"] == 0
    assert 1 > by_gpus[8]["efficiency"] > by_gpus[64]["efficiency"] > 0
    parameters = LLAMA.editor.parameters
    assert 2.3e8 < parameters < 2.4e8, "docs/placement.md: 232 million"
    assert all(row["gpus"] <= row["batch"] for row in found["strong"])


@pytest.mark.slow
def test_ddp_on_two_ranks_sends_what_the_formula_says(prepared: Path, llama_folder: Path) -> None:
    (two,) = measured("ddp", [2], prepared, llama_folder)
    check(two)
    assert {c["kind"] for c in two["collectives"]} == {"all_reduce", "broadcast"}


@pytest.mark.slow
@pytest.mark.deepspeed
def test_zero_2_on_two_ranks_sends_what_the_formula_says(prepared: Path, llama_folder: Path) -> None:
    check(measured("zero_2", [2], prepared, llama_folder)[0])


def measured(strategy: str, ranks: list[int], data: Path, base: Path) -> list[dict[str, Any]]:
    flags = {"data": data, "base": base, "rank": 64, "batch": 4, "steps": 3, "rounds": 1, "strategies": strategy}
    argv = [str(word) for name, value in flags.items() for word in (f"--{name}", value)]
    argv += ["--tasks", "recent", "convsent", "--ranks", *map(str, ranks)]
    found: list[dict[str, Any]] = processes.measure(scale.arguments(argv))
    assert json.loads(json.dumps(found)) == found
    return found


def check(found: dict[str, Any]) -> None:
    print(found)
    assert found["step_s"] > 0 and found["edits_per_second"] == pytest.approx(4 / found["step_s"])
    assert found["sent_counted"] == pytest.approx(found["sent_formula"], rel=0.01)
    for collective in found["collectives"]:
        # Flags and norms of a few bytes are in no formula.
        assert collective["bytes"] == pytest.approx(collective["formula"], rel=0.01, abs=64), collective
    # Other programs can only add to the interface's counter; where there is none it says 0.
    assert not found["loopback"] or found["loopback"] > 0.95 * found["sent_counted"]
