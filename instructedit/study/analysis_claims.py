"""The claims behind the paper's figures: transfer of single-task editors, more tasks, ConvSent's share, directions."""

from itertools import pairwise

from instructedit.evaluation.paper import MORE_TASKS, TRANSFER_DROPS
from instructedit.study.evidence import Evidence, family
from instructedit.study.verdict import Claim, Part


def analysis_claims(e: Evidence) -> list[Claim]:
    """Return the claims of those analyses that the plan has, gradients apart."""
    analyses = e.numbers.study.analyses
    found = []
    if analyses.get("transfer", {}).get("singles"):
        found.append(_transfer(e))
    if len(analyses.get("tasks", {})) > 1:
        found.append(_more_tasks(e))
    if {"full", "capped"} <= set(analyses.get("balance", {})):
        found.append(_balance(e))
    return found


def _transfer(e: Evidence) -> Claim:
    singles = {task: e.numbers.rows(run) for task, run in e.numbers.study.analyses["transfer"]["singles"].items()}
    counted: list[Part] = []
    for tested, own in singles.items():
        for trained, other in singles.items():
            if trained == tested:
                continue
            for metric in ("reliability", "generalization", "portability"):
                if e.numbers.done(own) and e.numbers.value(own, (tested,), metric) is None:
                    continue  # no probes of that kind
                drop = TRANSFER_DROPS.get((family(trained), family(tested), metric))
                about = f"{metric}, {trained} to {tested}: below {tested}'s own editor by"
                part = e.part(own, other, (tested,), metric, about=about, paper=drop)
                if part.ours is not None or metric == "reliability":
                    counted.append(part)
    return Claim(
        "transfer",
        "An editor trained on one task fails on others.",
        "a MEND trained on recent is lower on counterfact than counterfact's own by 25.50 in reliability, 21.34 in "
        "generalization, 7.33 in portability; on zsre, editors of recent and counterfact are lower than zsre's own by "
        "86.40 and 56.31 in reliability.",
        tuple(counted),
        "zsre is not trained on here, so it has no editor of its own to fall behind; each editor has one seed.",
        lacking=e.lacking(*singles.values()),
    )


def _more_tasks(e: Evidence) -> Claim:
    steps = {str(label): e.numbers.rows(runs) for label, runs in e.numbers.study.analyses["tasks"].items()}
    counted: list[Part] = []
    beside: list[Part] = []
    for place, (fewer, more) in enumerate(pairwise(steps)):
        for metric in ("reliability", "generalization"):
            for task in e.measured(e.tasks, metric):
                counts = task in e.held_out and metric == "reliability"
                read = MORE_TASKS.get(family(task)) if metric == "reliability" else None
                paper = read[place + 1] - read[place] if read and place + 1 < len(read) else None
                about = f"{metric}, {e.names((task,))}: {more} tasks over {fewer}"
                part = e.part(steps[more], steps[fewer], (task,), metric, about=about, paper=paper, counts=counts)
                (counted if counts else beside).append(part)
    return Claim(
        "tasks",
        "Each further training task makes the editor more reliable on the held-out one.",
        "with 1, 2 and 3 tasks reliability on zsre is about 6, 49, 82 (off Figure 4(c)); on counterfact 23, 82, 81; "
        "on recent 72, 85, 85.",
        (*counted, *(part for part in beside if part.ours is not None)),
        "Every editor has the same number of edits, so that more tasks mean fewer edits of each; fewer tasks have one "
        "seed.",
        lacking=e.lacking(*steps.values()),
    )


def _balance(e: Evidence) -> Claim:
    rows = {str(label): e.numbers.rows(runs) for label, runs in e.numbers.study.analyses["balance"].items()}
    full = rows["full"]
    parts = [
        e.part(rows["capped"], full, (task,), "reliability", about=f"reliability, {e.names((task,))}: capped over full")
        for task in e.held_out
    ]
    for label, other in rows.items():
        if label == "full":
            continue
        for metric in ("reliability", "generalization"):
            for task in e.measured(e.tasks, metric):
                held = task in e.held_out
                if (label == "capped" and metric == "reliability" and held) or (metric != "reliability" and not held):
                    continue  # counted above; the others stand in the analysis' own table
                about = f"{metric}, {e.names((task,))}: {label} over full"
                parts += e.beside(other, full, (task,), metric, about=about)
    return Claim(
        "balance",
        "Cutting ConvSent down to the size of the other tasks makes the editor more reliable on the held-out one.",
        "shown in Figure 4(d) for 1,427 of 14,390 entries; we have no number of it.",
        tuple(parts),
        "The shares of the tasks in training are the paper's; the public training file has fewer ConvSent records, so "
        "that a full share asks the same ones more often. One seed each.",
        lacking=e.lacking(full, rows["capped"]),
    )
