"""``REPORT.md``: what a study found, claim by claim, beside the paper. A partial study gives a partial report.

The same results and figures give the same bytes. Knows the plan, the results and file names of figures; no text of a
record can get in, as outcomes hold ids and numbers alone and ids are not printed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from instructedit.runs.directory import write_whole
from instructedit.study.analysis_claims import analysis_claims
from instructedit.study.claims import method_claims
from instructedit.study.compute import Made, what_made
from instructedit.study.doubts import doubts
from instructedit.study.evidence import Evidence
from instructedit.study.figures import analyses
from instructedit.study.gradients import gradients_there
from instructedit.study.instruction_claims import control_claims, unseen_claim
from instructedit.study.markdown import NOTHING, interval, number, points, table
from instructedit.study.numbers import Numbers
from instructedit.study.plan import Study
from instructedit.study.results import Results
from instructedit.study.separation_claim import read_separation, separation_claim
from instructedit.study.setting import LEFT_BEHIND, differences
from instructedit.study.table3 import gain_over_mend, table3
from instructedit.study.verdict import RULE, Claim, Part


def write_report(
    study: Study,
    results: Results,
    out_file: Path | str,
    figures_folder: Path | str,
    *,
    plan: str = "",
    said: Mapping[str, Sequence[str]] | None = None,
    draws: int = 2000,
) -> Path:
    """Write a study's report.

    Args:
        study: the plan.
        results: what came of it, wholly or in part.
        out_file: the Markdown file; its folder is made.
        figures_folder: where the analyses' figures and tables lie; need not exist. Links to it are relative.
        plan: the plan's file, for the command that made it; empty for the one of the study's name.
        said: what the analyses say in words, by their names.
        draws: bootstrap samples of each interval.

    Returns:
        The file.

    Raises:
        InputError: a run's results, a configuration or a table of the analyses cannot be read.
    """
    out_file, figures = Path(out_file), Path(figures_folder)
    evidence = Evidence(Numbers(study, results, draws))
    claims = all_claims(evidence, figures)
    sections = [
        f"# What the study {study.name} found",
        _head(study, results, what_made(results), plan or f"configs/study/{study.name}.yaml"),
        "## Verdicts",
        _verdicts(claims),
        RULE,
        "## What differs from the paper's setting",
        _setting(study),
        "## Table 3",
        table3(evidence),
        "## InstructEdit minus MEND",
        gain_over_mend(evidence),
        "## The paper's claims, one by one",
        *(_claim(claim) for claim in claims if claim.of_paper),
        "## Controls: is it the instruction?",
        *_bullets((said or {}).get("instructions", ())),
        *([_claim(claim) for claim in claims if not claim.of_paper] or ["The plan asks for none."]),
        "## The analyses",
        analyses(evidence, figures, out_file.parent, said or {}) or "The plan has none.",
        "## What is doubtful",
        doubts(evidence, claims),
    ]
    out_file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out_file, "\n\n".join(sections) + "\n")
    return out_file


def _bullets(sentences: Sequence[str]) -> list[str]:
    return ["\n".join(f"- {sentence}" for sentence in sentences)] if sentences else []


def all_claims(evidence: Evidence, figures: Path) -> list[Claim]:
    """Return every claim of the paper that the plan can test, then the controls.

    Args:
        evidence: the study's numbers.
        figures: where the gradients' analysis has left its table.
    """
    found = [*method_claims(evidence), unseen_claim(evidence), *analysis_claims(evidence)]
    numbers = evidence.numbers
    if "gradients" in numbers.study.analyses:
        there = gradients_there(numbers.study, numbers.results, figures)
        found.append(separation_claim(evidence, read_separation(figures) if there else []))
    return [*found, *control_claims(evidence)]


def _head(study: Study, results: Results, made: Made, plan: str) -> str:
    done, missing = results.done, results.missing
    parts = []
    if missing:
        parts.append(
            f"> **PARTIAL: {len(done)} of {len(study.runs)} runs are there.** Missing: {', '.join(missing)}. What "
            "needs them is not tested yet, or rests on fewer seeds."
        )
    if made.dirty:
        parts.append("> **DIRTY: some runs were made by code that differs from its commit.**")
    if made.mixed:
        parts.append(f"> **MIXED: not all runs were asked the same ({'; '.join(made.mixed)}).**")
    parts.append(
        f"The claims of InstructEdit (Tian et al. 2024, arXiv 2402.16123), tested anew on {study.evaluate['base']}. "
        "This file is generated from the results beside it; nothing in it is written by hand for one outcome."
    )
    commands = [study.prepare, f"instructedit reproduce --study {plan}"]
    parts.append("```\n" + "\n".join(command for command in commands if command) + "\n```")
    kept = [
        ("runs", f"{len(done)} of {len(study.runs)}: {', '.join(done) or 'none'}"),
        ("trainings", f"{made.trainings}, {made.edits:,} edits, {made.training_hours:.1f} hours"),
        ("evaluations", f"{made.evaluation_hours:.1f} hours"),
        ("machine", "; ".join(made.machines) or "not recorded"),
        ("commits", ", ".join(made.commits) or "not recorded"),
        ("versions", ", ".join(f"{name} {' / '.join(each)}" for name, each in made.versions.items()) or "not recorded"),
    ]
    parts.append(table(["", ""], kept, left=2))
    return "\n\n".join(parts)


def _verdicts(claims: Sequence[Claim]) -> str:
    rows = [
        [
            claim.title,
            "the paper" if claim.of_paper else "control",
            _range(claim),
            _met(claim),
            _fewest_seeds(claim),
            f"**{claim.verdict}**",
        ]
        for claim in claims
    ]
    return table(["claim", "whose", "here", "numbers met", "fewest seeds", "verdict"], rows, left=6)


def _fewest_seeds(claim: Claim) -> str:
    """Of the numbers that decide, the seeds behind the one that has the fewest."""
    return str(min((part.ours.n_seeds for part in claim.counted if part.ours is not None), default=NOTHING))


def _range(claim: Claim) -> str:
    """Our number, or from the least to the most of several."""
    there = [(part.metric, part.ours) for part in claim.counted if part.ours is not None]
    if len(there) < 2:
        return interval(*there[0], signed=True) if there else NOTHING
    (least, low), (most, high) = (end(there, key=lambda each: each[1].mean) for end in (min, max))
    return f"{number(least, low.mean, True)} to {number(most, high.mean, True)}"


def _met(claim: Claim) -> str:
    counted = claim.counted
    if not counted:
        return NOTHING
    met, against = sum(part.met for part in counted), sum(part.opposed for part in counted)
    lacking = sum(part.ours is None for part in counted)
    told = f"{met} of {len(counted)}"
    told += f"; {against} the other way" if against else ""
    return told + (f"; {lacking} missing" if lacking else "")


def _setting(study: Study) -> str:
    rows = [(each.what, each.paper, each.here) for each in differences(study)]
    faults = "; ".join(LEFT_BEHIND)
    return (
        table(["", "paper", "here"], rows, left=3)
        + f"\n\nFaults of the released code that are not inherited: {faults}."
        + "\n\nEvery metric is defined by `instructedit evaluate --explain METRIC` and in docs/metrics.md."
    )


def _claim(claim: Claim) -> str:
    rows = [
        [
            part.about,
            points(part.paper),
            interval(part.metric, part.ours, signed=True),
            "" if part.ours is None else str(part.ours.n_records or ""),
            "" if part.ours is None else str(part.ours.n_seeds),
            _standing(part),
        ]
        for part in claim.parts
    ]
    said = f"The paper: {claim.paper}" if claim.of_paper else claim.paper
    parts = [f"### {claim.title}", f"**{claim.verdict}**. {said}"]
    parts.append(table(["", "paper", "here", "n", "seeds", "met"], rows))
    told = f"{claim.differs}"
    told += f" Missing runs: {', '.join(claim.lacking)}." if claim.lacking else ""
    return "\n\n".join([*parts, told])


def _standing(part: Part) -> str:
    bound = f" ({'above' if part.side == 'above' else 'below'} {number(part.metric, part.bound, True)})"
    where = bound if part.bound or part.side == "below" else ""
    if not part.counts:
        return "beside"
    if part.ours is None:
        return f"missing{where}"
    return ("yes" if part.met else "no, the other way" if part.opposed else "no") + where
