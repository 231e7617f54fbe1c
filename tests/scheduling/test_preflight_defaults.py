"""The defaults that the preflight knows are those of the commands."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml

from instructedit.commands.evaluate import evaluate
from instructedit.commands.prepare import prepare
from instructedit.hypernet.ke import KEConfig
from instructedit.scheduling.preflight.work import EVALUATION, KE, PREPARATION, TRAINING, Work


@pytest.mark.parametrize(("command", "known"), [(evaluate, EVALUATION), (prepare, PREPARATION)])
def test_of_typed_commands(command: Any, known: dict[str, Any]) -> None:
    parameters = inspect.signature(command).parameters
    assert {name: parameters[name].default for name in known} == known


def test_of_a_training(tmp_path: Path) -> None:
    from lightning_modules.parser import EditorCLI

    own = {"run": {"name": "a"}, "model": {"base": "b", "ke": None}, "data": {"tasks": ["c"]}}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(own))
    flags = ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.max_steps", "1"]
    cli = EditorCLI("fit", ["--config", str(tmp_path / "a.yaml"), *flags])
    config = cli.config.as_dict()
    given = {"model.base", "data.tasks", "trainer.accelerator", "trainer.devices", "trainer.max_steps"}
    parsed = cli.parser.get_defaults()
    for key in given:
        assert parsed.get(key) == TRAINING[key], key
    for key, value in TRAINING.items():
        if key not in given:
            found: Any = config
            for part in key.split("."):
                found = found[part]
            assert found == value, key
    assert {name: getattr(KEConfig(), name) for name in KE} == KE


def test_a_model_that_is_only_named_makes_no_training() -> None:
    # As `instruct` names a server's model.
    assert Work("instruct", {"task": "counterfact", "model": "gpt"}, None, False, None, 1).kind == "other"
    assert Work("push", {"model": {"base": "b"}}, None, False, None, 1).kind == "training"
