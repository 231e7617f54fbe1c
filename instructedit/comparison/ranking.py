"""Metrics by name: what runs have of them, which direction is better, and who comes first."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from instructedit.comparison.runs import ComparedRun
from instructedit.errors import InputError
from instructedit.evaluation.layout import scale
from instructedit.evaluation.metrics import METRICS, VARIANTS, named

DEFAULTS = ("val/score", "test/{task}/reliability", "train/loss")
"""What runs are ranked by where nobody says: the first that any of them has."""

FINAL_SHARE = 20
"""A training metric's final value is the mean of the last one part in so many of its steps."""

_LOSSES = ("loss", "edit", "unlikelihood", "locality", "grad_norm", "update_norm", "skipped_steps")
_COSTS = ("seconds", "memory", "hours", "perplexity", "nll", "kl")


@dataclass(frozen=True)
class Standing:
    """One run's place.

    Args:
        run: the run.
        value: in the metric's printed unit; None where the run has none.
        low: lower end of the value's interval, where one is known.
        high: upper end.
        place: from 1; None without a value.
        tied: whether another run has the same value as printed.
    """

    run: ComparedRun
    value: float | None
    low: float | None = None
    high: float | None = None
    place: int | None = None
    tied: bool = False


def lower_is_better(metric: str) -> bool:
    """Tell a metric's direction from its name: losses, divergences, times and memory are better lower.

    >>> lower_is_better("train/zsre/locality"), lower_is_better("val/zsre/locality")
    (True, False)
    """
    kind, last = metric.split("/", 1)[0], metric.rsplit("/", 1)[-1].lower()
    if kind == "test":
        return False
    words = last.split("_")
    return last == "loss" or any(cost in words for cost in _COSTS) or (kind == "train" and last in _LOSSES)


def names_in(runs: Sequence[ComparedRun]) -> list[str]:
    """Every metric any of the runs can be ranked by."""
    curves = dict.fromkeys(name for run in runs for name in run.curves)
    cells = dict.fromkeys(
        f"test/{'unseen/' if method == run.unseen else ''}{task}/{metric}"
        for run in runs
        for task, method, metric in run.cells
        if method in (run.row, run.unseen)
    )
    figures = [name for name in ("edits_per_second", "device_hours") if any(getattr(run, name) for run in runs)]
    return [*curves, *cells, *figures]


def choose(runs: Sequence[ComparedRun], asked: str | None) -> str:
    """The metric to rank by: the one asked for, else the first of the usual ones.

    Raises:
        InputError: no run has it, or no run has any.
    """
    names = names_in(runs)
    if not names:
        raise InputError(
            f"None of the {len(runs)} runs has metrics yet ({', '.join(run.source for run in runs[:3])}). "
            "`instructedit status` says what they are doing."
        )
    if asked is not None:
        if any(value_of(run, asked) is not None for run in runs):
            return asked
        raise _unknown(asked, names)
    tasks = [task for run in runs for task, _, _ in run.cells]
    usual = [name.format(task=tasks[0] if tasks else "") for name in DEFAULTS]
    return next((name for name in usual if any(value_of(run, name) is not None for run in runs)), names[0])


def _unknown(asked: str, names: Sequence[str]) -> InputError:
    """Name the nearest metrics, and the plain ones: with all variants and tasks there are hundreds."""
    near = get_close_matches(asked, names, n=3)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    usual = [name for name in names if name.count("/") < 2 or name.rsplit("/", 1)[-1] in METRICS]
    usual = [name for name in usual if not (name.startswith("train/") and name.count("/") > 1)]
    more = f" and {len(names) - len(usual)} more, in compare.csv of --out" if len(names) > len(usual) else ""
    return InputError(f"No run has a value of the metric {asked!r}.{hint} Known: {', '.join(usual)}{more}.")


def value_of(run: ComparedRun, metric: str) -> tuple[float, float | None, float | None] | None:
    """A run's final value of a metric, in the unit it is printed in, and its interval; None where it has none.

    ``val/score`` is the best one and any other ``val/`` metric the one of that step; ``train/`` metrics are the mean
    of their last steps, ``throughput/`` ones the median of all; ``test/`` ones are the test table's, in percent.
    """
    if metric.startswith("test/"):
        return _tested(run, metric)
    if metric in ("edits_per_second", "device_hours"):
        value = getattr(run, metric)
        return None if value is None else (value, None, None)
    curve = run.curves.get(metric)
    if curve is None or not curve.values:
        return None
    if metric.startswith("val/"):
        best = run.best
        at = dict(zip(curve.steps, curve.values, strict=True))
        value = at.get(best[0], curve.values[-1]) if best else curve.values[-1]
    elif metric.startswith("throughput/"):
        value = sorted(curve.values)[len(curve.values) // 2]
    else:
        last = curve.values[-max(1, len(curve.values) // FINAL_SHARE) :]
        value = sum(last) / len(last)
    return value, None, None


def _tested(run: ComparedRun, metric: str) -> tuple[float, float | None, float | None] | None:
    *method, task, name = metric.split("/")[1:] if metric.count("/") > 1 else ("", "")
    row = {"": run.row, "unseen": run.unseen}.get("/".join(method), "/".join(method))
    cell = run.cells.get((task, row, name))
    if cell is None:
        return None
    by = scale(plain(name))
    low, high = (None if end is None else end * by for end in (cell.low, cell.high))
    return cell.mean * by, low, high


def plain(name: str) -> str:
    """A metric's name without its variant.

    >>> plain("locality_greedy_exact")
    'locality'
    """
    return next((metric for metric in METRICS for variant in VARIANTS if named(metric, variant) == name), name)


def variant_of(metric: str) -> str:
    """How a test metric was measured, one of ``VARIANTS``; the first one for any other metric."""
    last = metric.rsplit("/", 1)[-1]
    return last.removeprefix(plain(last)).removeprefix("_") if metric.startswith("test/") else ""


def rank(runs: Sequence[ComparedRun], metric: str) -> list[Standing]:
    """Order runs by a metric, best first; equal as printed share a place; those without a value come last."""
    values = [(run, value_of(run, metric)) for run in runs]
    shown = {run.name: float(number(found[0], metric)) for run, found in values if found}
    order = sorted(shown.values(), reverse=not lower_is_better(metric))
    standings = []
    for run, found in values:
        if found is None:
            standings.append(Standing(run, None))
        else:
            mine = shown[run.name]
            standings.append(Standing(run, *found, order.index(mine) + 1, order.count(mine) > 1))
    return sorted(standings, key=lambda standing: standing.place or len(runs) + 1)


def number(value: float, metric: str = "") -> str:
    """A metric's value as every table prints it: four digits, but one decimal for the test table's.

    >>> number(83.60031), number(0.000123456), number(123456.7), number(83.60031, "test/zsre/locality")
    ('83.60', '0.0001235', '123457', '83.6')
    """
    if metric.startswith("test/"):
        return f"{value:.1f}"
    if value == 0:
        return "0"
    return f"{value:.0f}" if 1000 <= abs(value) < 1e8 else f"{value:#.4g}"
