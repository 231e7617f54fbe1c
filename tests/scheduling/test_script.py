"""Job scripts as bash and sbatch read them: whatever stands in a name or a value reaches the program as it is."""

import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instructedit.errors import InputError
from instructedit.scheduling.profile import Container, Profile
from instructedit.scheduling.resources import Resources
from instructedit.scheduling.script import Script, job_name, render
from instructedit.scheduling.values import check_path, check_value, log_pattern, quoted, time_seconds

PLAIN = Script("fit", "demo", Path("/site/here"), Path("/site/here/runs/demo/slurm"), ("fit", "--config=/c.yaml"))

RECORDER = """#!/bin/bash
[[ "$*" == *mkdir* ]] && exit 0
{ printf '%s\\0' "$PWD" "$INSTRUCTEDIT_MAX_REQUEUES" "$MASTER_ADDR" "$VALUE"; printf '%s\\0' "$@"; } > "$RECORD"
"""

HOSTILE = [
    "; touch pwned",
    "$(touch pwned)",
    "`touch pwned`",
    'it\'s "quoted" \\ $HOME',
    "-rf",
    "--wrap=x",
    "a\nb",
    "%j %A_%a",
    "é日本 ~ * ? [a] {b,c} !x #y",
    "",
    "|| true && :",
]

# Everything but the null character, which no argument can hold.
texts = st.one_of(
    st.sampled_from(HOSTILE), st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=30)
)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an srun that writes down what it is given, and a scontrol that knows two nodes."""
    folder = tmp_path_factory.mktemp("programs")
    for name, text in (
        ("srun", RECORDER),
        ("scontrol", "#!/bin/bash\necho first; echo second\n"),
        ("module", "#!/bin/bash\n"),
    ):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def run(text: str, programs: Path, folder: Path, **environment: str) -> list[str]:
    """Let bash run a script; return its folder, cap, master, VALUE, and srun's arguments."""
    record = folder / "record"
    record.unlink(missing_ok=True)
    given = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "RECORD": str(record),
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "n",
    }
    done = subprocess.run(["bash"], input=text.encode(), env=given | environment, cwd=folder, capture_output=True)
    assert done.returncode == 0, (text, done.stderr)
    return record.read_bytes().decode().split("\0")[:-1]


def test_what_reaches_the_program(programs: Path, tmp_path: Path) -> None:
    for hostile in HOSTILE:
        place = tmp_path / (re.sub(r"[/\n]", "_", hostile) or "empty")
        place.mkdir(exist_ok=True)
        script = replace(PLAIN, folder=place, arguments=("fit", f"--config={hostile}", hostile))
        profile = Profile(environment={"VALUE": hostile}, python="/my python", scratch="/tmp/$SLURM_JOB_ID")
        found = run(render(script, Resources(max_requeues=3), profile), programs, tmp_path)
        assert found[:4] == [str(place), "3", "first", hostile]
        assert found[-5:] == ["/my python", "-m", "instructedit", "fit", f"--config={hostile}", hostile][1:]
        assert found[4] == "--kill-on-bad-exit=1"
    assert not list(tmp_path.rglob("pwned"))


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arguments=st.lists(texts, max_size=4), value=texts, module=texts.filter(bool))
def test_any_text_reaches_the_program(
    programs: Path, tmp_path: Path, arguments: list[str], value: str, module: str
) -> None:
    script = replace(PLAIN, folder=tmp_path, arguments=("fit", *arguments))
    text = render(script, Resources(), Profile(environment={"VALUE": value}, modules=(module,), python="py"))
    found = run(text, programs, tmp_path)
    assert found[3] == value and found[found.index("py") :] == ["py", "-m", "instructedit", "fit", *arguments]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["record"]


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(configs=st.lists(texts, min_size=1, max_size=4), flags=st.lists(texts, max_size=2), data=st.data())
def test_each_task_of_an_array_has_its_own_configuration(
    programs: Path, tmp_path: Path, configs: list[str], flags: list[str], data: st.DataObject
) -> None:
    script = replace(PLAIN, folder=tmp_path, arguments=("fit",), points=tuple(configs), flags=tuple(flags))
    number = data.draw(st.integers(0, len(configs) - 1))
    text = render(script, Resources(), Profile(python="py"))
    array = {"SLURM_ARRAY_TASK_ID": str(number), "SLURM_ARRAY_JOB_ID": "6"}
    found = run(text, programs, tmp_path, **array)
    assert found[found.index("py") + 3 :] == ["fit", f"--config={configs[number]}", *flags]
    assert f"#SBATCH --array=0-{len(configs) - 1}\n" in text


def as_sbatch_reads(line: str) -> list[str]:
    """The options of an ``#SBATCH`` line: quotes join, a backslash takes the next character, ``#`` ends the line."""
    words, word, quote, rest = [], None, "", iter(line)
    for character in rest:
        if character == "\\":
            word = (word or "") + next(rest, "")
        elif quote:
            word, quote = (word or "") + (character if character != quote else ""), quote if character != quote else ""
        elif character in "\"'":
            word, quote = word or "", character
        elif character == "#":
            break
        elif character.isspace():
            words += [word] if word is not None else []
            word = None
        else:
            word = (word or "") + character
    return words + ([word] if word is not None else [])


@given(texts)
def test_a_path_in_an_sbatch_line(text: str) -> None:
    path = f"/runs/{text}/slurm"
    try:
        check_path(path, "The path")
    except InputError:
        assert "\\" in text or re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]|hetjob|packjob", text, re.IGNORECASE)
        return
    (option,) = as_sbatch_reads(f"--output={quoted(log_pattern(path, '%j'))}")
    shown = re.sub("%(.)", lambda found: {"%": "%", "j": "<job>"}[found[1]], option)
    assert shown == f"--output={path}/<job>.log"


@given(texts)
def test_a_job_name_is_plain(text: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", job_name(text)) and "hetjob" not in job_name(text).lower()


def test_the_rules_of_a_job() -> None:
    text = render(PLAIN, Resources(nodes=2, tasks_per_node=4, gpus_per_node=4, cpus_per_task=8, time="60"), Profile())
    lines = text.splitlines()
    wanted = [
        "--requeue",
        "--open-mode=append",
        "--signal=USR1@300",
        "--ntasks-per-node=4",
        "--gpus-per-node=4",
        "--time=60",
    ]
    assert {f"#SBATCH {option}" for option in wanted} <= set(lines)
    assert not re.search(r"#SBATCH --(ntasks|gpus|array|partition)=", text)
    assert "\nexec srun --kill-on-bad-exit=1 --export=ALL --cpus-per-task=8 " in text
    # sbatch stops reading at the first line that is no comment.
    first = next(place for place, line in enumerate(lines) if line and not line.startswith("#"))
    assert not [line for line in lines[first:] if line.startswith("#SBATCH")]
    assert subprocess.run(["bash", "-n"], input=text.encode()).returncode == 0


def test_what_the_ranks_start_with(programs: Path, tmp_path: Path) -> None:
    # Whatever sbatch was told to export, srun hands on what the script has set.
    found = run(render(replace(PLAIN, folder=tmp_path), Resources(), Profile(python="py")), programs, tmp_path)
    assert "--export=ALL" in found
    # The shell before Python ignores the signals that Python handles later.
    start = found.index("sh")
    assert found[start + 4 :] == ["py", "-m", "instructedit", "fit", "--config=/c.yaml"]
    shell = [*found[start : start + 4], "bash", "-c", "kill -USR1 $$; kill -TERM $$; echo on"]
    assert subprocess.run(shell, capture_output=True, text=True).stdout == "on\n"


def test_the_file_of_a_command_that_ends_well(programs: Path, tmp_path: Path) -> None:
    logs = tmp_path / "it's a folder"
    logs.mkdir()
    (logs / "7.ended").touch()
    (programs / "srun").write_text(RECORDER.replace("$VALUE", "$INSTRUCTEDIT_ENDED"))
    try:
        script = replace(PLAIN, command="evaluate", folder=tmp_path, logs=logs)
        assert run(render(script, Resources(), Profile()), programs, tmp_path)[3] == str(logs / "7.ended")
        assert not (logs / "7.ended").exists()
        # A training tells it in its run directory.
        assert run(render(replace(script, command="fit"), Resources(), Profile()), programs, tmp_path)[3] == ""
    finally:
        (programs / "srun").write_text(RECORDER)


def test_the_log_of_a_folder_that_needs_quotes() -> None:
    text = render(replace(PLAIN, logs=Path('/a b/"c"/50%/slurm')), Resources(), Profile())
    assert '#SBATCH --output="/a b/\\"c\\"/50%%/slurm/%j.log"\n' in text
    with pytest.raises(InputError, match="a backslash"):
        render(replace(PLAIN, logs=Path("/a\\b")), Resources(), Profile())


def test_the_requests_of_a_profile() -> None:
    profile = Profile(
        gpus_request="gres", gpu_type="a100", constraint="a&b", sbatch_options=("--exclusive", "--licenses=x:1")
    )
    text = render(PLAIN, Resources(gpus_per_node=2, mem="8G", options=("--nice=5",)), profile)
    for option in ("--gres=gpu:a100:2", '--constraint="a&b"', "--exclusive", "--licenses=x:1", "--nice=5", "--mem=8G"):
        assert f"#SBATCH {option}\n" in text


def test_containers(programs: Path, tmp_path: Path) -> None:
    script = replace(PLAIN, folder=tmp_path)
    apptainer = Profile(container=Container("apptainer", "/my image.sif", ("/data:/d",)))
    found = run(render(script, Resources(gpus_per_node=1), apptainer), programs, tmp_path)
    start = found.index("apptainer")
    assert found[start:] == [
        *("apptainer", "exec", "--nv", f"--pwd={tmp_path}", f"--bind={tmp_path}", "--bind=/site/here/runs/demo"),
        *("--bind=/data:/d", "/my image.sif", "python", "-m", "instructedit", "fit", "--config=/c.yaml"),
    ]
    pyxis = Profile(container=Container("pyxis", "docker://x", ("/data",)))
    found = run(render(script, Resources(), pyxis), programs, tmp_path)
    assert "--container-image=docker://x" in found and f"--container-workdir={tmp_path}" in found
    mounts = f"{tmp_path}:{tmp_path},/site/here/runs/demo:/site/here/runs/demo,/data:/data"
    assert f"--container-mounts={mounts}" in found


@pytest.mark.parametrize(
    ("kind", "value"), [("partition", "gpu\n#SBATCH -A x"), ("time", "1:2:3:4"), ("mem", "8 G"), ("job", "1;2")]
)
def test_values_that_no_line_may_hold(kind: str, value: str) -> None:
    with pytest.raises(InputError):
        check_value(kind, value, f"--{kind}")


def test_time_limits_in_seconds() -> None:
    given = ("90", "1:30", "1:00:00", "2-12", "1-0:30")
    assert [time_seconds(text) for text in given] == [5400, 90, 3600, 216000, 88200]
