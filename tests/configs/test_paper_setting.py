"""The paper's experiments: their settings, the numbers in their headers, and their submissions as they stand there."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonargparse import ArgumentParser

from instructedit.commands.evaluate import evaluate
from tests.benchmarks.scripts import load
from tests.commands.submit_setup import calls, prepared, slurm
from tests.lightning_modules.conftest import run

__all__ = ["slurm"]

ROOT = Path(__file__).parents[2]
BASES = ("gpt2-xl", "llama-2-7b")
METHODS = ("ke", "mend", "instructedit")
EXPERIMENTS = [f"configs/experiment/{method}-{base}.yaml" for base in BASES for method in METHODS]
TABLES = [f"configs/evaluate/table3-{base}.yaml" for base in BASES]

PUBLISHED: dict[str, dict[str, Any]] = {
    "gpt2-xl": {"model_type": "gpt2", "n_embd": 1600, "n_layer": 48, "n_head": 25, "vocab_size": 50257},
    "llama-2-7b": {"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32},
}
"""What the preflight reads of a config.json; sizes left out are their families' own."""


def settings(config: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / config).read_text()))


def base_of(config: str) -> str:
    return next(base for base in BASES if base in config)


def submission(config: str) -> list[str]:
    """The words of the one `instructedit submit` in a header."""
    (found,) = submissions([line[2:] for line in (ROOT / config).read_text().splitlines() if line.startswith("# ")])
    return found


def submissions(lines: list[str]) -> list[list[str]]:
    """The words of each `instructedit submit`, put together again where it goes over several lines."""
    found = []
    for start, line in enumerate(lines):
        if line.startswith("instructedit submit"):
            end = next(number for number in range(start, len(lines)) if not lines[number].endswith("\\"))
            found.append(shlex.split(" ".join(line.removesuffix("\\") for line in lines[start : end + 1]))[1:])
    return found


def chained(words: list[str]) -> list[list[str]]:
    """The commands of a submission."""
    commands: list[list[str]] = [[]]
    for word in words[words.index("--") + 1 :]:
        if word == "--then":
            commands.append([])
        else:
            commands[-1].append(word)
    return commands


@pytest.mark.parametrize("config", [path for path in EXPERIMENTS if "/ke-" not in path])
def test_the_settings_are_the_released_ones(config: str) -> None:
    found, llama = settings(config), "llama" in config
    model, data = found["model"], found["data"]
    assert model["editor"] == {"rank": 1920, "alpha_init": 1e-4}
    assert (model["lr"], model["alpha_lr"], model["schedule"]) == (1e-6, 1e-4, "constant")
    assert model["weights"] == {"edit": 0.1, "locality": 1.0}
    assert found["trainer"] == {"max_steps": 100_000 if llama else 30_000, "gradient_clip_val": 100.0}
    assert data["batch"] == 2
    assert data["tasks"] == ["recent", "counterfact", *([] if llama else ["convsent"])] and data["held_out"] == ["zsre"]
    assert data.get("caps") == (None if llama else {"convsent": 1427})
    matrices = ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"] if llama else ["mlp.c_fc", "mlp.c_proj"]
    assert model["sites"] == {"last_blocks": 3, "matrices": matrices}
    header = (ROOT / config).read_text().split("run:")[0]
    assert "Not run by us." in header and "Differs: validation" in header and "Not found, so ours" in header


@pytest.mark.parametrize("config", [*EXPERIMENTS, *TABLES])
def test_the_submission_names_what_the_header_is_of(config: str) -> None:
    *trainings, last = chained(submission(config))
    base, table = base_of(config), f"configs/evaluate/table3-{base_of(config)}.yaml"
    for words in trainings:
        assert words[0] == "fit" and words[3:] == ["--config", "configs/trainer/gpu.yaml"]
    trained = [words[2] for words in trainings]
    assert trained == ([path for path in EXPERIMENTS if base in path] if config in TABLES else [config])
    assert last[:3] == ["evaluate", "--config", table]
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_function_arguments(evaluate, as_positional=False)
    called = parser.instantiate(parser.parse_args([last[1], str(ROOT / table), *last[3:]])).as_dict()
    methods = {source.method: source.editor for source in called["methods"]}
    editors = {
        method: f"runs/{Path(path).stem}/editor" for path in trained for method in [Path(path).stem.split("-")[0]]
    }
    assert {method: editor for method, editor in methods.items() if editor} == editors
    if config in TABLES:
        assert len(methods) == 7 and (called["name"], called["against"]) == (f"table3-{base}", "mend")
    else:
        assert list(methods) == ["none", *editors] and called["name"] == Path(config).stem
    assert called["base"] == settings(trained[0])["model"]["base"] == settings(table)["base"]


@pytest.fixture
def checkout(slurm: Path) -> Path:
    """A working directory with the configurations in it."""
    Path("configs").symlink_to(ROOT / "configs")
    return slurm


@pytest.mark.parametrize("config", [*EXPERIMENTS, *TABLES])
def test_the_submission_is_a_chain_of_scripts(config: str, checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the preflight, as the base is not on this machine."""
    command, *words = submission(config)
    assert run(command, "--dry-run", "--no-preflight", *words) == 0
    out = capsys.readouterr().out
    *trainings, last = chained(words)
    first = Path(trainings[0][2]).stem
    scripts = [f"runs/{Path(training[2]).stem}/slurm/fit.sbatch" for training in trainings]
    handed = re.findall(r"^==> sbatch (?:(--dependency=\S+) --kill-on-invalid-dep=yes )?(\S+)$", out, re.MULTILINE)
    after = "--dependency=afterok:JOB_OF_FIT"
    assert handed == [
        ("" if number == 0 else after, script)
        for number, script in enumerate([*scripts, f"runs/{first}/slurm/evaluate.sbatch"])
    ]
    assert out.count("#SBATCH --gpus-per-node=1") == out.count("#SBATCH --requeue") == len(handed)
    parts = re.split(r"^==> ", out, flags=re.MULTILINE)
    for training in trainings:
        name = Path(training[2]).stem
        (frozen,) = (part for part in parts if part.startswith(f"runs/{name}/slurm/fit.yaml\n"))
        content, wanted = yaml.safe_load(frozen.split("\n", 1)[1]), settings(training[2])
        assert content["model"] == wanted["model"] | {"dtype": "bfloat16"} and content["data"] == wanted["data"]
        where = {"accelerator": "gpu", "devices": 1, "num_nodes": 1}
        assert content["trainer"] == wanted["trainer"] | where
        (script,) = (part for part in parts if part.startswith(f"runs/{name}/slurm/fit.sbatch\n"))
        assert f"-m instructedit fit --config={Path.cwd()}/runs/{name}/slurm/fit.yaml" in script
    (script,) = (part for part in parts if part.startswith(f"runs/{first}/slurm/evaluate.sbatch\n"))
    assert f"-m instructedit evaluate --config={Path.cwd()}/runs/{first}/slurm/evaluate.yaml" in script
    assert ("--methods=" in script) == ("--methods" in last)
    assert not Path("runs").exists() and not calls(checkout)


def at_hand(base: str, words: list[str]) -> list[str]:
    """Make a base's stand-in and its tasks, and let a submission take it.

    The stand-in is a config.json with the published sizes and empty files of weights.
    """
    stand_in = Path("base")
    stand_in.mkdir()
    (stand_in / "config.json").write_text(json.dumps(PUBLISHED[base]))
    for name in ("model.safetensors", "tokenizer.json"):
        (stand_in / name).touch()
    for task in settings(f"configs/evaluate/table3-{base}.yaml")["tasks"]:
        prepared("data/prepared", task)
    command, *flags = words[: words.index("--")]
    behind: list[str] = []
    for part in chained(words):
        takes = {"fit": ["--model.base", "./base"], "evaluate": ["--base", "./base"]}
        behind += ["--then", *part, *takes.get(part[0], [])]
    return [command, "--dry-run", *flags, "--", *behind[1:]]


@pytest.mark.parametrize("config", [*EXPERIMENTS, *TABLES])
def test_the_preflight_has_nothing_against_it(config: str, checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = at_hand(base_of(config), submission(config))
    assert run(*words) == 0, capsys.readouterr().err
    assert "error" not in capsys.readouterr().err
    # It has looked: without a task's records, or with another base, it is refused.
    (Path("data/prepared") / "recent").rename("elsewhere")
    assert run(*words) == 2
    assert "recent" in capsys.readouterr().err


ON_THE_PAGE = [
    words
    for words in submissions((ROOT / "docs" / "slurm.md").read_text().splitlines())
    if any("gpt2-xl" in word for word in words)
]


@pytest.mark.parametrize("words", ON_THE_PAGE, ids=" ".join)
def test_the_preflight_has_nothing_against_the_page_on_slurm(
    words: list[str], checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*at_hand("gpt2-xl", words)) == 0, capsys.readouterr().err


def test_the_page_on_slurm_has_such_submissions() -> None:
    assert {words[words.index("--") + 1] for words in ON_THE_PAGE} == {"fit", "prepare"}


@pytest.mark.slow
def test_the_numbers_in_the_headers_are_those_of_the_script() -> None:
    headers = load("budget").headers()
    listed = (ROOT / "configs/README.md").read_text().splitlines()
    assert {path.relative_to(ROOT).as_posix() for path in headers} == {*EXPERIMENTS, *TABLES}
    for path, lines in headers.items():
        assert "\n".join(lines) + "\n# Not run by us.\n" in path.read_text(), f"{path}: run benchmarks/budget.py"
        # The page of all configurations names the memory too.
        (together,) = re.findall(r"(?:step|Adam) [\d.]+, together ([\d.]+)[.;]", " ".join(" ".join(lines).split(" # ")))
        (row,) = (line for line in listed if line.startswith(f"| `{path.name}` |"))
        assert f"| 1 GPU, {together} GB |" in row
