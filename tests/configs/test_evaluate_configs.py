"""Every YAML under configs/evaluate/: parsed by the command's own parser, planned and built on a tiny base."""

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonargparse import ArgumentParser

from instructedit import cli
from instructedit.base import Base
from instructedit.checkpoints import EditorCard, save_editor
from instructedit.commands.evaluate import evaluate
from instructedit.evaluation.paper import PAPER_BASES
from instructedit.evaluation.plan import MethodRow, Settings, make_rows
from instructedit.hypernet.ke import KEConfig
from instructedit.hypernet.kinds import make_editor
from instructedit.instructions.pools import load_pools, pool_for
from instructedit.methods import TRAINED, build_method
from instructedit.tasks import TASKS
from tests.core import editor_on

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs" / "evaluate").glob("*.yaml"))
OWN_KEYS = set(Settings.__dataclass_fields__)


def parsed(config: Path) -> dict[str, Any]:
    """What the command is called with; an unknown key or a wrong type raises."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_function_arguments(evaluate, as_positional=False)
    found: dict[str, Any] = parser.instantiate(parser.parse_args(["--config", str(config)])).as_dict()
    return found


def editor_folder(kind: str, base: Base, folder: Path) -> str:
    """A new editor of the kind that a method asks for."""
    editor, _ = editor_on(base)
    pools = load_pools() if kind == "instructedit" else None
    made = make_editor(base, editor.sites, KEConfig()) if kind == "ke" else editor
    save_editor(folder / kind, made, EditorCard.of(made, base, tasks=["recent"], pools=pools))
    return str(folder / kind)


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_it_is_parsed_planned_and_built(config: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    called = parsed(config)
    family = "gpt2" if "gpt2" in called["base"] else "llama"
    base: Base = request.getfixturevalue(f"tiny_{family}_base")
    methods = []
    for source in called["methods"]:
        assert isinstance(source, MethodRow)
        editor = editor_folder(source.method, base, tmp_path) if source.method in TRAINED else None
        methods.append(replace(source, editor=editor))
    settings = Settings(
        **{key: value for key, value in called.items() if key in OWN_KEYS - {"methods", "tasks", "held_out", "sizes"}},
        tasks=tuple(called["tasks"]),
        held_out=tuple(called["held_out"]),
        sizes=tuple(called["sizes"]),
        methods=tuple(methods),
    )
    names = [row.name for row in make_rows(settings)]
    assert names[0] == "Base"
    if config.stem.startswith("table3"):
        assert names[1:6] == ["FT-L", "CaliNet", "KE", "MEND", "GRACE"]
        assert names[6:] == ["InstructEdit (seen)", "InstructEdit (unseen)"]
        assert settings.held_out == ("zsre",) and called["paper"] in PAPER_BASES
    for source in settings.methods:
        # The tiny base has four blocks.
        options = source.options | ({"block": 2} if "block" in source.options else {})
        method = build_method(source.method, base, source.label, options, source.editor)
        assert method.name == source.label
        assert method.stage_for(base).split.first_block <= method.first_block(base)
    assert all(pool_for(load_pools(), task) for task in settings.tasks)
    assert settings.editing == "alone" or not any((settings.records or 0) % size for size in settings.sizes)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_it_starts_with_its_command_and_says_what_it_needs(config: Path) -> None:
    first, *header = (line for line in config.read_text().splitlines() if line.startswith("#"))
    assert first == f"# instructedit evaluate --config {config.relative_to(ROOT).as_posix()}"
    settings = yaml.safe_load(config.read_text())
    assert settings["name"] == config.stem
    trained = set()
    for line in header:
        if prepare := re.search(r"instructedit prepare .*", line):
            assert set(settings["tasks"]) <= set(prepare[0].split("--tasks ")[1].split(",")) <= set(TASKS)
        if fit := re.search(r"instructedit fit .*", line):
            files = [word for word in shlex.split(fit[0]) if word.endswith(".yaml")]
            assert all((ROOT / file).is_file() for file in files)
            trained.add(f"runs/{Path(files[0]).stem}/editor")
    assert trained == {method["editor"] for method in settings["methods"] if "editor" in method}
    assert {"prepare", "fit", "evaluate"} <= set(cli.COMMANDS)


def test_numbers_in_options_arrive_as_numbers() -> None:
    called = parsed(ROOT / "configs/evaluate/table3-gpt2-xl.yaml")
    options = {source.method: source.options for source in called["methods"]}
    assert options["ft-l"]["lr"] == 0.0005 and options["ft-l"]["norm_constraint"] == 0.0005


def test_the_shipped_files_are_the_promised_ones() -> None:
    promised = {"table3-smollm2", "table3-gpt2-xl", "table3-llama-2-7b", "demo", "batch-smollm2", "sequence-smollm2"}
    assert {path.stem for path in CONFIGS} == promised
    listed = (ROOT / "configs/README.md").read_text()
    assert all(f"`{path.name}`" in listed for path in CONFIGS)
