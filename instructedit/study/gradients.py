"""The analysis of gradients in a study: it alone needs the editors themselves, not only what came of their runs.

What lies in its folder counts where its ``run.json`` names the study's tasks and settings and, under each name and
task, the weights that the results are of; anything else is left out of the report.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from instructedit.study.plan import Study
from instructedit.study.results import Results
from instructedit.study.runner import Runner

FOLDER = "gradients"


def gradients_made(runner: Runner, figures: Path) -> bool:
    """Measure the editing gradients of the editors that the plan names, where all of them are here.

    Args:
        runner: knows the plan and where editors are.
        figures: the analyses' folder; the gradients' own is in it. What lies there of the same editors stays.

    Returns:
        Whether they lie there now, of the editors that the results are of.

    Raises:
        InputError: the analysis refuses something.
    """
    study = runner.study
    if gradients_there(study, runner.results, figures):
        return True
    named = _named(study)
    runs = {run for group in named.values() for run in group.values()}
    if not runs or not all(runner.results.has(run) and runner.trained(study.run(run)) for run in runs):
        return False
    from instructedit.commands.analyses.gradients import measure_gradients

    editors = {
        name: {task: str(runner.editor(study.run(run))) for task, run in group.items()} for name, group in named.items()
    }
    data = str(study.evaluate.get("data", "data/prepared"))
    measure_gradients(editors, data, _tasks(study), figures / FOLDER, **_settings(study))
    return gradients_there(study, runner.results, figures)


def gradients_there(study: Study, results: Results, figures: Path) -> bool:
    """Return whether the analysis that lies there is of this plan and of the editors that the results are of.

    Args:
        study: the plan.
        results: what came of it.
        figures: the analyses' folder.
    """
    named = _named(study)
    if not named or not all(results.has(run) for group in named.values() for run in group.values()):
        return False
    try:
        content = json.loads((figures / FOLDER / "run.json").read_text(encoding="utf-8"))
        weights = {folder: told["weights_sha256"] for folder, told in content["weights"].items()}
        there = {
            name: {task: weights[folder] for task, folder in folders.items()}
            for name, folders in content["editors"].items()
        }
        wanted = {
            name: {task: results.record(run)["training"]["editor"]["weights_sha256"] for task, run in group.items()}
            for name, group in named.items()
        }
        settings = {"tasks": _tasks(study), **_settings(study)}
        return there == wanted and all(content[key] == value for key, value in settings.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _named(study: Study) -> dict[str, dict[str, str]]:
    """The run of each task by the name that the plan gives its editor."""
    return {
        name: dict.fromkeys(_tasks(study), run) if isinstance(run, str) else dict(run)
        for name, run in study.analyses.get("gradients", {}).items()
    }


def _tasks(study: Study) -> list[str]:
    return list(study.gradients.get("tasks", study.tasks))


def _settings(study: Study) -> Mapping[str, Any]:
    return {key: value for key, value in study.gradients.items() if key != "tasks"}
