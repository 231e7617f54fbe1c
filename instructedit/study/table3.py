"""The sections of a report that compare methods: Table 3 with seeds pooled, and InstructEdit minus MEND."""

from collections.abc import Sequence

from instructedit.evaluation.formats import to_markdown
from instructedit.evaluation.intervals import Estimate
from instructedit.evaluation.layout import Table
from instructedit.evaluation.metrics import METRICS, VARIED, named
from instructedit.evaluation.paper import PAPER_METHODS
from instructedit.evaluation.tables import Line
from instructedit.study.evidence import GENERATED, MEND, PAPER_BASE, SEEN, UNSEEN, Evidence, paper_gain
from instructedit.study.markdown import NOTHING, interval, points, table
from instructedit.study.numbers import Rows

_ORDER = (*PAPER_METHODS[:-1], SEEN, UNSEEN)
_VARIANTS = {"": "Teacher-forced", GENERATED: "By greedy generation"}

SEEDS = (
    "Rows of several seeds are means over seeds of means over records; their intervals draw records and seeds "
    "(hierarchical bootstrap, the part of the seeds widened for how few they are), of one seed records alone."
)


def table3(e: Evidence) -> str:
    """Return the table of all methods, each way it was measured, the paper's numbers on GPT2-XL beside."""
    parts = []
    for variant, title in _VARIANTS.items():
        lines = _lines(e, variant)
        if lines:
            stamp = {"base": e.numbers.study.evaluate["base"]}
            made = Table(lines, "", variant, "", PAPER_BASE, stamp, e.held_out)
            parts += [f"### {title}", to_markdown(made).strip()]
    if not parts:
        return "No run of the table is there yet."
    rows = _rows(e)
    seeds = "; ".join(f"{each.row} {len(e.numbers.done(each))} of {len(each.runs)}" for each in rows)
    return "\n\n".join([*parts, f"{SEEDS} Seeds there, of those planned: {seeds}."])


def gain_over_mend(e: Evidence) -> str:
    """Return InstructEdit minus MEND in every metric: by task, in the mean of those trained on, and held out."""
    head = [
        "metric",
        *e.within,
        "mean of trained",
        "paper, mean",
        *(f"{task} (held out)" for task in e.held_out),
        "paper, held out",
    ]
    parts = []
    for variant, title in _VARIANTS.items():
        rows = [_gains(e, metric, variant) for metric in METRICS if variant == "" or metric in VARIED]
        rows = [row for row in rows if any(cell != NOTHING for cell in row[1:-1])]
        if rows:
            parts += [f"**{title}**", table(head, rows)]
    if not parts:
        return "No seed of both is there yet."
    pairs = e.numbers.gain(e.seen, e.mend, e.within, "reliability")
    n = f"{pairs.n_seeds} seed{'s' * (pairs.n_seeds != 1)} of both" if pairs else "no seed of both"
    told = (
        f"{SEEN} minus {MEND}, record by record and seed by seed, {n}; percentage points, fluency in 0.01 bit. "
        "The mean gives each task that has the metric the same weight. [ ]: 95 % interval. The paper's: GPT2-XL, "
        "differences of Table 3, no intervals."
    )
    return "\n\n".join([*parts, told])


def _gains(e: Evidence, metric: str, variant: str) -> list[str]:
    name = named(metric, variant)
    has = e.measured(e.within, metric)
    gains = [e.numbers.gain(e.seen, e.mend, (task,), name) for task in e.within]
    mean = e.numbers.gain(e.seen, e.mend, e.within, name)
    out = [e.numbers.gain(e.seen, e.mend, (task,), name) for task in e.held_out]
    shown = variant == ""
    return [
        metric,
        *(interval(metric, gain, signed=True) for gain in gains),
        interval(metric, mean, signed=True),
        points(paper_gain(has, SEEN, MEND, metric)) if shown and has else NOTHING,
        *(interval(metric, gain, signed=True) for gain in out),
        points(paper_gain(e.held_out, SEEN, MEND, metric)) if shown and e.held_out else NOTHING,
    ]


def _lines(e: Evidence, variant: str) -> tuple[Line, ...]:
    found = []
    for task in e.tasks:
        for rows in _rows(e):
            cells = {}
            for metric in METRICS if variant == "" else VARIED:
                pooled = e.numbers.value(rows, (task,), named(metric, variant))
                if pooled is not None:
                    cells[metric] = Estimate(pooled.mean, pooled.low, pooled.high, pooled.n_records)
            if cells:
                found.append(Line(task, rows.row, max(cell.n for cell in cells.values()), cells))
    return tuple(found)


def _rows(e: Evidence) -> Sequence[Rows]:
    """The table's rows in the paper's order, those it does not know behind; controls have a section of their own."""
    aside = {f"({control})" for run in e.numbers.study.runs for control in run.controls}
    rows = [rows for rows in e.numbers.rows_of_table() if rows.row.rpartition(" ")[2] not in aside]
    return sorted(rows, key=lambda rows: _ORDER.index(rows.row) if rows.row in _ORDER else len(_ORDER))
