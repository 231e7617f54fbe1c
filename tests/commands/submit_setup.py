"""A place to submit in, with recorders in SLURM's place, for the tests of `submit`."""

import json
import os
from pathlib import Path

import pytest
import yaml

from tests.lightning_modules.conftest import run

SBATCH = """#!/bin/bash
printf '%s\\n' "$*" >> "$FAKE_SLURM/calls"
count=$(wc -l < "$FAKE_SLURM/calls")
[ "$count" = "$(cat "$FAKE_SLURM/refused" 2>/dev/null)" ] && { echo "sbatch: error: invalid partition" >&2; exit 1; }
echo $((100 + count))
"""
SCONTROL = """#!/bin/bash
tell() { # id
    local id=$1 state reason
    for state in "$FAKE_SLURM"/{state-$id,state-${id%_*},state}; do [ -e "$state" ] && break; done
    [ "$(cat "$state")" = UNKNOWN ] && { echo "slurm_load_jobs error: Invalid job id specified" >&2; return 1; }
    [ "$(cat "$state")" = NO_TASK ] && { echo "Job $id not found"; return 1; }
    reason=$(cat "$FAKE_SLURM/reason-$id" 2>/dev/null || echo None)
    echo "JobId=$id JobState=$(cat "$state") Reason=$reason Restarts=0 NodeList=n1 ExitCode=0:0"
}
[ "${@: -1}" != -o ] && { tell "${@: -1}"; exit; }
# Without a job: all that were submitted and are known.
for ((id = 101; id <= 100 + $(wc -l < "$FAKE_SLURM/calls"); id++)); do tell "$id" 2>/dev/null | grep ^JobId; done
exit 0
"""
SCANCEL = """#!/bin/bash
[ -e "$FAKE_SLURM/no-cancel" ] && { echo "scancel: error: Kill job error: Access/permission denied" >&2; exit 1; }
echo "$1" >> "$FAKE_SLURM/cancelled"
"""

EXPERIMENT = {
    "run": {"name": "demo"},
    "model": {"base": "somewhere/base"},
    "data": {"tasks": ["recent"]},
    "trainer": {"max_steps": 6, "accelerator": "cpu"},
}


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to submit in; what the recorders note lies in the folder that is returned."""
    folder, bin = tmp_path / "slurm-calls", tmp_path / "bin"
    folder.mkdir()
    bin.mkdir()
    for name, text in (("sbatch", SBATCH), ("scontrol", SCONTROL), ("scancel", SCANCEL)):
        (bin / name).write_text(text)
        (bin / name).chmod(0o755)
    (folder / "state").write_text("RUNNING")
    place = tmp_path / "place"
    place.mkdir()
    (place / "a.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    monkeypatch.chdir(place)
    monkeypatch.setenv("FAKE_SLURM", str(folder))
    monkeypatch.setenv("PATH", f"{bin}:{os.environ['PATH']}")
    for name in ("INSTRUCTEDIT_DEBUG", "INSTRUCTEDIT_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return folder


def submit(*argv: object, words: tuple[object, ...] = ("fit", "--config", "a.yaml")) -> int:
    return run("submit", "--no-preflight", *argv, *(("--", *words) if words else ()))


def calls(slurm: Path) -> list[str]:
    return (slurm / "calls").read_text().splitlines() if (slurm / "calls").exists() else []


def config(path: str) -> dict[str, dict[str, object]]:
    return dict(yaml.safe_load(Path(path).read_text()))


def prepared(folder: str, task: str) -> None:
    """A task as the preflight sees it."""
    for split in ("train", "validation", "test"):
        Path(folder, task, split).mkdir(parents=True)
        Path(folder, task, split, "state.json").touch()


def base(folder: str) -> None:
    """A base as the preflight sees it."""
    Path(folder).mkdir(parents=True)
    sizes = {"vocab_size": 100, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 4}
    content = {"model_type": "llama", "num_attention_heads": 2, **sizes}
    Path(folder, "config.json").write_text(json.dumps(content))
    for name in ("model.safetensors", "tokenizer.json"):
        Path(folder, name).touch()
