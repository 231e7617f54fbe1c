"""The section of a report that says what its numbers cannot say, made of the numbers where it can be."""

from instructedit.evaluation.metrics import VARIED, named
from instructedit.study.evidence import GENERATED, PAPER_BASE, Evidence, excludes, paper_value
from instructedit.study.markdown import interval, number
from instructedit.study.plan import StudyRun
from instructedit.study.verdict import Claim

_SETTINGS = (
    *("model.lr", "model.alpha_lr", "model.warmup_steps", "model.schedule", "model.editor", "model.sites"),
    *("model.weights", "data.tasks", "data.caps", "data.balance", "data.batch", "data.mix", "trainer.max_steps"),
)
_CHANCE = 0.05
_CEILING = 0.9


def doubts(e: Evidence, claims: list[Claim]) -> str:
    """Return a list of what is doubtful.

    Args:
        e: the study's numbers.
        claims: those of the report.
    """
    found = [
        _base(e),
        _few(e),
        _settings(e),
        _already(e),
        _ceiling(e),
        _generated(e),
        _fluency(e),
        _many(claims),
    ]
    return "\n".join(f"- {text}" for text in found if text)


def _base(e: Evidence) -> str:
    base = e.numbers.study.evaluate["base"]
    return (
        f"One base, {base}, far smaller than the paper's. A verdict here says whether a claim carries over to it, not "
        "whether the paper's numbers are right."
    )


def _few(e: Evidence) -> str:
    runs = [run for run in e.numbers.study.runs if run.trains]
    single = [run.name for run in runs if not _has_siblings(run, runs)]
    n = [rows for rows in (e.seen, e.mend) if rows.runs]
    seeds = ", ".join(f"{rows.row} {len(e.numbers.done(rows))} of {len(rows.runs)}" for rows in n)
    asked = e.numbers.study.evaluate.get("records") or "all"
    text = f"{asked} records a task and few seeds ({seeds}): only differences of several points can be told from none."
    if single:
        text += f" One seed, so that another could turn a small difference around: {', '.join(single)}."
    return text


def _has_siblings(run: StudyRun, runs: list[StudyRun]) -> bool:
    def of(one: StudyRun) -> tuple[object, ...]:
        return (one.fit, {key: value for key, value in one.set.items() if key != "seed_everything"})

    return any(one is not run and of(one) == of(run) for one in runs)


def _settings(e: Evidence) -> str:
    """Whether InstructEdit and MEND differ in their method alone."""
    if not e.seen.runs or not e.mend.runs:
        return ""
    a, b = (e.numbers.study.run(rows.runs[0]) for rows in (e.seen, e.mend))
    differ = [key for key in _SETTINGS if a.setting(key) != b.setting(key)]
    if differ:
        return f"InstructEdit and MEND were trained with different settings: {', '.join(differ)}."
    return (
        "InstructEdit and MEND were trained with the same settings, data and order; what suits one may suit the other "
        "less."
    )


def _already(e: Evidence) -> str:
    """How much of the targets the base has before any edit, which leaves less to gain."""
    base = e.numbers.row("Base")
    told = []
    for task in e.tasks:
        ours, paper = e.numbers.value(base, (task,), "reliability"), paper_value(task, "Base", "reliability")
        if ours is not None:
            beside = f" (paper {paper:.1f})" if paper is not None else ""
            told.append(f"{task} {number('reliability', ours.mean)}{beside}")
    return f"Token accuracy of the unedited base on the targets: {', '.join(told)}." if told else ""


def _ceiling(e: Evidence) -> str:
    near = []
    for task in e.tasks:
        both = [e.numbers.value(rows, (task,), "reliability") for rows in (e.seen, e.mend)]
        if all(each is not None and each.mean >= _CEILING for each in both):
            near.append(task)
    return (
        f"InstructEdit and MEND are both above {_CEILING:.0%} in reliability on {', '.join(near)}: no large gain was "
        "possible there."
        if near
        else ""
    )


def _generated(e: Evidence) -> str:
    """Where teacher forcing and generation disagree about InstructEdit and MEND."""
    seen, apart = 0, []
    for task in e.tasks:
        for metric in VARIED:
            forced, generated = (
                e.numbers.gain(e.seen, e.mend, (task,), named(metric, variant)) for variant in ("", GENERATED)
            )
            if forced is None or generated is None:
                continue
            seen += 1
            signs = [1 if excludes(each, 1) else -1 if excludes(each, -1) else 0 for each in (forced, generated)]
            if signs[0] != signs[1]:
                apart.append(
                    f"{metric} on {task} ({interval(metric, forced, True)} teacher-forced, "
                    f"{interval(metric, generated, True)} generated)"
                )
    if not seen:
        return "Numbers by generation are not there, so nothing tells how much teacher forcing flatters."
    told = (
        f"Of {seen} differences between InstructEdit and MEND that were also measured by generation, on fewer records, "
    )
    if not apart:
        return told + "none is told apart from 0 one way and not the other."
    return (
        told + f"{len(apart)} are told apart from 0 in one way and not, or otherwise, in the other: {'; '.join(apart)}."
    )


def _fluency(e: Evidence) -> str:
    told = []
    for rows in (e.seen, e.mend):
        for task in e.tasks:
            lost = e.numbers.gain(rows, e.numbers.row("Base"), (task,), "fluency")
            if lost is not None:
                sure = "lower" if excludes(lost, -1) else "higher" if excludes(lost, 1) else "not told apart"
                told.append(f"{rows.row} on {task} {interval('fluency', lost, True)} ({sure})")
    measured = [task for task in e.tasks if paper_value(task, "Base", "fluency") is not None]
    if not told:
        return (
            "Fluency of the unedited base and an editor is not there (the paper: "
            f"{', '.join(measured) or 'none of these tasks'}, {PAPER_BASE})."
        )
    return (
        f"Fluency against the unedited base, 0.01 bit: {'; '.join(told)}. No other metric sees what an edited base "
        "goes on to write behind the answer."
    )


def _many(claims: list[Claim]) -> str:
    counted = sum(1 for claim in claims for part in claim.counted if part.ours is not None)
    if not counted:
        return ""
    return (
        f"{counted} numbers decide the verdicts. Were all true differences 0, about {counted * _CHANCE / 2:.0f} would "
        "still lie wholly on the claimed side by chance."
    )
