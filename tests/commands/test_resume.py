"""submit --resume: runs, groups and chains that did not come to their end, with recorders in SLURM's place."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from instructedit.runs.jobs import read_jobs
from instructedit.runs.progress import Progress, write_progress
from tests.commands.submit_setup import base, calls, config, prepared, slurm, submit
from tests.lightning_modules.conftest import run

__all__ = ["slurm"]

PREPARE = ("prepare", "--source", "demo", "--out", "d")
FIT = ("fit", "--config", "a.yaml")
EVALUATE = ("evaluate", "--base", "x")


def states(slurm: Path, other: str, known: Mapping[Any, str]) -> None:
    """What SLURM says of jobs; of all others the same."""
    for path in slurm.glob("state*"):
        path.unlink()
    (slurm / "state").write_text(other)
    for job, state in known.items():
        (slurm / f"state-{job}").write_text(state)


def chain(*steps: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for number, step in enumerate(steps) for word in (*(["--then"] if number else []), *step))


def handed_in(slurm: Path, since: int) -> list[str]:
    """The scripts given to sbatch since a job, and what they wait for: ``runs/c fit after 104``."""
    found = []
    for line in calls(slurm)[since - 100 :]:
        *options, script = line.split()
        behind = [option.partition("afterok:")[2] for option in options if "afterok:" in option]
        path = Path(script)
        home = path.parents[1].relative_to(Path.cwd())
        found.append(f"{home} {path.stem}" + "".join(f" after {jobs}" for jobs in behind))
    return found


def kept() -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()}


def test_resume(slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chain = ("fit", "--config", "a.yaml", "--then", "evaluate", "--base", "x")
    assert submit("--time", "20", words=chain) == 0
    assert submit("--resume", "runs/demo", words=()) == 2
    assert "job 101" in capsys.readouterr().err
    (slurm / "state").write_text("FAILED")
    Path("a.yaml").write_text("nothing: of this")
    kept = {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()}
    assert submit("--resume", "demo", "--dry-run", words=()) == 0
    assert "afterok:JOB_OF_FIT" in capsys.readouterr().out
    assert kept == {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()}
    before = config("runs/demo/slurm/fit.yaml")
    assert submit("--resume", "demo", "--time", "40", "--nodes", "2", words=()) == 0
    jobs = read_jobs(Path("runs/demo"))
    assert [(job.id, job.command) for job in jobs[2:]] == [("103", "fit"), ("104", "evaluate")]
    frozen = config("runs/demo/slurm/fit.yaml")
    assert frozen == before | {"trainer": before["trainer"] | {"num_nodes": 2}}
    scripts = [Path(f"runs/demo/slurm/{name}.sbatch").read_text() for name in ("fit", "evaluate")]
    assert "--time=40" in scripts[0] and "--nodes=2" in scripts[0]
    assert "--time=40" in scripts[1] and "--nodes=1" in scripts[1]
    write_progress(Path("runs/demo"), Progress("done", 6, 6))
    Path("runs/demo/slurm/104.ended").touch()
    assert submit("--resume", "demo", words=()) == 2
    assert "is done" in capsys.readouterr().err


def test_resume_with_another_profile_ends_what_waits_in_vain(slurm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert submit("--time", "20", words=("fit", "--config", "a.yaml", "--then", "evaluate", "--base", "x")) == 0
    states(slurm, "CANCELLED", {102: "PENDING"})
    Path("site.yaml").write_text("{partition: other, environment: {A: b}, max_requeues: 2}")
    assert submit("--resume", "demo", "--profile", "site.yaml", words=()) == 0
    assert (slurm / "cancelled").read_text().split() == ["102"]
    script = Path("runs/demo/slurm/fit.sbatch").read_text()
    assert "--partition=other" in script and "export A=b" in script and "MAX_REQUEUES=2" in script
    assert "--time" not in script


def test_resume_of_a_group_takes_what_is_not_done(slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert submit("--array", "seed=0..2") == 0
    (slurm / "state").write_text("FAILED")
    write_progress(Path("runs/demo/seed-1"), Progress("done", 6, 6))
    assert submit("--resume", "demo", words=()) == 0
    assert [[job.id for job in read_jobs(Path(f"runs/demo/seed-{n}"))] for n in range(3)] == [
        *(["101_0", "102_0"], ["101_1"], ["101_2", "102_1"])
    ]
    assert "left out, being done: seed-1" in capsys.readouterr().err
    script = Path("runs/demo/slurm/fit.sbatch").read_text()
    assert "#SBATCH --array=0-1\n" in script and f"1) config={Path.cwd()}/runs/demo/seed-2/slurm/fit.yaml" in script
    assert not Path("runs/demo/seed-2/slurm/fit.sbatch").exists()


# --- chains ----------------------------------------------------------------------------------------------------------
def test_what_stands_before_a_run_and_failed_is_submitted_too(slurm: Path) -> None:
    assert submit(words=chain(PREPARE, (*FIT, "--run.name", "c"), EVALUATE)) == 0
    states(slurm, "CANCELLED", {101: "FAILED"})
    assert submit("--resume", "c", words=()) == 0
    wanted = ["runs/c prepare", "runs/c fit after 104", "runs/c evaluate after 105"]
    assert handed_in(slurm, 103) == wanted
    # SLURM forgets: what has not said that it has ended well has not.
    states(slurm, "UNKNOWN", {})
    assert submit("--resume", "c", words=()) == 0
    assert handed_in(slurm, 106) == [line.replace("104", "107").replace("105", "108") for line in wanted]
    assert "instructedit prepare --config=" in Path("runs/c/slurm/prepare.sbatch").read_text()


@pytest.mark.parametrize("forgotten", [False, True])
def test_what_stands_before_a_run_and_is_done_is_left_out(slurm: Path, forgotten: bool) -> None:
    assert submit(words=chain(PREPARE, (*FIT, "--run.name", "c"), EVALUATE)) == 0
    states(slurm, "UNKNOWN" if forgotten else "CANCELLED", {} if forgotten else {101: "COMPLETED"})
    if forgotten:
        Path("runs/c/slurm/101.ended").touch()
    assert submit("--resume", "c", words=()) == 0
    assert handed_in(slurm, 103) == ["runs/c fit", "runs/c evaluate after 104"]


def test_what_stands_before_a_run_and_waits_is_waited_for(slurm: Path) -> None:
    assert submit(words=chain(PREPARE, (*FIT, "--run.name", "c"), EVALUATE)) == 0
    states(slurm, "CANCELLED", {101: "PENDING"})
    assert submit("--resume", "c", "--after", "7", words=()) == 0
    assert handed_in(slurm, 103) == ["runs/c fit after 7:101", "runs/c evaluate after 104"]


def test_a_run_that_waits_in_vain_is_no_busy_one(slurm: Path) -> None:
    assert submit(words=chain(PREPARE, (*FIT, "--run.name", "c"), EVALUATE)) == 0
    states(slurm, "PENDING", {101: "FAILED"})
    assert submit("--resume", "c", words=()) == 0
    assert handed_in(slurm, 103) == ["runs/c prepare", "runs/c fit after 104", "runs/c evaluate after 105"]
    assert (slurm / "cancelled").read_text().split() == ["102", "103"]


def test_a_job_that_is_just_ending(slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert submit(words=chain(PREPARE, (*FIT, "--run.name", "c"))) == 0
    for job in (101, 102):
        states(slurm, "CANCELLED", {job: "COMPLETING"})
        assert submit("--resume", "c", words=()) == 2
        assert f"Job {job} of runs/c is just ending" in capsys.readouterr().err


def test_a_run_that_waits_in_vain_for_a_job_of_elsewhere(slurm: Path) -> None:
    assert submit("--after", "7", words=FIT) == 0
    states(slurm, "PENDING", {})
    assert submit("--resume", "demo", words=()) == 2
    (slurm / "reason-101").write_text("DependencyNeverSatisfied")
    assert submit("--resume", "demo", words=()) == 0
    assert handed_in(slurm, 101) == ["runs/demo fit"] and (slurm / "cancelled").read_text().split() == ["101"]


def test_a_chain_of_two_trainings_stays_one(slurm: Path) -> None:
    words = chain((*FIT, "--run.name", "A"), (*FIT, "--run.name", "B"), EVALUATE)
    assert submit(words=words) == 0
    states(slurm, "CANCELLED", {101: "FAILED"})
    assert submit("--resume", "A", "--time", "30", words=()) == 0
    assert handed_in(slurm, 103) == ["runs/A fit", "runs/B fit after 104", "runs/A evaluate after 105"]
    assert "--time=30" in Path("runs/B/slurm/fit.sbatch").read_text()
    # From its middle: what is done before it stays.
    write_progress(Path("runs/A"), Progress("done", 6, 6))
    states(slurm, "CANCELLED", {})
    assert submit("--resume", "B", words=()) == 0
    assert handed_in(slurm, 106) == ["runs/B fit", "runs/A evaluate after 107"]
    # A training that is done is not trained again for what failed before it.
    write_progress(Path("runs/A"), Progress("failed", 3, 6))
    write_progress(Path("runs/B"), Progress("done", 6, 6))
    assert submit("--resume", "A", words=()) == 0
    assert handed_in(slurm, 108) == ["runs/A fit", "runs/A evaluate after 109"]


def test_what_failed_behind_a_run_that_is_done(slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert submit(words=chain(FIT, EVALUATE)) == 0
    write_progress(Path("runs/demo"), Progress("done", 6, 6))
    states(slurm, "FAILED", {101: "COMPLETED"})
    assert submit("--resume", "demo", words=()) == 0
    assert handed_in(slurm, 102) == ["runs/demo evaluate"]
    states(slurm, "COMPLETED", {})
    assert submit("--resume", "demo", words=()) == 2
    assert "runs/demo is done" in capsys.readouterr().err


def test_a_group_and_what_is_behind_it(slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = chain((*FIT, "--run.name", "G"), EVALUATE)
    assert submit("--array", "seed=0..2", "--at-once", "1", words=words) == 0
    states(slurm, "CANCELLED", {})
    write_progress(Path("runs/G/seed-0"), Progress("done", 6, 6))
    assert submit("--resume", "G", words=()) == 0
    assert handed_in(slurm, 102) == ["runs/G fit", "runs/G evaluate after 103"]
    assert "#SBATCH --array=0-1%1\n" in Path("runs/G/slurm/fit.sbatch").read_text()
    assert [job.id for job in read_jobs(Path("runs/G/seed-2"))] == ["101_2", "103_1"]
    # Those that go on are waited for; --at-once may change.
    states(slurm, "CANCELLED", {"103_0": "RUNNING"})
    assert submit("--resume", "G", "--at-once", "2", words=()) == 0
    assert handed_in(slurm, 104) == ["runs/G fit", "runs/G evaluate after 105:103_0"]
    assert "#SBATCH --array=0-0%2\n" in Path("runs/G/slurm/fit.sbatch").read_text()
    assert "left out, having a job: seed-1 (103_0)" in capsys.readouterr().err
    states(slurm, "RUNNING", {})
    assert submit("--resume", "G", words=()) == 2
    told = (
        "Nothing of runs/G can go on: its runs are left out, being done: seed-0; having a job: seed-1 (103_0), seed-2 ("
    )
    assert told in capsys.readouterr().err
    for flags in (("G", "--at-once", "0"), ("G/seed-1", "--at-once", "1")):
        assert submit("--resume", *flags, words=()) == 2
        assert "--at-once is" in capsys.readouterr().err


def test_a_group_that_was_cancelled_before_all_of_it_began(slurm: Path) -> None:
    assert submit("--array", "seed=0..2") == 0
    states(slurm, "NO_TASK", {"101_0": "CANCELLED"})
    assert submit("--resume", "demo", words=()) == 0
    assert [read_jobs(Path(f"runs/demo/seed-{n}"))[-1].id for n in range(3)] == ["102_0", "102_1", "102_2"]


def test_one_run_of_a_group(slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert submit("--array", "seed=0..1", words=chain((*FIT, "--run.name", "G"), EVALUATE)) == 0
    states(slurm, "CANCELLED", {})
    assert submit("--resume", "runs/G/seed-0", "--time", "50", words=()) == 0
    assert handed_in(slurm, 102) == ["runs/G/seed-0 fit"]
    assert "evaluate behind the group not submitted" in capsys.readouterr().err
    assert "--array" not in Path("runs/G/seed-0/slurm/fit.sbatch").read_text()
    # With the last one of them comes what follows.
    write_progress(Path("runs/G/seed-0"), Progress("done", 6, 6))
    assert submit("--resume", "runs/G/seed-1", words=()) == 0
    assert handed_in(slurm, 103) == ["runs/G/seed-1 fit", "runs/G evaluate after 104"]


# --- all or nothing --------------------------------------------------------------------------------------------------
def test_a_refused_job_takes_the_others_back(slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert submit(words=chain(PREPARE, (*FIT, "--run.name", "c"), EVALUATE)) == 0
    states(slurm, "FAILED", {})
    before = kept()
    (slurm / "refused").write_text("6")
    assert submit("--resume", "c", "--time", "77", words=()) == 2
    assert (slurm / "cancelled").read_text().split() == ["104", "105"] and kept() == before
    (slurm / "refused").write_text("9")
    (slurm / "no-cancel").touch()
    assert submit("--resume", "c", words=()) == 2
    told = capsys.readouterr().err
    assert "invalid partition" in told and "run `scancel 107`" in told and "run `scancel 108`" in told
    assert kept() == before


def test_a_job_that_cannot_be_cancelled_hides_no_new_one(slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert submit(words=chain(FIT, EVALUATE)) == 0
    states(slurm, "PENDING", {101: "FAILED"})
    (slurm / "no-cancel").touch()
    assert submit("--resume", "demo", words=()) == 0
    told = capsys.readouterr()
    assert "job 103" in told.out and "job 104" in told.out and "run `scancel 102`" in told.err


# --- what is refused -------------------------------------------------------------------------------------------------
def test_the_preflight_looks_again(slurm: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    prepared("d", "recent")
    base("b")
    words = (
        "fit",
        "--config",
        "a.yaml",
        "--trainer.accelerator",
        "gpu",
        "--data.batch",
        "8",
        "--data.folder",
        "d",
        "--model.base",
        "./b",
    )
    assert submit("--gpus-per-node", "1", words=words) == 0
    (slurm / "state").write_text("FAILED")
    flags = ("submit", "--resume", Path("runs/demo").resolve(), "--gpus-per-node", "3")
    before = kept()
    for folder in (Path.cwd(), tmp_path):  # the settings' paths are those of where it was submitted
        os.chdir(folder)
        assert run(*flags) == 2
        told = capsys.readouterr().err
        assert "A global batch of 8 cannot be shared equally by 3 ranks" in told and "Not prepared" not in told
    os.chdir(tmp_path / "place")
    assert len(calls(slurm)) == 1 and kept() == before
    assert run(*flags, "--no-preflight") == 0


def test_a_copy_or_a_run_that_was_moved(slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert submit() == 0
    (slurm / "state").write_text("FAILED")
    shutil.copytree("runs/demo", "runs/copy")
    assert submit("--resume", "copy", words=()) == 2
    told = capsys.readouterr().err
    assert f"runs/copy is a copy of {Path.cwd()}/runs/demo, where its job would train" in told
    shutil.rmtree("runs/copy")
    shutil.move("runs/demo", "runs/new")
    Path("runs/new/config.yaml").touch()
    assert submit("--resume", "new", words=()) == 2
    told = capsys.readouterr().err
    assert "was moved here from" in told and "submit [flags] -- fit --from_run runs/new" in told
    Path("runs/link").symlink_to("new")
    shutil.move("runs/new", "runs/demo")
    Path("runs/link").unlink()
    Path("runs/link").symlink_to("demo")
    assert submit("--resume", "link", words=()) == 0


def test_a_group_that_was_moved(slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert submit("--array", "seed=0..1") == 0
    (slurm / "state").write_text("FAILED")
    shutil.move("runs/demo", "runs/new")
    for name in ("new", "new/seed-0"):
        assert submit("--resume", name, words=()) == 2
        assert "was moved here from" in capsys.readouterr().err


def test_from_another_folder(slurm: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert submit(words=chain((*FIT, "--data.folder", "d"), EVALUATE)) == 0
    (slurm / "state").write_text("FAILED")
    run = Path("runs/demo").resolve()
    before = Path.cwd()
    monkeypatch.chdir(tmp_path)
    assert submit("--resume", str(run), words=()) == 0
    assert calls(slurm)[2].endswith(f" {run}/slurm/fit.sbatch") and not Path("runs").exists()
    assert f"cd -- {before}\n" in (run / "slurm/fit.sbatch").read_text()
    assert json.loads((run / "slurm/fit.json").read_text())["folder"] == str(before)


@pytest.mark.parametrize("text", ["- a", "3", "trainer: 3", "a: [", "trainer: {devices: {}, nodes: 1}", "\0", ""])
def test_a_configuration_that_somebody_has_broken(slurm: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert submit() == 0
    (slurm / "state").write_text("FAILED")
    Path("runs/demo/slurm/fit.yaml").write_text(text)
    assert submit("--resume", "demo", "--nodes", "2", words=()) == 2
    told = capsys.readouterr().err
    assert "The frozen configuration of runs/demo cannot be taken" in told and told.count("\n") == 1
    Path("runs/demo/slurm/fit.json").write_text("[]")
    assert submit("--resume", "demo", words=()) == 2
    assert "runs/demo/slurm/fit.json cannot be read" in capsys.readouterr().err


def test_names_that_are_none(slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("runs/old/a").mkdir(parents=True)
    Path("runs/old/a/run.json").write_text("{}")
    told = {
        "x" * 300: "a name of 300 bytes",
        "a\0b": "null",
        "runs/old": "Name one of them",
        "old/a": "never submitted",
    }
    for name, wanted in told.items():
        assert submit("--resume", name, words=()) == 2
        error = capsys.readouterr().err
        assert wanted in error and error.count("\n") == 1


def test_offline_nodes_of_another_profile(slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert submit(words=("fit", "--config", "a.yaml", "--run.wandb", "online")) == 0
    (slurm / "state").write_text("FAILED")
    Path("site.yaml").write_text("{offline: true}")
    assert submit("--resume", "demo", "--profile", "site.yaml", words=()) == 0
    assert config("runs/demo/slurm/fit.yaml")["run"]["wandb"] == "offline"
    assert "run.wandb is offline" in capsys.readouterr().err
