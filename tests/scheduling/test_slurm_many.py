"""Many jobs are asked for in one or two calls, arrays' tasks among them."""

import stat
from pathlib import Path

import pytest

from instructedit.scheduling.slurm import SchedulerError, show_jobs

FAKE = """#!/usr/bin/env bash
echo "$*" >> "$(dirname "$0")/calls"
[ "$SLURM_BITSTR_LEN" = 0 ] || exit 7
jobs="$(dirname "$0")/jobs"
[ -e "$jobs" ] || { echo "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1; }
[ $# = 3 ] && { cat "$jobs"; exit; }
grep -E "^JobId=$4 |ArrayJobId=$4 " "$jobs" && exit
[ "$4" = 20_2 ] && { echo "Job 20_2 not found" >&2; exit 1; }
echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1
"""
REST = "JobName=JobId=99 JobState={} Reason=None Restarts=1 NodeList=n1 ExitCode=0:0"
JOBS = [
    "JobId=20 ArrayJobId=20 ArrayTaskId=3,5-7,10-14:2%2 ArrayTaskThrottle=2 " + REST.format("PENDING"),
    "JobId=21 ArrayJobId=20 ArrayTaskId=0 " + REST.format("RUNNING"),
    "JobId=22 ArrayJobId=20 ArrayTaskId=1 " + REST.format("FAILED"),
    *(f"JobId={job} " + REST.format("RUNNING") for job in range(100, 160)),
]


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A SLURM that knows these jobs, and the file of how it was called."""
    program = tmp_path / "scontrol"
    program.write_text(FAKE)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "jobs").write_bytes("\n".join(JOBS).encode() + b"\nJobId=7 JobName=caf\xe9 JobState=RUNNING\n")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return tmp_path / "calls"


def states(*jobs: str) -> dict[str, str]:
    return {name: job.state for name, job in show_jobs(jobs).items()}


def test_sixty_jobs_are_one_question(calls: Path) -> None:
    ids = [str(job) for job in range(100, 160)]
    found = show_jobs([*ids, "99", "20_1", "20_12", "7"])
    assert {name: job.state for name, job in found.items()} == {
        **dict.fromkeys(ids, "RUNNING"),
        "20_1": "FAILED",
        "20_12": "PENDING",
        "7": "RUNNING",
    }
    assert (found["100"].id, found["100"].restarts, found["20_12"].id) == ("100", 1, "20_12")
    assert calls.read_text() == "show job -o\n"


def test_an_array_is_asked_for_as_a_whole(calls: Path) -> None:
    found = states(*(f"20_{task}" for task in range(16)), "100")
    waits = dict.fromkeys((f"20_{task}" for task in (3, 5, 6, 7, 10, 12, 14)), "PENDING")
    assert found == {"20_0": "RUNNING", "20_1": "FAILED", **waits, "100": "RUNNING"}
    assert calls.read_text() == "show job -o 20\nshow job -o 100\n"


def test_few_jobs_and_none(calls: Path) -> None:
    assert states("100", "31") == {"100": "RUNNING"} and states() == {}
    assert states("31_0", "31_1", "31_2") == {} == states("20_2")


def test_a_controller_that_is_away_is_told(calls: Path) -> None:
    (calls.parent / "jobs").unlink()
    for jobs in (["100"], [f"20_{task}" for task in range(9)], [str(job) for job in range(100, 160)]):
        with pytest.raises(SchedulerError, match="Unable to contact"):
            show_jobs(jobs)
