"""The claims about instructions: one never seen in training costs little, and the controls, which the paper lacks.

A control asks whether it is the instruction, or only that something longer stands in front of the prompt.
"""

from instructedit.evaluation.paper import SEEN_TO_UNSEEN
from instructedit.study.evidence import PAPER_BASE, Evidence, family
from instructedit.study.numbers import Rows
from instructedit.study.verdict import Claim, Part

LITTLE = max(seen - unseen for seen, unseen in SEEN_TO_UNSEEN.values())
"""The paper's own largest loss, in points: what 'little' is taken to mean."""

_CONTROLS = {
    "wrong": ("another task's instruction", "the right task"),
    "shuffled": ("its own words in another order", "the sentence"),
    "filler": ("sentences about nothing of the same length", "everything but frame and length"),
    "empty": ("nothing in front of the prompt", "frame and length too"),
}


def unseen_claim(e: Evidence) -> Claim:
    """Return the claim that an unseen instruction loses little."""
    counted: list[Part] = []
    beside: list[Part] = []
    for metric in ("reliability", "generalization", "locality", "portability"):
        for task in e.measured(e.tasks, metric):
            published = SEEN_TO_UNSEEN.get((PAPER_BASE, family(task), metric))
            paper = published[0] - published[1] if published else None
            part = e.part(
                e.seen,
                e.unseen,
                (task,),
                metric,
                about=f"loss in {metric}, {e.names((task,))}",
                paper=paper,
                side="below",
                bound=LITTLE / 100,
                counts=published is not None or metric == "reliability",
            )
            (counted if part.counts else beside).append(part)
    return Claim(
        "unseen",
        "An instruction that training never showed loses little.",
        "seen minus unseen on counterfact and recent: at most "
        f"{LITTLE:.1f} points (generalization on recent). Little is taken to be that: bound {LITTLE:+.1f}.",
        (*counted, *(part for part in beside if part.ours is not None)),
        "Ten sentences of our own; the tenth is the unseen one. On a held-out task all ten are new to the editor.",
        lacking=e.lacking(e.seen, e.unseen),
    )


def control_claims(e: Evidence) -> list[Claim]:
    """Return one question a control that the plan asks: does the right instruction do better than it?"""
    runs = e.numbers.study.analyses.get("instructions", {}).get("runs", ())
    found = []
    for control, (what, without) in _CONTROLS.items():
        row = f"InstructEdit ({control})"
        asked = tuple(run for run in runs if row in e.numbers.study.rows(e.numbers.study.run(run)))
        if not asked:
            continue
        rows = Rows(row, asked)
        seen = Rows(e.seen.row, asked)
        parts: list[Part] = [e.part(seen, rows, (task,), "reliability") for task in e.tasks]
        for task in e.measured(e.tasks, "generalization"):
            parts += e.beside(seen, rows, (task,), "generalization")
        for tasks, name in ((e.within, "tasks trained on"), (e.held_out, "held out")):
            about = f"reliability with {control} over MEND, {name}"
            parts += e.beside(rows, e.mend, tasks, "reliability", about=about) if tasks else []
        found.append(
            Claim(
                f"control-{control}",
                f"The instruction itself matters: InstructEdit is more reliable with it than with {what}.",
                "Not in the paper.",
                tuple(parts),
                f"Takes away {without}. Where '{control} over MEND' is still above 0, that part of the gain over MEND "
                "does not need the right instruction when editing.",
                of_paper=False,
                lacking=e.lacking(seen, rows),
            )
        )
    return found
