"""Reads runs of a Weights & Biases project through its API: configuration, state, history and summary.

Knows what this program logs there: metrics named as in metrics.csv by optimiser step, the resolved configuration, and
the test table's averages as ``test/<row>/<task>/<metric>``. Rows per record and intervals are not there.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from instructedit.comparison.local import facts_of
from instructedit.comparison.runs import ComparedRun, Curve, cell_of, is_number
from instructedit.comparison.settings import texts
from instructedit.comparison.wandb_access import plain, require_access
from instructedit.errors import InputError, unknown

TIMEOUT_SECONDS = 30
SAMPLES = 10_000
"""Rows of a history asked for at once; a longer one comes sampled, its validations whole."""

PROVENANCE = "provenance"
"""The section of the configuration there that tells what made the run, as run.json does here."""


def read_project(
    project: str, group: str | None = None, only: str | None = None, taken: Sequence[str] = ()
) -> list[ComparedRun]:
    """Read the runs of a project.

    Args:
        project: ``entity/project``.
        group: only this group's.
        only: only those with these settings, ``key=value`` with commas between: a setting's dotted name, or one of
            state, name, id, job_type and tag.
        taken: names that other runs have already; one of the same name gets its id behind it.

    Raises:
        InputError: there is no key, no answer, no such project, or no run is left.
    """
    if project.count("/") != 1 or not all(project.split("/")):
        raise InputError(f"--wandb is {project!r}. Give it as entity/project.")
    wanted = _conditions(only)
    try:
        import wandb
    except ModuleNotFoundError as error:
        raise InputError("--wandb needs the package wandb. Run `pip install 'instructedit[wandb]'`.") from error
    require_access()
    found = _asked(partial(_runs, wandb, project, group), project)
    kept = [run for run in found if _meets(run, wanted)]
    if not kept:
        if found and wanted:
            known = {name for run in found for name in _traits(run)}
            for name in wanted:
                if name not in known:
                    raise unknown("setting", name, known, "--filter takes dotted names such as model.lr.")
        raise InputError(
            f"No run of {project} is left{f' in the group {group!r}' if group else ''}"
            f"{f' with {only}' if only else ''}. Look at its page, or leave out --group or --filter."
        )
    made, names = [], list(taken)
    for run in kept:
        name = run.name if run.name not in names else f"{run.name} ({run.id})"
        names.append(name)
        made.append(_asked(partial(_compared, run, name, project), project))
    return made


def _asked(ask: Callable[[], Any], project: str) -> Any:
    """Ask, and tell in one line, without the key, what came of it."""
    import wandb

    try:
        return ask()
    except wandb.errors.AuthenticationError as error:
        raise InputError(
            f"Weights & Biases did not accept the key: {plain(error)}. Run `wandb login`, or set WANDB_API_KEY."
        ) from error
    except (wandb.errors.Error, OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"Weights & Biases told nothing of {project}: {plain(error)}. Check the name, the network and the access."
        ) from error


def _runs(wandb: Any, project: str, group: str | None) -> list[Any]:
    api = wandb.Api(timeout=TIMEOUT_SECONDS)
    return list(api.runs(project, filters={"group": group} if group else {}, lazy=False, per_page=100))


def _conditions(only: str | None) -> dict[str, str]:
    wanted = {}
    for part in (only or "").split(","):
        name, equals, value = part.partition("=")
        if part.strip():
            if not equals or not name.strip():
                raise InputError(f"--filter is {only!r}. Give it as key=value, several with commas between.")
            wanted[name.strip()] = value.strip()
    return wanted


def _traits(run: Any) -> dict[str, str]:
    """What a run can be chosen by."""
    own = {"state": run.state, "name": run.name, "id": run.id, "job_type": run.job_type or "", "tag": ""}
    return own | texts(run.config)


def _meets(run: Any, wanted: Mapping[str, str]) -> bool:
    traits = _traits(run)
    return all(
        value in (run.tags or ()) if name == "tag" else _same(traits.get(name), value) for name, value in wanted.items()
    )


def _same(found: str | None, wanted: str) -> bool:
    """Whether two texts mean the same, numbers by their value."""
    if found is None or found == wanted:
        return found is not None
    try:
        return float(found) == float(wanted)
    except ValueError:
        return False


def _compared(run: Any, name: str, project: str) -> ComparedRun:
    config = dict(run.config)
    made = config.pop(PROVENANCE, None)
    settings = texts(config)
    summary = {str(key): value for key, value in dict(run.summary_metrics or {}).items()}
    rows = _history(run)
    curves = _curves(rows)
    steps = [row["_step"] for row in rows if is_number(row.get("_step"))]
    notes = []
    if len(rows) >= SAMPLES:
        notes.append(f"{name}: its curves are {SAMPLES} sampled rows of Weights & Biases; validations are whole.")
    rate = curves.get("throughput/edits_per_second")
    hours = summary.get("gpu_hours")
    limit = settings.get("trainer.max_steps", "")
    return ComparedRun(
        name=name,
        source=f"{project}/{run.id}",
        settings=settings,
        facts=_facts(made if isinstance(made, dict) else {}),
        state={"finished": "done"}.get(run.state, run.state),
        step=int(max(steps)) if steps else None,
        max_steps=int(limit) if limit.isdecimal() else None,
        edits_per_second=rate.values[-1] if rate else None,
        device_hours=float(hours) if is_number(hours) else None,
        curves=curves,
        cells=dict(filter(None, (cell_of(key, value) for key, value in summary.items()))),
        notes=tuple(notes),
    )


def _facts(made: Mapping[str, Any]) -> dict[str, str]:
    """As ``facts_of``; the single starts tell their commit alone there."""
    code = {key: made[key] for key in ("commit", "dirty", "versions") if key in made}
    starts = [start for start in made.get("starts") or [] if isinstance(start, dict) and "commit" in start]
    record = {"starts": [*starts, code]} if code else {}
    return facts_of(
        record | {"fingerprint": made.get("base_fingerprint"), "data_sha256": made.get("data_sha256") or {}}
    )


def _history(run: Any) -> list[dict[str, Any]]:
    """The rows of a run by step; of a long one a sample, and all that validation told."""
    rows = list(run.history(samples=SAMPLES, pandas=False))
    if len(rows) >= SAMPLES:
        told = sorted({key for row in rows for key in row if key.startswith("val/")})
        rows += run.history(samples=SAMPLES, pandas=False, keys=told) if told else []
    return sorted((row for row in rows if is_number(row.get("_step"))), key=lambda row: row["_step"])


def _curves(rows: Sequence[Mapping[str, Any]]) -> dict[str, Curve]:
    """Curves by name; the later one of two values of a step counts."""
    values: dict[str, dict[int, float]] = {}
    for row in rows:
        for key, value in row.items():
            if not key.startswith("_") and key != "step" and is_number(value):
                values.setdefault(key, {})[int(row["_step"])] = float(value)
    return {name: Curve(list(found), list(found.values())) for name, found in values.items()}
