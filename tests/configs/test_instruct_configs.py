"""Every YAML under configs/instruct/, parsed by the command's own parser and tried on a tiny base; and the cards."""

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import ArgumentParser

from instructedit import cli
from instructedit.commands.instruct import EXPERIMENTS, instruct
from instructedit.instructions.cards import load_cards
from instructedit.instructions.pools import load_pools, pool_for
from instructedit.instructions.rendering import PLACEHOLDER
from instructedit.instructions.trial import TrialEditor, TrialRecords
from instructedit.instructions.trial_settings import TrialSettings
from instructedit.tasks import TASKS
from instructedit.tasks.prepared import write_prepared
from tests.conftest import tiny_llama
from tests.lightning_modules.conftest import example, saved

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs" / "instruct").glob("*.yaml"))


def parsed(config: Path) -> dict[str, Any]:
    """What the command is called with; an unknown key or a wrong type raises."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_function_arguments(instruct, as_positional=False)
    found: dict[str, Any] = parser.instantiate(parser.parse_args(["--config", str(config)])).as_dict()
    return found


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_it_is_parsed_and_tried(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = parsed(config)["trial"]
    assert isinstance(trial, TrialSettings) and trial.seeds > 1
    monkeypatch.setenv("INSTRUCTEDIT_CACHE", str(tmp_path / "cache"))
    base = str(saved(tiny_llama(), tmp_path / "base"))
    splits = {split: [example("recent", split, n) for n in range(12)] for split in ("train", "validation", "test")}
    write_prepared(tmp_path / "data", "recent", splits, {})  # type: ignore[arg-type]
    small = replace(trial, base=base, data=str(tmp_path / "data"), steps=1, warmup_steps=1, records=2, rank=8)
    scores, _ = TrialEditor("recent", "R", small, TrialRecords("recent", small, {})).run(["Change what is told."], 0)
    assert scores


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_its_header_says_how_it_is_run(config: Path) -> None:
    (line,) = re.findall(r"^# instructedit (instruct .*)$", config.read_text(), re.M)
    words = shlex.split(line)
    assert words[0] in cli.COMMANDS and str(config.relative_to(ROOT)) in words
    assert f"| `{config.name}` |" in (ROOT / "configs" / "README.md").read_text()


def test_every_task_has_a_card_that_fits_its_pool() -> None:
    cards, pools = load_cards(), load_pools()
    assert set(cards) == set(TASKS)
    for task, card in cards.items():
        pool = pool_for(pools, task)
        assert card.label == pool.label
        assert all(set(PLACEHOLDER.findall(text)) == set(card.placeholders) for text in pool.descriptions)


def test_the_next_command_names_what_is_there() -> None:
    assert all((ROOT / file).is_file() for file in EXPERIMENTS.values())
