"""What a comparison shows: one table per question, the same in the terminal, in Markdown and on the page.

Knows what stands in the tables, not what they look like.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from instructedit.comparison.pairs import Pairs
from instructedit.comparison.ranking import Standing, lower_is_better, number, plain
from instructedit.comparison.runs import BASE, Cell, ComparedRun
from instructedit.comparison.settings import SEEDS, differing, seed_groups
from instructedit.evaluation.layout import printed, scale
from instructedit.evaluation.metrics import METRICS, named
from instructedit.evaluation.report import TITLES

WIDE = 5
"""With more runs than this a table has them as rows wherever it can."""

INTERVALS = "[ ]: 95 % interval, percentile bootstrap over records; n: records, (n) where a cell has fewer."


@dataclass(frozen=True)
class Text:
    """What stands in one place of a table.

    Args:
        value: the text.
        under: more of it, in small letters or on the next line.
        strong: whether it is the best.
        run: the run it names, for its colour.
        faint: whether it is there for reference only.
    """

    value: str
    under: str = ""
    strong: bool = False
    run: str = ""
    faint: bool = False


@dataclass(frozen=True)
class Section:
    """One table.

    Args:
        title: what stands above.
        head: the columns' names.
        rows: as wide as the head.
        left: how many columns, from the first on, are texts; the others are numbers.
        notes: sentences below.
        runs: the run that a column is of, by column, for its colour.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Text, ...], ...]
    left: int = 1
    notes: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()


def ranking(standings: Sequence[Standing], metric: str) -> Section:
    """Who is best, and how far each run is."""
    better = "lower" if lower_is_better(metric) else "higher"
    score = metric == "val/score"
    figures = (*(() if score else ("best val/score",)), "last val/score")
    head = ("#", "run", "state", metric, *figures, "step", "edits/s", "device h")
    rows = []
    for standing in standings:
        run = standing.run
        place = "-" if standing.place is None else f"{standing.place}{'=' if standing.tied else ''}"
        value = Text("-")
        if standing.value is not None:
            ends = [end for end in (standing.low, standing.high) if end is not None]
            under = f"[{', '.join(number(end, metric) for end in ends)}]" if ends else ""
            under = f"step {run.best[0]}" if score and run.best else under
            value = Text(number(standing.value, metric), under, strong=standing.place == 1)
        scores = run.curves.get("val/score")
        best = Text(number(run.best[1]), f"step {run.best[0]}") if run.best else Text("-")
        rows.append(
            (
                Text(place),
                Text(run.name, run=run.name),
                Text(run.state or "-"),
                value,
                *(() if score else (best,)),
                Text(number(scores.values[-1])) if scores and scores.values else Text("-"),
                Text("-" if run.step is None else f"{run.step}/{run.max_steps}" if run.max_steps else str(run.step)),
                Text("-" if run.edits_per_second is None else f"{run.edits_per_second:.1f}"),
                Text("-" if run.device_hours is None else f"{run.device_hours:.2f}"),
            )
        )
    tied = " =: equal as printed." if any(standing.tied for standing in standings) else ""
    missing = [standing.run.name for standing in standings if standing.place is None]
    notes = [f"Ranked by {metric}: {_meaning(metric)}; {better} is better.{tied}"]
    notes += [f"No value of it, so not ranked: {', '.join(missing)}."] if missing else []
    return Section("Ranking", head, tuple(rows), 3, tuple(notes))


def _meaning(metric: str) -> str:
    if metric == "val/score":
        return "the best one of the run, the score that chooses its editor"
    if metric.startswith("val/"):
        return "at the step of the best val/score"
    if metric.startswith("test/"):
        return "of the test table, in percent" if plain(metric.rsplit("/", 1)[-1]) != "fluency" else "of the test table"
    if metric.startswith("throughput/"):
        return "the median of the run"
    return "the mean of its last steps" if metric.startswith("train/") else "as the run last told it"


def settings(runs: Sequence[ComparedRun]) -> Section | None:
    """The settings and facts in which runs differ; None for one run."""
    if len(runs) < 2:
        return None
    found = differing(runs)
    rows = tuple((Text(name), *(Text(text) for text in texts)) for name, texts in found.items())
    notes = ["Only what differs; names and places of runs left out. -: not set; ?: not known."]
    if not found:
        notes = ["All settings, code, data and versions are the same."]
    unknown = [run.name for run in runs if not run.settings]
    notes += [f"No configuration known: {', '.join(unknown)}."] if unknown else []
    names = tuple(run.name for run in runs)
    if len(runs) > WIDE and 0 < len(found) <= WIDE:
        lines = tuple(
            (Text(run.name, run=run.name), *(Text(v[i]) for v in found.values())) for i, run in enumerate(runs)
        )
        return Section("Settings that differ", ("run", *found), lines, 1 + len(found), tuple(notes))
    return Section("Settings that differ", ("setting", *names), rows, 1 + len(runs), tuple(notes), ("", *names))


def finals(runs: Sequence[ComparedRun], variant: str, unseen: bool = True) -> Section | None:
    """The test tables side by side: per task a line for every run; None where no run has that variant."""
    tasks = list(dict.fromkeys(task for run in runs for task, _, _ in run.cells))
    metrics = [
        metric
        for metric in METRICS
        if any(key[2] == named(metric, variant) for run in runs for key in run.cells)
        if not variant or named(metric, variant) != metric
    ]
    if not metrics:
        return None
    rows: list[tuple[Text, ...]] = []
    for task in tasks:
        lines = [(run, run.row, run.name) for run in runs if run.row]
        lines += [(run, run.unseen, f"{run.name} (unseen)") for run in runs if run.unseen and unseen]
        cells = [[run.cells.get((task, row, named(metric, variant))) for metric in metrics] for run, row, _ in lines]
        best = [_best(metric, [row[i] for row, (run, _, n) in zip(cells, lines, strict=True) if n == run.name])
                for i, metric in enumerate(metrics)]  # fmt: skip
        base = _base(runs, task, variant, metrics)
        if base:
            rows.append((Text(task), Text(BASE, faint=True), *base))
        for (run, _, label), row in zip(lines, cells, strict=True):
            n = max((cell.n or 0 for cell in row if cell), default=0)
            shown = [
                _cell(metric, cell, n, label == run.name and cell is not None and printed(metric, cell.mean) == top)
                for metric, cell, top in zip(metrics, row, best, strict=True)
            ]
            blank = Text("", faint=True)
            rows.append((Text(task), Text(label, run=run.name), Text(str(n)) if n else blank, *shown))
    notes = [
        "Percent, " + ("higher is better; " if "fluency" not in metrics else "fluency in 0.01 bit; ") + INTERVALS,
        "Bold: the best run of a task, as printed. -: not measured.",
    ]
    if any(run.unseen for run in runs):
        told = "(unseen): with instructions that training did not have; the others with those it had."
        notes.append(
            told if unseen else "With instructions that training had; rows with unseen ones: the files of --out."
        )
    if any(cell.low is None for run in runs for cell in run.cells.values()):
        notes.append("Numbers without an interval come from a summary that holds none.")
    title = f"Test: {TITLES[variant][0].lower()}{TITLES[variant][1:]}"
    return Section(title, ("task", "run", "n", *metrics), tuple(rows), 2, tuple(notes))


def _best(metric: str, cells: Sequence[Cell | None]) -> str | None:
    """The highest value as printed, where two runs or more have one."""
    had = [printed(metric, cell.mean) for cell in cells if cell]
    return max(had, key=float) if len(had) > 1 else None


def _base(runs: Sequence[ComparedRun], task: str, variant: str, metrics: Sequence[str]) -> tuple[Text, ...] | None:
    """The unedited base's line, where all runs that have one agree on it."""
    lines = [[run.cells.get((task, BASE, named(metric, variant))) for metric in metrics] for run in runs]
    lines = [line for line in lines if any(line)]
    shown = [
        tuple(cell and printed(metric, cell.mean) for cell, metric in zip(line, metrics, strict=True)) for line in lines
    ]
    if len(set(shown)) != 1:
        return None
    n = max((cell.n or 0 for cell in lines[0] if cell), default=0)
    texts = [_cell(metric, cell, n) for metric, cell in zip(metrics, lines[0], strict=True)]
    return (Text(str(n) if n else "", faint=True), *(Text(text.value, text.under, faint=True) for text in texts))


def _cell(metric: str, cell: Cell | None, n: int, strong: bool = False) -> Text:
    if cell is None:
        return Text("-")
    under = (
        "" if cell.low is None or cell.high is None else f"[{printed(metric, cell.low)}, {printed(metric, cell.high)}]"
    )
    fewer = f" ({cell.n})" if cell.n and cell.n != n else ""
    return Text(printed(metric, cell.mean), under + fewer, strong)


def seeds(runs: Sequence[ComparedRun]) -> Section | None:
    """Mean and spread of runs that differ in the seed only; None where there are none."""
    groups = seed_groups(runs)
    if not groups:
        return None
    rows = []
    metrics = [
        m for m in METRICS if any(key[1:] == (run.row, m) for group in groups for run in group for key in run.cells)
    ]
    for group in groups:
        names = Text(", ".join(run.name for run in group))
        scores = _spread([run.best[1] for run in group if run.best], len(group))
        tasks = list(dict.fromkeys(task for run in group for task, _, _ in run.cells))
        for task in tasks or ["-"]:
            row = [names, Text(task), Text(str(len(group))), scores if task in (*tasks[:1], "-") else Text("")]
            for metric in metrics:
                cells = [run.cells.get((task, run.row, metric)) for run in group]
                row.append(_spread([cell.mean * scale(metric) for cell in cells if cell], len(group)))
            rows.append(tuple(row))
    told = (
        f"Runs whose settings are the same but for {' and '.join(SEEDS)}. Mean ± standard deviation over seeds "
        "(n - 1); (n) where fewer runs have it. val/score: the best one of each run."
    )
    return Section("Over seeds", ("runs", "task", "seeds", "val/score", *metrics), tuple(rows), 2, (told,))


def _spread(values: Sequence[float], runs: int) -> Text:
    if not values:
        return Text("-")
    deviation = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    return Text(f"{mean(values):.1f}{deviation}", f"({len(values)})" if len(values) < runs else "")


def paired(pairs: Pairs, most: int | None = None) -> Section | None:
    """The paired test, or what it says where there is none; None where nothing can be said.

    Args:
        pairs: what was found.
        most: from so many cells on, only those that differ significantly.
    """
    if not pairs.cells:
        return Section("Paired test", (), (), 0, pairs.notes) if pairs.notes else None
    shown, notes = pairs.cells, []
    if most is not None and len(pairs.cells) > most:
        shown = tuple(cell for cell in pairs.cells if cell.verdict == "yes")
        notes.append(
            f"{len(shown)} of {len(pairs.cells)} cells differ significantly; the others are in the files of --out."
        )
    rows = []
    for cell in shown:
        found = cell.estimate
        ends = f"[{_signed(cell.metric, found.low)}, {_signed(cell.metric, found.high)}]"
        values = (str(found.n), _p(found.p), _p(cell.p_holm), cell.verdict)
        difference = Text(_signed(cell.metric, found.mean), ends, strong=cell.verdict == "yes")
        rows.append(
            (Text(cell.task), Text(cell.method, run=cell.method), Text(cell.metric), difference, *map(Text, values))
        )
    notes += [
        f"Mean over the n records that both have of the run minus {pairs.against}, in percentage points (fluency: "
        "0.01 bit). [ ]: 95 % bootstrap interval. p: two-sided sign-flip permutation test; Holm p: corrected for the "
        f"{len(pairs.cells)} cells. yes: the interval excludes 0 and Holm p is below 0.05; alone: the interval only.",
        *pairs.notes,
    ]
    head = ("task", "run", "metric", "difference", "n", "p", "Holm p", "significant")
    return Section(f"Paired test against {pairs.against}", head, tuple(rows), 3, tuple(notes))


def _signed(metric: str, value: float) -> str:
    text = printed(metric, value)
    return text.removeprefix("-") if float(text) == 0 else text if value < 0 else f"+{text}"


def _p(value: float) -> str:
    return f"{value:.4f}" if value >= 0.0001 else "<0.0001"
