"""Every YAML under configs/: parsed by the real parser and built on a tiny base of its family."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from instructedit import cli as commands
from instructedit.base import Base
from instructedit.hypernet.ke import KEEditor
from instructedit.records import EditExample, EditRequest, Probe
from instructedit.tasks import TASKS
from instructedit.tasks.prepared import write_prepared
from lightning_modules.parser import EditorCLI

CONFIGS = Path(__file__).parents[2] / "configs"
EXPERIMENTS = sorted((CONFIGS / "experiment").glob("*.yaml"))
TRAINERS = sorted((CONFIGS / "trainer").glob("*.yaml"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two records of every task in every split."""
    folder = tmp_path_factory.mktemp("prepared")
    for task in TASKS:
        examples = []
        for subject in ("Oslo", "Lima"):
            slots = {"LABEL": "positive", "TOPIC": subject}
            request = EditRequest(f"The river of {subject} is", "long", f"{task} {subject}", task, subject, slots=slots)
            examples.append(EditExample(request, (Probe("locality", "One and one is", "two"),)))
        write_prepared(folder, task, {"train": examples, "validation": examples, "test": examples}, {})
    return folder


def base_for(settings: dict[str, Any], request: pytest.FixtureRequest, folder: Path) -> Path:
    family = "gpt2" if "gpt2" in settings["model"]["base"] else "llama"
    base: Base = request.getfixturevalue(f"tiny_{family}_base")
    base.model.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    return folder


COMBINED = [
    (experiment, trainer)
    for experiment in EXPERIMENTS
    for trainer in TRAINERS
    # Every experiment with the simple ones, two experiments with all.
    if trainer.stem in ("cpu", "gpu", "debug") or experiment.stem in ("instructedit-gpt2-xl", "instructedit-llama-2-7b")
]


@pytest.mark.slow
@pytest.mark.parametrize(("experiment", "trainer"), COMBINED, ids=lambda path: path.stem)
def test_it_is_parsed_and_built(
    experiment: Path, trainer: Path, prepared: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    settings = yaml.safe_load(experiment.read_text())
    argv = ["--config", str(experiment), "--config", str(trainer), "--trainer.accelerator", "cpu"]
    argv += ["--run.folder", str(tmp_path), "--data.folder", str(prepared)]
    argv += ["--model.store.folder", str(tmp_path / "states")] if "tail_only" in trainer.read_text() else []
    cli = EditorCLI("fit", [*argv, "--model.base", str(base_for(settings, request, tmp_path / "base"))])
    if trainer.stem != "debug":
        assert cli.trainer.max_steps == settings["trainer"]["max_steps"]
        assert cli.directory.path == tmp_path / experiment.stem
    cli.model.placed.check_strategy(cli.trainer.strategy, cli.model.method)
    base = cli.model.build("cpu")
    cli.datamodule.build(base, cli.model.method)
    assert {site.block for site in cli.model.editor.sites} == {1, 2, 3}
    assert len(cli.datamodule.micro(0)) == min(cli.datamodule.micro_batch or cli.datamodule.batch, cli.datamodule.batch)
    assert set(cli.datamodule.test()) == {*settings["data"]["tasks"], *settings["data"]["held_out"]}
    assert (cli.datamodule.pools is None) == (settings["model"]["method"] != "InstructEdit")
    assert isinstance(cli.model.editor, KEEditor) == (settings["model"]["method"] == "KE")


@pytest.mark.parametrize("path", [*EXPERIMENTS, CONFIGS / "trainer" / "debug.yaml"], ids=lambda path: path.stem)
def test_its_header_has_the_command(path: Path) -> None:
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    (command,) = (line.removeprefix("# ") for line in header if line.startswith("# instructedit fit "))
    words = shlex.split(command)
    files = [word for word in words if word.endswith(".yaml")]
    assert path.relative_to(CONFIGS.parent).as_posix() in files
    assert all((CONFIGS.parent / file).is_file() for file in files)
    for line in header:
        for prepare in re.findall(r"instructedit prepare .*", line):
            assert set(prepare.split("--tasks ")[1].split(",")) <= set(TASKS)
            assert "prepare" in commands.COMMANDS


def test_mend_differs_from_instructedit_in_method_and_name_only() -> None:
    pairs = [(path, path.with_name(path.name.replace("mend", "instructedit"))) for path in EXPERIMENTS]
    pairs = [(mend, other) for mend, other in pairs if mend != other and other.exists()]
    assert len(pairs) == 3
    for mend, other in pairs:
        a, b = (yaml.safe_load(path.read_text()) for path in (mend, other))
        assert (a["model"].pop("method"), b["model"].pop("method")) == ("MEND", "InstructEdit")
        assert (a.pop("run"), b.pop("run")) == ({"name": mend.stem}, {"name": other.stem})
        assert a == b


def test_ke_differs_from_mend_in_its_network_and_how_fast_it_learns() -> None:
    pairs = [
        (path, path.with_name(path.name.replace("ke-", "mend-"))) for path in EXPERIMENTS if path.stem[:3] == "ke-"
    ]
    assert len(pairs) == 3
    for ke, mend in pairs:
        a, b = (yaml.safe_load(path.read_text()) for path in (ke, mend))
        assert (a["model"].pop("method"), a.pop("run")) == ("KE", {"name": ke.stem})
        assert a["model"].keys() - {"ke"} == b["model"].keys() - {"method", "editor", "alpha_lr"}
        for part in (a, b):
            part["model"] = {key: part["model"][key] for key in ("base", "sites", "weights", "schedule")}
        assert a["trainer"].pop("max_steps") <= b["trainer"].pop("max_steps")
        assert all(a[key] == b[key] for key in ("model", "data", "trainer", "seed_everything"))


def test_zsre_is_never_trained_on() -> None:
    for path in EXPERIMENTS:
        data = yaml.safe_load(path.read_text())["data"]
        assert any("zsre" in task for task in data["held_out"])
        assert not any("zsre" in task for task in data["tasks"])
