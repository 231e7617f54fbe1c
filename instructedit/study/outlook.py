"""How long what is missing of a study will take, by what was done."""

import time
from collections.abc import Sequence

from instructedit.study.plan import StudyRun
from instructedit.study.results import Results


def remaining(results: Results, missing: Sequence[StudyRun]) -> float | None:
    """Estimate the seconds that missing runs take from those that are done; None where none is.

    A training is taken to last as long as the mean of its method's, or of all, and an evaluation of a row likewise.
    """
    trainings: list[tuple[str, float]] = []
    rows: list[float] = []
    for name in results.done:
        record, run = results.record(name), results.study.run(name)
        if record.get("training"):
            trainings.append((run.trained_as, float(record["training"]["seconds"])))
        rows += [sum(tasks.values()) for tasks in record["evaluation"].get("seconds", {}).values()]
    if not rows:
        return None
    total = 0.0
    for run in missing:
        total += len(results.study.rows(run)) * sum(rows) / len(rows)
        if run.trains:
            own = [took for method, took in trainings if method == run.trained_as] or [took for _, took in trainings]
            if not own:
                return None
            total += sum(own) / len(own)
    return total


def clock(seconds: float) -> str:
    """Write a duration in hours and minutes.

    >>> clock(59), clock(3700)
    ('1 min', '1 h 02 min')
    """
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def now() -> str:
    """Return the time of day, for the lines that say what was begun."""
    return time.strftime("%H:%M")
