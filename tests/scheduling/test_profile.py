"""Site profiles: the shipped ones, where they are found, and what is refused."""

import configparser
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from instructedit.errors import InputError
from instructedit.scheduling.profile import Profile, as_content, find_profile, make_profile, read_profile, shipped
from instructedit.scheduling.script import TEMPLATE

SHIPPED = Path(__file__).parents[2] / "slurm" / "profiles"


def test_the_default_profile_shows_every_field_with_its_default() -> None:
    path = SHIPPED / "default.yaml"
    assert set(yaml.safe_load(path.read_text())) == {field.name for field in fields(Profile)}
    assert read_profile(path) == Profile()


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_profiles_are_read_and_kept(path: Path) -> None:
    profile = read_profile(path)
    assert make_profile(as_content(profile), "kept") == profile


def test_values_are_the_texts_they_are(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("{time: 12:00:00, offline: true, environment: {A: yes, B: 010, C: 1:30}, setup: 'a\n\n  b'}")
    found = read_profile(path)
    assert (found.time, found.offline) == ("12:00:00", True)
    assert found.environment == {"A": "yes", "B": "010", "C": "1:30"}


def test_where_profiles_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert find_profile(None) == SHIPPED / "default.yaml"
    mine = tmp_path / "config" / "instructedit" / "profiles" / "default.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("{time: 60}")
    assert find_profile(None) == mine
    here = Path("slurm/profiles/default.yaml")
    here.parent.mkdir(parents=True)
    here.write_text("{time: 30}")
    assert find_profile("default") == here
    monkeypatch.setenv("INSTRUCTEDIT_PROFILE", "container")
    assert find_profile(None) == SHIPPED / "container.yaml"
    assert find_profile(str(mine)) == mine
    with pytest.raises(InputError, match="Did you mean 'container'"):
        find_profile("contaner")
    with pytest.raises(InputError, match="No profile at"):
        find_profile("no/such.yaml")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{partitoin: gpu}", "Did you mean 'partition'"),
        ("{partition: 'gpu; rm'}", "partition is 'gpu; rm'"),
        ('{account: "a\\nb"}', "account is"),
        ("{time: soon}", "minutes, HH:MM:SS"),
        ("{mem: 64 GB}", "such as 64G"),
        ("{cpus_per_task: many}", "a whole number"),
        ("{cpus_per_task: 0}", "1 or more"),
        ("{gpus_request: gpus}", "one of gpus-per-node, gres"),
        ("{offline: maybe}", "true or false"),
        ("{modules: cuda}", "a list of texts"),
        ("{environment: {WANDB_API_KEY: abc}}", "no place for keys"),
        ("{environment: {HF_TOKEN: abc}}", "no place for keys"),
        ("{environment: {'A;B': c}}", "no variable's name"),
        ("{environment: [A]}", "names and values"),
        ("{sbatch_options: [--output=x]}", "which the job script sets itself"),
        ("{sbatch_options: [--out=x]}", "--out (short for --output), which the job script sets itself"),
        ("{sbatch_options: [--arr=0-5]}", "short for --array"),
        ("{sbatch_options: [--no-req]}", "short for --no-requeue"),
        ("{sbatch_options: [-o/x]}", "--name or --name=value"),
        ("{sbatch_options: [-J]}", "--name or --name=value"),
        ("{sbatch_options: ['--comment=a b']}", "without spaces"),
        ("{sbatch_options: [-p gpu]}", "--name or --name=value"),
        ("{srun_options: [mpi]}", "begin with --"),
        ("{srun_options: ['--export=NONE']}", "needs the variables that the script sets"),
        ("{signal_seconds: 0}", "Give 1 to 65535"),
        ("{signal_seconds: 70000}", "Give 1 to 65535"),
        ("[" * 5000, "brackets are too deep"),
        ("{scratch: '/tmp/$(id)'}", "plain characters and variables"),
        ("{container: {image: ''}}", "needs an image"),
        ("{container: {runtime: docker, image: x}}", "one of apptainer, pyxis"),
        ("{container: {image: x, mounts: ['a,b']}}", "has a comma"),
        ("[a]", "fields and values"),
        ("{a: [", "cannot be read"),
    ],
)
def test_refusals(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_profile(path)
    assert told in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "{srun_options: ['--export=ALL,WANDB_API_KEY=sesame']}",
        "{sbatch_options: ['--export=ALL,HF_TOKEN=sesame']}",
        "{setup: ['export WANDB_API_KEY=sesame']}",
        "{setup: ['a; env HF_TOKEN=\"sesame\" b']}",
        "{setup: ['hf auth login --token hf_sesame0123456789abcdef01']}",
        "{setup: ['wandb login sesame7890123456789012345678901234567890']}",
        "{environment: {GITHUB_PAT: sesame}}",
        "{environment: {MY_KEY_ID: sesame}}",
        "{environment: {OPENAI_APIKEY: sesame}}",
        "{environment: {KEY: sesame}}",
        "{environment: {db_passphrase: sesame}}",
        "{environment: {PLAIN: hf_sesame0123456789abcdef01}}",
    ],
)
def test_keys_are_refused_and_not_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match="no place for keys") as error:
        read_profile(path)
    assert "sesame" not in str(error.value) and "\n" not in str(error.value)


def test_what_only_sounds_like_a_key(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    names = (
        "KEYBOARD",
        "TOKENIZERS_PARALLELISM",
        "HF_TOKEN_PATH",
        "PATH",
        "NCCL_IB_PKEY",
        "PWD",
        "MAX_TOKENS",
        "COMPAT",
    )
    path.write_text(
        yaml.safe_dump(
            {
                "environment": dict.fromkeys(names, "1"),
                "setup": [
                    'export WANDB_API_KEY="$(cat ~/.wandb-key)"',
                    "export HF_TOKEN=$MY_TOKEN",
                    "sort --key=2 a > b",
                    "export HF_TOKEN_PATH=/home/me/token",
                ],
                "srun_options": ["--export=ALL,KEYBOARD=us", "--mpi=none"],
                "sbatch_options": ["--mem-bind=local", "--exclusive", "--gpus-per-task=1", "--wait-all-nodes=1"],
                "constraint": "[rack1*2&rack2*4]",
            }
        )
    )
    assert read_profile(path).constraint == "[rack1*2&rack2*4]"


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    for name in ("x" * 300, f"./{'x' * 300}.yaml", "a\0b"):
        with pytest.raises(InputError, match="The profile"):
            find_profile(name)


def test_an_install_brings_template_and_profiles() -> None:
    root = SHIPPED.parents[1]
    told = configparser.ConfigParser()
    told.read(root / "setup.cfg")
    files = told["options.data_files"]
    assert [path.name for path in root.glob(files["share/instructedit/slurm"])] == [TEMPLATE]
    assert set(root.glob(files["share/instructedit/slurm/profiles"])) == set(SHIPPED.iterdir())
    assert all((folder / TEMPLATE).is_file() for folder in shipped()[:1])
