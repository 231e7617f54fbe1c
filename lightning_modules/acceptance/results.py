"""What the acceptance has found: one result a check, kept in files between the starts of its job. Loads no torch."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from instructedit.runs.directory import write_whole

Verdict = Literal["PASS", "FAIL", "SKIP"]


@dataclass(frozen=True)
class Result:
    """One check's.

    Args:
        name: the check.
        verdict: ``SKIP`` is neither good nor bad: it could not be tried here.
        told: what was measured, or what is wrong; one line.
        numbers: the same, to be compared between clusters.
    """

    name: str
    verdict: Verdict
    told: str
    numbers: Mapping[str, float] = field(default_factory=dict)


def write_results(folder: Path, phase: str, results: Sequence[Result]) -> None:
    """Keep a phase's results, those written before replaced."""
    content = [dataclasses.asdict(result) for result in results]
    write_whole(folder / f"results-{phase}.json", json.dumps(content, indent=2) + "\n")


def read_results(folder: Path, phase: str) -> list[Result]:
    """Return a phase's results; none where it has not written any."""
    try:
        content = json.loads((folder / f"results-{phase}.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    return [Result(**part) for part in content]


def table(results: Sequence[Result]) -> str:
    """The results as lines of text, the verdict last.

    >>> print(table([Result("sums", "PASS", "1 + 1 = 2"), Result("GPUs", "SKIP", "none here")]))
    check  result  what was seen
    sums   PASS    1 + 1 = 2
    GPUs   SKIP    none here
    verdict: PASS (1 passed, 0 failed, 1 skipped)
    """
    width = max(map(len, ("check", *(result.name for result in results))))
    rows = [("check", "result", "what was seen"), *((part.name, part.verdict, part.told) for part in results)]
    lines = [f"{name:<{width}}  {verdict:<6}  {told}" for name, verdict, told in rows]
    return "\n".join([*lines, f"verdict: {summary(results)}"])


def passed(results: Sequence[Result]) -> bool:
    """Whether something was checked and nothing failed."""
    verdicts = {result.verdict for result in results}
    return "FAIL" not in verdicts and "PASS" in verdicts


def summary(results: Sequence[Result]) -> str:
    """The verdict over all, with its counts."""
    counts = {verdict: sum(part.verdict == verdict for part in results) for verdict in ("PASS", "FAIL", "SKIP")}
    told = f"{counts['PASS']} passed, {counts['FAIL']} failed, {counts['SKIP']} skipped"
    return f"{'PASS' if passed(results) else 'FAIL'} ({told})"
