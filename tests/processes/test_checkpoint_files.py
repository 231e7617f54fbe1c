"""What a checkpoint file holds, how large it is, and what happens when it is broken."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.lightning_modules.conftest import saved
from tests.processes.conftest import Place, last


@pytest.fixture(scope="module")
def tied_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaMA-shaped base whose head is its embedding, large against the hypernetwork."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_hidden_layers": 4}
    config = LlamaConfig(vocab_size=4096, tie_word_embeddings=True, max_position_embeddings=256, **sizes)
    return saved(LlamaForCausalLM(config), tmp_path_factory.mktemp("tied") / "tied-llama")


@pytest.mark.parametrize(
    ("strategy", "most"),
    [
        pytest.param("ddp", 3.1, marks=pytest.mark.slow),
        pytest.param("fsdp2", 3.1, marks=pytest.mark.long),
        *(pytest.param(name, 4.1, marks=pytest.mark.deepspeed) for name in ("zero_1", "zero_2", "zero_3")),
    ],
)
def test_a_file_is_three_times_the_hypernetwork_and_holds_nothing_of_the_base(
    strategy: str, most: float, place: Place, tied_folder: Path
) -> None:
    place.base = tied_folder
    flags = ("--model.placement", "sharded") if strategy == "zero_3" else ()
    steps = {"trainer__max_steps": 2, "validation__every_n_steps": 2, "model__editor": {"rank": 192}}
    place.start("run", strategy, 2, *flags, **steps).succeeds()
    content = last(place.path("run"))
    learned = {name: value for name, value in content["state_dict"].items() if ".moments." not in name}
    size = sum(value.nbytes for value in learned.values())
    found = (place.path("run") / "checkpoints" / "last.ckpt").stat().st_size
    print(f"{strategy}: {found / size:.3f} x the hypernetwork of {size / 2**20:.1f} MiB")
    assert 3.0 <= found / size <= most
    assert all(name.startswith("editor.") for name in content["state_dict"])
    parameters = sum(len(group["params"]) for group in content["optimizer_states"][0]["param_groups"])
    assert parameters == len(learned)
    base = 4096 * 64 * 4
    assert size > base  # a base's embedding would be seen in the size
    assert not any(value.numel() == 4096 * 64 for value in content["state_dict"].values())


def cut_to(share: float) -> Callable[[Path], None]:
    def cut(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return cut


def flip_at(share: float) -> Callable[[Path], None]:
    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[int(len(content) * share)] ^= 0x10
        path.write_bytes(content)

    return flip


BREAKS: dict[str, Callable[[Path], None]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b"") and None,
    "half": cut_to(0.5),
    "one byte less": lambda path: path.write_bytes(path.read_bytes()[:-1]) and None,
    "text": lambda path: path.write_text("not a checkpoint") and None,
    "another file": lambda path: torch.save({"weights": torch.ones(3)}, path),
    **{f"a bit at {share}": flip_at(share) for share in (0.2, 0.5, 0.8)},
}


@pytest.mark.long
@pytest.mark.parametrize(("strategy", "ranks"), [("auto", 1), ("ddp", 2)])
def test_a_broken_newest_file_never_stops_a_run(strategy: str, ranks: int, place: Place) -> None:
    steps = {"trainer__max_steps": 8, "validation__every_n_steps": 8, "checkpoint__every_n_steps": 3}
    place.start("alone", strategy, ranks, **steps).succeeds()
    whole = last(place.path("alone"))["state_dict"]
    for name, damage in BREAKS.items():
        path = place.path("broken")
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(place.path("alone"), path)
        file = path / "checkpoints" / "last.ckpt"
        damage(file)
        job = place.start("broken", strategy, ranks, **steps).succeeds()
        said = job.output()
        fell_back = "going on at step 6 from" in said
        # A bit in the padding between two entries is no damage.
        assert fell_back or (name.startswith("a bit") and "going on at step 8 from" in said), (name, said)
        assert name == "missing" or not fell_back or f"{file} cannot be read" in said, (name, said)
        now = last(path)["state_dict"]
        assert all(torch.equal(now[key], value) for key, value in whole.items()), name


@pytest.mark.long
def test_no_readable_file_is_told_with_a_remedy_and_nothing_is_lost(place: Place) -> None:
    steps = {"trainer__max_steps": 4, "validation__every_n_steps": 4}
    place.start("run", "ddp", 2, **steps).succeeds()
    folder = place.path("run") / "checkpoints"
    for path in folder.glob("*.ckpt"):
        path.write_bytes(path.read_bytes()[:1000])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    job = place.start("run", "ddp", 2, **steps)
    assert job.wait(60) == [2, 2]
    assert f"error: No checkpoint in {folder} can be read. Remove the folder" in job.output()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
