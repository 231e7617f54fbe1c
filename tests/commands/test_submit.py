"""The command submit, with recorders in SLURM's place; the real one is asked in tests/slurm."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from instructedit.runs.jobs import read_jobs
from instructedit.runs.progress import Progress, write_progress
from instructedit.scheduling.preflight import Finding
from tests.commands.submit_setup import base, calls, config, prepared, slurm, submit
from tests.lightning_modules.conftest import run

__all__ = ["slurm"]

ROOT = Path(__file__).parents[2]


def test_a_training(slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert submit("--time", "20", words=("fit", "--config", "a.yaml", "--model.lr", "2e-4")) == 0
    script = Path("runs/demo/slurm/fit.sbatch")
    assert calls(slurm) == [f"--parsable {script.resolve()}"]
    assert f"fit --config={Path.cwd()}/runs/demo/slurm/fit.yaml" in script.read_text()
    frozen = config("runs/demo/slurm/fit.yaml")
    assert frozen["model"] == {"base": "somewhere/base", "lr": 2e-4}
    assert frozen["trainer"] == {"max_steps": 6, "accelerator": "cpu", "num_nodes": 1, "devices": 1}
    (job,) = read_jobs(Path("runs/demo"))
    assert (job.id, job.command, job.script, job.log) == ("101", "fit", "slurm/fit.sbatch", "slurm/101.log")
    assert json.loads(Path("runs/demo/run.json").read_text())["wandb_id"]
    out = capsys.readouterr().out
    assert "job 101" in out and "runs/demo/slurm/101.log" in out and "instructedit status runs/demo" in out


def test_a_dry_run_writes_nothing(slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert submit("--dry-run", "--after", "9") == 0
    out = capsys.readouterr().out
    assert "#SBATCH --requeue" in out and "base: somewhere/base" in out and "--dependency=afterok:9" in out
    assert not Path("runs").exists() and not calls(slurm)


def test_processes_are_those_of_the_job(slurm: Path) -> None:
    cpu = ("--trainer.devices", "3")
    assert submit("--nodes", "2", words=("fit", "--config", "a.yaml", *cpu)) == 0
    script = Path("runs/demo/slurm/fit.sbatch").read_text()
    assert "--ntasks-per-node=3" in script and "--nodes=2" in script and "gpus" not in script.replace("a GPU", "")
    gpu = ("--trainer.accelerator", "gpu", "--run.name", "gpu")
    assert submit("--gpus-per-node", "4", words=("fit", "--config", "a.yaml", *gpu)) == 0
    assert "--gpus-per-node=4" in Path("runs/gpu/slurm/fit.sbatch").read_text()
    assert config("runs/gpu/slurm/fit.yaml")["trainer"] == {
        **{"max_steps": 6, "accelerator": "gpu", "num_nodes": 1, "devices": 4}
    }


def test_a_group(slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert submit("--sweep", "model.lr=1e-4,2e-4", "--array", "seed=0..1", "--at-once", "3") == 0
    group = Path("runs/demo")
    names = [f"lr-{lr}_seed-{seed}" for lr in ("1e-4", "2e-4") for seed in (0, 1)]
    assert sorted(path.name for path in group.iterdir()) == sorted([*names, "slurm"])
    assert len(calls(slurm)) == 1 and "#SBATCH --array=0-3%3" in (group / "slurm/fit.sbatch").read_text()
    for number, name in enumerate(names):
        (job,) = read_jobs(group / name)
        assert (job.id, job.log, job.script) == (f"101_{number}", f"../slurm/101_{number}.log", "../slurm/fit.sbatch")
        frozen = config(f"runs/demo/{name}/slurm/fit.yaml")
        assert frozen["run"] == {"name": name, "folder": "runs/demo", "wandb_group": "demo"}
        assert frozen["seed_everything"] == number % 2
        assert (
            f"{number}) config={Path.cwd()}/runs/demo/{name}/slurm/fit.yaml ;;"
            in (group / "slurm/fit.sbatch").read_text()
        )
    assert "4 runs" in capsys.readouterr().out
    assert run("submit", "--no-preflight", "--", "fit", "--config", "a.yaml") == 2
    assert "is a group of runs" in capsys.readouterr().err


def test_an_array_of_a_study(slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("reproduce", "--study", "plan.yaml", "--threads", "4")
    assert submit("--array", "only=mend-0,base", "--at-once", "2", words=words) == 0
    (home,) = Path("runs/jobs").iterdir()
    script = (home / "slurm/reproduce.sbatch").read_text()
    assert len(calls(slurm)) == 1 and "#SBATCH --array=0-1%2" in script and 'reproduce --config="$config"' in script
    for number, name in enumerate(("mend-0", "base")):
        path = home / f"only-{name}/slurm/reproduce.yaml"
        assert f"{number}) config={path.absolute()} ;;" in script
        assert config(str(path)) == {"study": "plan.yaml", "threads": 4, "only": name}
    assert [job.id for job in read_jobs(home)] == ["101"]
    out = capsys.readouterr().out
    assert "reproduce: array 101\n" in out and "101_" in out
    # An array is made of the first command that can be one; the others behind it wait for all of it.
    assert submit("--array", "only=base", words=("prepare", "--then", *words)) == 0
    assert all("--array=" not in path.read_text() for path in Path("runs").glob("**/prepare*.sbatch"))


def test_a_group_of_another_name_at_wandb(slurm: Path) -> None:
    words = ("fit", "--config", "a.yaml", "--run.wandb_group", "mine")
    assert submit("--array", "seed=0", words=words) == 0
    assert config("runs/demo/seed-0/slurm/fit.yaml")["run"]["wandb_group"] == "mine"


def test_a_long_configuration_may_stand_in_the_line(slurm: Path) -> None:
    tags = ", ".join(f"tag-{number}" for number in range(100))
    assert submit(words=("fit", "--config", "a.yaml", "--config", f"{{run: {{wandb_tags: [{tags}]}}}}")) == 0
    assert len(config("runs/demo/slurm/fit.yaml")["run"]["wandb_tags"]) == 100  # type: ignore[arg-type]


def test_a_folder_that_was_removed(slurm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    try:
        assert submit(words=("fit", "--run.name", "x")) == 2
        assert "The folder you are in was removed" in capsys.readouterr().err
        assert submit("--resume", "x", words=()) == 2
        assert capsys.readouterr().err.count("\n") == 1
    finally:
        os.chdir(tmp_path)


def test_a_larger_array_leaves_out_what_is_done(slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert submit("--array", "seed=0..1") == 0
    (slurm / "state").write_text("FAILED")
    write_progress(Path("runs/demo/seed-0"), Progress("done", 6, 6))
    assert submit("--array", "seed=0..2") == 0
    assert "left out, being done: seed-0" in capsys.readouterr().err
    assert [job.id for job in read_jobs(Path("runs/demo/seed-2"))] == ["102_1"]
    assert len(read_jobs(Path("runs/demo/seed-0"))) == 1


def test_a_chain(slurm: Path) -> None:
    chain = (
        "fit",
        "--config",
        "a.yaml",
        "--then",
        "validate",
        "--from_run",
        "runs/demo",
        "--then",
        "evaluate",
        "--base=x",
    )
    assert submit("--after", "7_1", words=chain) == 0
    folder = Path("runs/demo/slurm").resolve()
    behind = "--kill-on-invalid-dep=yes"
    assert calls(slurm) == [
        f"--parsable --dependency=afterok:7_1 {behind} {folder}/fit.sbatch",
        f"--parsable --dependency=afterok:101 {behind} {folder}/validate.sbatch",
        f"--parsable --dependency=afterok:102 {behind} {folder}/evaluate.sbatch",
    ]
    # The run is not there yet, so its settings are read when the job starts.
    assert "instructedit validate --from_run runs/demo\n" in (folder / "validate.sbatch").read_text()
    assert [(job.command, job.after) for job in read_jobs(Path("runs/demo"))] == [
        *(("fit", ("7_1",)), ("validate", ("101",)), ("evaluate", ("102",)))
    ]


def test_other_commands(slurm: Path) -> None:
    assert submit(words=("evaluate", "--name", "table", "--base", "x")) == 0
    assert config("evaluations/table/slurm/evaluate.yaml") == {"name": "table", "base": "x"}
    assert submit(words=("prepare", "--source", "demo")) == 0
    (folder,) = Path("runs/jobs").iterdir()
    assert "gpus-per-node" not in (folder / "slurm/prepare.sbatch").read_text()


@pytest.mark.parametrize("refused", [1, 2])
def test_nothing_is_left_when_a_job_is_refused(slurm: Path, refused: int, capsys: pytest.CaptureFixture[str]) -> None:
    (slurm / "refused").write_text(str(refused))
    chain = ("fit", "--config", "a.yaml", "--then", "evaluate", "--base", "x")
    assert submit(words=chain) == 2
    assert "sbatch: error: invalid partition" in capsys.readouterr().err
    assert sorted(path.name for path in Path().iterdir()) == ["a.yaml"]
    cancelled = slurm / "cancelled"
    assert (cancelled.read_text().split() if cancelled.exists() else []) == ["101"][: refused - 1]


def test_a_refused_job_leaves_an_earlier_one_as_it_was(slurm: Path) -> None:
    assert submit() == 0
    (slurm / "state").write_text("FAILED")
    before = {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()}
    (slurm / "refused").write_text("2")
    assert submit(words=("fit", "--config", "a.yaml", "--model.lr", "1")) == 2
    assert {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()} == before


def test_compute_nodes_without_internet(slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("site.yaml").write_text("{offline: true}")
    assert submit("--profile", "site.yaml", words=("fit", "--config", "a.yaml", "--run.wandb", "online")) == 0
    assert config("runs/demo/slurm/fit.yaml")["run"]["wandb"] == "offline"
    assert "export HF_HUB_OFFLINE=1" in Path("runs/demo/slurm/fit.sbatch").read_text()
    assert "run.wandb is offline" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words", "told"),
    [
        ((), (), "There is no command"),
        ((), ("status",), "Unknown command to submit"),
        ((), ("fit", "--config", "a.yaml", "--then"), "no command before or behind --then"),
        ((), ("fit", "--config", "a.yaml", "--modle.base", "x"), "Did you mean 'model.base'"),
        (("--nodse", "2"), ("fit",), "--nodse"),
        (("--time", "soon"), ("fit", "--config", "a.yaml"), "--time is 'soon'"),
        (("--time", "5"), ("fit", "--config", "a.yaml"), "under twice the 300 s"),
        (("--nodes", "0"), ("fit", "--config", "a.yaml"), "--nodes is 0"),
        (("--gpus-per-node", "2"), ("fit", "--config", "a.yaml"), "trainer.accelerator is cpu"),
        (("--gpus-per-node", "0"), ("fit", "--config", "a.yaml", "--trainer.accelerator", "gpu"), "no GPU"),
        (("--nodes", "2"), ("evaluate", "--base", "x"), "Only fit runs on several"),
        (("--array", "seed=0..3"), ("evaluate", "--base", "x"), "make runs of `fit`"),
        (("--array", "run.name=a,b"), ("fit", "--config", "a.yaml"), "the same for all points"),
        (("--after", "1;2"), ("fit", "--config", "a.yaml"), "--after is '1;2'"),
        (("--option=--output=x",), ("fit", "--config", "a.yaml"), "sets itself"),
        (("--option=--out=x",), ("fit", "--config", "a.yaml"), "short for --output"),
        (("--option=-J",), ("fit", "--config", "a.yaml"), "--name or --name=value"),
        (("--option=--export=ALL,HF_TOKEN=x",), ("fit", "--config", "a.yaml"), "gives HF_TOKEN a value"),
        (("--nodes", "1e9"), ("fit", "--config", "a.yaml"), "--nodes is '1e9'. Give a whole number.\n"),
        (("--gpus-per-node=2x",), ("fit", "--config", "a.yaml"), "--gpus-per-node is '2x'. Give a whole number.\n"),
        ((), ("fit", "--config", "a.yaml", "--trainer.num_nodes", "-1"), "trainer.num_nodes is -1"),
        (("--at-once", "2"), ("fit", "--config", "a.yaml"), "--at-once is for the runs of a group"),
        (("--at-once", "0", "--array", "seed=1"), ("fit", "--config", "a.yaml"), "--at-once is 0"),
        (("--sweep", "model.editor={rank: 3}"), ("fit", "--config", "a.yaml"), "such as model.editor."),
        (("--profile", "x" * 300), ("fit", "--config", "a.yaml"), "a name of 300 bytes"),
        ((), ("fit", "--config", "a.yaml", "--run.name", "x" * 300), "run.name has a name of 300 bytes"),
        ((), ("fit", "--config", '{run: {name: "a\\0b"}}'), "a null character"),
        ((), ("validate", "--from_run", "x" * 300), "a name of 300 bytes"),
        ((), ("evaluate", "--base", "x", "--name", "x" * 300), "a name of 300 bytes"),
        ((), ("fit", "--config", "[" * 5000), "No configuration at"),
        ((), ("fit", "--config", "deep.yaml"), "brackets are too deep"),
        (("--partition", "a b"), ("fit", "--config", "a.yaml"), "--partition is 'a b'"),
        (("--resume", "runs/demo"), ("fit",), "neither a command nor points"),
        (("--resume", "nowhere"), (), "No run at 'nowhere'"),
        ((), ("fit", "--config", "a.yaml", "--run.name", "a\\b"), "a backslash"),
        ((), ("fit", "--config", "a.yaml", "--run.name", "a\nb"), "a line break"),
        ((), ("fit", "--config", "a.yaml", "--run.name", "a/b"), "Give the run a plain name"),
        ((), ("validate", "--config", "a.yaml"), "There is no run at 'runs/demo'"),
    ],
)
def test_refusals(
    slurm: Path, flags: tuple[str, ...], words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("deep.yaml").write_text("[" * 5000 + "]" * 5000)
    assert submit(*flags, words=words) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1 and len(error) < 600
    assert not calls(slurm) and not Path("runs").exists()


def test_a_command_before_the_dashes(slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("submit", "--nodes", "2", "fit", "--config", "a.yaml") == 2
    assert "'fit' stands before --" in capsys.readouterr().err


def test_variables_that_sbatch_prefers_are_told(
    slurm: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SBATCH_PARTITION", "debug")
    assert submit("--partition", "gpu") == 0
    assert "this shell has SBATCH_PARTITION" in capsys.readouterr().err


def test_without_slurm(slurm: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert submit() == 2
    assert "--dry-run" in capsys.readouterr().err and not Path("runs").exists()
    assert submit("--dry-run") == 0


def test_the_preflight_refuses(slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("submit", "--", "fit", "--config", "a.yaml", "--model.base", "./no-folder") == 2
    assert "--no-preflight" in capsys.readouterr().err and not Path("runs").exists()


def test_the_preflight_looks_at_every_point(
    slurm: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def looked(command: str, config: dict[str, dict[str, int]], *_: object, **__: object) -> list[Finding]:
        return [Finding("error" if config["data"]["batch"] == 3 else "warning", "told")]

    monkeypatch.setattr("instructedit.scheduling.preflight.preflight", looked)
    words = ("--", "fit", "--config", "a.yaml")
    assert run("submit", "--dry-run", "--sweep", "data.batch=4,8", *words) == 0
    assert capsys.readouterr().err.count("warning: told") == 1
    assert run("submit", "--dry-run", "--sweep", "data.batch=4,3", *words) == 2
    assert "error: batch-3: told" in capsys.readouterr().err


def test_a_dry_run_writes_nothing_while_it_looks(
    slurm: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Path("site.yaml").write_text("{free_space_command: touch asked; echo 1000}")
    prepared("d", "recent")
    base("b")
    words = ("--", "fit", "--config", "a.yaml", "--model.base", "./b", "--data.folder", "d")
    monkeypatch.setattr("tempfile.NamedTemporaryFile", None)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert run("submit", "--dry-run", "--profile", "site.yaml", *words) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert "free_space_command was not asked" in capsys.readouterr().err
    monkeypatch.undo()


def test_the_preflight_knows_the_jobs_environment_and_python(
    slurm: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    prepared("d", "recent")
    base("home/hub/models--some--model/snapshots/0")
    Path("home/hub/models--some--model/refs").mkdir()
    Path("home/hub/models--some--model/refs/main").write_text("0")
    words = ("--", "fit", "--config", "a.yaml", "--model.base", "some/model", "--data.folder", "d")
    Path("site.yaml").write_text("{offline: true}")
    assert run("submit", "--dry-run", "--profile", "site.yaml", *words) == 2
    assert "not in the Hub's cache" in capsys.readouterr().err
    Path("site.yaml").write_text(f"{{offline: true, environment: {{HF_HOME: {Path.cwd() / 'home'}}}}}")
    assert run("submit", "--dry-run", "--profile", "site.yaml", *words) == 0
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run("submit", "--dry-run", "--profile", "site.yaml", *words) == 2
    assert "needs the package lightning" in capsys.readouterr().err
    for other in ("python: /other/python", "container: {image: a.sif}"):
        Path("site.yaml").write_text(f"{{{other}, environment: {{HF_HOME: {Path.cwd() / 'home'}}}}}")
        assert run("submit", "--dry-run", "--profile", "site.yaml", *words) == 0


def test_what_follows_a_group_names_one_of_its_runs(slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepared("d", "recent")
    base("b")

    def submitted(editor: str) -> int:
        methods = f"[{{method: mend, editor: {editor}}}]"
        fit = ("fit", "--config", "a.yaml", "--model.base", "./b", "--data.folder", "d", "--model.method", "MEND")
        evaluate = ("evaluate", "--base", "./b", "--data", "d", "--tasks", "recent", "--methods", methods)
        return run("submit", "--dry-run", "--array", "seed=0..1", "--", *fit, "--then", *evaluate)

    assert submitted("runs/demo/editor") == 2
    told = capsys.readouterr().err
    assert "runs/demo is a group, and its runs have the editors: name one, such as runs/demo/seed-0/editor" in told
    assert submitted("runs/demo/seed-1/editor") == 0
    validate = ("--then", "validate", "--from_run", "runs/demo")
    assert submit("--array", "seed=0..1", words=("fit", "--config", "a.yaml", *validate)) == 2
    assert "No run at 'runs/demo'" in capsys.readouterr().err
    validate = ("--then", "validate", "--from_run", "runs/demo/seed-1")
    assert submit("--array", "seed=0..1", words=("fit", "--config", "a.yaml", *validate)) == 0


@pytest.mark.slow
def test_nothing_heavy_is_loaded_and_a_dry_run_is_quick(slurm: Path) -> None:
    code = (
        "import sys; from instructedit.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(sorted({'torch', 'transformers', 'lightning', 'datasets', 'wandb'} & set(sys.modules)))"
    )
    base = ROOT / "configs" / "experiment"
    words = ["fit", "--config", str(base / "demo.yaml"), "--config", "configs/trainer/cpu.yaml"]
    words += ["--run.folder", str(slurm)]  # this checkout may have a run of that name
    argv = [
        "submit",
        "--dry-run",
        "--no-preflight",
        "--sweep",
        "seed=0..9",
        "--",
        *words,
        "--then",
        "evaluate",
        "--base",
        "x",
    ]

    def seconds() -> float:
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-c", code, *argv], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout.splitlines()[-1] == "[]", (done.stdout[-500:], done.stderr)
        return time.monotonic() - began

    # By the clock; other work on the machine makes some of them slower.
    assert min(seconds() for _ in range(3)) < 2
    argv.remove("--no-preflight")
    looked = subprocess.run([sys.executable, "-c", code, *argv], cwd=ROOT, capture_output=True, text=True)
    assert looked.stdout.splitlines()[-1] == "[]"
