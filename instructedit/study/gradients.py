"""The analysis of gradients in a study: it alone needs the editors themselves, not only what came of their runs."""

import json
from pathlib import Path

from instructedit.study.runner import Runner


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
    parts, results = runner.study.analyses.get("gradients"), runner.results
    if not parts:
        return False
    named = {name: {"": run} if isinstance(run, str) else dict(run) for name, run in parts.items()}
    runs = sorted({run for group in named.values() for run in group.values()})
    if not all(results.has(run) for run in runs):
        return False
    wanted = {results.record(run)["training"]["editor"]["weights_sha256"] for run in runs}
    out = figures / "gradients"
    if wanted == _measured(out):
        return True
    if not all(runner.trained(runner.study.run(run)) for run in runs):
        return False
    from instructedit.commands.analyses.gradients import measure_gradients

    tasks = list(runner.study.gradients.get("tasks", runner.study.tasks))
    settings = {key: value for key, value in runner.study.gradients.items() if key != "tasks"}

    def folder(run: str) -> str:
        return str(runner.editor(runner.study.run(run)))

    editors = {
        name: {task: folder(group[""]) for task in tasks} if "" in group else {t: folder(r) for t, r in group.items()}
        for name, group in named.items()
    }
    measure_gradients(editors, str(runner.study.evaluate.get("data", "data/prepared")), tasks, out, **settings)
    return wanted == _measured(out)


def _measured(folder: Path) -> set[str]:
    """The editors that the analysis in a folder is of, by the SHA-256 of their weights; none without one."""
    try:
        content = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        return {told["weights_sha256"] for told in content["weights"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()
