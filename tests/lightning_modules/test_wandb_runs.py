"""Real trainings with the real wandb: killed, stopped, resumed, offline and online (against a stand-in server).

What is read back is what wandb wrote: its own record types, or what its own client and `wandb sync` sent to the server.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from instructedit.comparison.wandb_files import files_of, records
from lightning_modules import wandb_logger
from tests.lightning_modules.conftest import rows, write_experiment
from tests.lightning_modules.wandb_server import WandbServer
from tests.processes.jobs import Job

pytestmark = pytest.mark.slow

KEY, TOKEN = "0123456789abcdef0123456789abcdef01234567", "hf_neverToBeSeenAnywhere"
STEPS = 12


def prepare(
    at: str = "0", what: str = "", wait: str = "0", url: str = "", key: str = KEY, init_seconds: str = "20"
) -> None:
    """In the training process: set keys, and at the loss of a step wait and send this process a signal."""
    os.environ.update(HF_TOKEN=TOKEN, WANDB_BASE_URL=url or "http://127.0.0.1:9", NETRC="/nonexistent")
    os.environ.pop("WANDB_API_KEY", None)
    if key:
        os.environ["WANDB_API_KEY"] = key
    wandb_logger.INIT_SECONDS = int(init_seconds)
    wandb_logger.FINISH_SECONDS = 5
    from lightning_modules import editor_module

    real = editor_module.meta_loss

    def counted(*args: Any) -> Any:
        counted.calls += 1  # type: ignore[attr-defined]
        if counted.calls == int(at):  # type: ignore[attr-defined]
            time.sleep(float(wait))
            os.kill(os.getpid(), signal.Signals[what])
        return real(*args)

    counted.calls = 0  # type: ignore[attr-defined]
    editor_module.meta_loss = counted  # type: ignore[assignment]


class Place:
    def __init__(self, folder: Path, prepared: Path, base: Path, mode: str, **changes: object) -> None:
        settings = {"trainer__max_steps": STEPS, "checkpoint__every_n_steps": 4, "run__wandb": mode}
        self.config = write_experiment(folder, prepared, base, **settings, **changes)
        self.run = folder / "runs" / "run"
        self.logs = folder / "logs"

    def start(self, **told: object) -> tuple[int, str]:
        """One start in a process of its own: its status and what it printed. ``at`` counts this start's steps."""
        patch = {key: str(value) for key, value in told.items()}
        job = Job(["--config", str(self.config)], 1, self.logs, f"{__name__}:prepare", patch)
        (code,) = job.wait()
        time.sleep(1.1)  # wandb names folders by the second
        return code, job.output()

    def csv(self) -> dict[int, dict[str, float]]:
        """What metrics.csv and throughput.csv hold, by step."""
        found: dict[int, dict[str, float]] = {}
        for name, prefix in (("metrics.csv", ""), ("throughput.csv", "throughput/")):
            for row in rows(self.run / name):
                values = {prefix + key: float(text) for key, text in row.items() if text and key != "step"}
                found.setdefault(int(row["step"]), {}).update(values)
        return found

    @property
    def id(self) -> str:
        return str(json.loads((self.run / "run.json").read_text())["wandb_id"])


@pytest.fixture
def server() -> Iterator[WandbServer]:
    server = WandbServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory, prepared: Path, llama_folder: Path) -> Place:
    """A run that was killed before anything was saved, stopped, killed again, and then finished."""
    shown = {"run__wandb_results": True, "run__wandb_editor": True, "run__wandb_tags": ["a"], "run__wandb_group": "g"}
    place = Place(tmp_path_factory.mktemp("offline"), prepared, llama_folder, "offline", **shown)
    wait = 2.5  # what came before is on the disk
    assert place.start(at=3, what="SIGKILL", wait=wait)[0] == 137
    assert place.start(at=5, what="SIGUSR1")[0] == 0
    assert place.start(at=5, what="SIGKILL", wait=wait)[0] == 137  # step 10
    code, told = place.start()
    assert code == 0, told
    assert "going on at step 9" in told and "Weights & Biases: offline;" in told and "wandb:" not in told
    return place


def values_of(items: Any) -> dict[str, Any]:
    return {"/".join([item.key, *item.nested_key]).strip("/"): json.loads(item.value_json) for item in items}


AGAIN = (1,)
"""Steps of `offline` that W&B has from a start that was killed: the next came to the same numbers, at its own pace."""


def assert_same(found: dict[str, Any], expected: dict[str, float], again: bool = False) -> None:
    """W&B has of a step what the run directory has, but for the times of one that was done again."""
    names = [name for name in expected if not (again and name.startswith("throughput/"))]
    assert len(names) > 5 and expected.keys() <= found.keys()
    assert {name: found[name] for name in names} == {name: expected[name] for name in names}


def test_offline_files_hold_every_step_once_in_order_under_one_id(offline: Place) -> None:
    files = files_of(offline.run / "wandb", offline.id)
    assert len(files) == 4
    history: list[tuple[int, dict[str, Any]]] = []
    ends = []
    for path in files:
        found = [record for _, record in records(path)]
        assert {r.run.run_id for r in found if r.WhichOneof("record_type") == "run"} == {offline.id}
        history += [(r.history.step.num, values_of(r.history.item)) for r in found if r.history.item]
        ends.append([r.exit.exit_code for r in found if r.WhichOneof("record_type") == "exit"])
    assert ends == [[], [1], [], [0]]  # killed, stopped, killed, finished
    assert [step for step, _ in history] == list(range(1, STEPS + 1))
    expected = offline.csv()
    own = ("_step", "_runtime", "_timestamp", "step")
    for step, values in history:
        assert values["_step"] == values["step"] == step
        assert values.keys() - expected[step].keys() == set(own)
        assert_same(values, expected[step], step in AGAIN)
    assert "val/score" in expected[3] and "throughput/tokens_per_second" in expected[3]
    assert history[0][1]["throughput/device_seconds"] != expected[1]["throughput/device_seconds"]


def test_offline_files_hold_configuration_summary_rows_and_editor(offline: Place) -> None:
    path = files_of(offline.run / "wandb", offline.id)[-1]
    found = [record for _, record in records(path)]
    (run,) = [record.run for record in found if record.WhichOneof("record_type") == "run"]
    assert (run.project, run.run_group, run.job_type, list(run.tags)) == ("instructedit", "g", "fit", ["a"])
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    known = json.loads((offline.run / "run.json").read_text())
    assert config["model"]["lr"] == 1e-3 and config["data"]["mix"]["locality"] == 2
    made = config["provenance"]
    assert (made["base_fingerprint"], made["data_sha256"]) == (known["fingerprint"], known["data_sha256"])
    assert [start["step"] for start in made["starts"]] == [0, 5, 9] and made["commit"]

    summary: dict[str, Any] = {}
    for record in found:
        summary |= values_of(record.summary.update)
    table = json.loads((offline.run / "results" / "test.json").read_text())["Token accuracy"]
    for row, cells in table.items():
        task, _, method = row.partition(" / ")
        for metric, cell in cells.items():
            assert summary[f"test/{method}/{task}/{metric}"] == pytest.approx(cell["mean"])
    best = max(offline.csv().values(), key=lambda row: row.get("val/score", -1.0))["val/score"]
    assert summary["val/best_score"] == best and summary["skipped_steps"] == 0
    progress = json.loads((offline.run / "progress.json").read_text())
    assert 0.9 * progress["device_seconds"] < summary["gpu_hours"] * 3600 < progress["device_seconds"] + 20

    artifacts = {r.artifact.type: r.artifact for r in found if r.WhichOneof("record_type") == "artifact"}
    editor = artifacts["editor"]
    assert editor.name == "run-editor" and json.loads(editor.metadata)["base_fingerprint"] == known["fingerprint"]
    files = {content.path: Path(content.local_path) for content in editor.manifest.contents}
    assert files and all(path == offline.run / "editor" / name for name, path in files.items())
    (shown,) = path.parent.glob("files/media/table/**/*.table.json")
    content = json.loads(shown.read_text())
    assert content["columns"][:4] == ["task", "method", "id", "reliability"]
    assert len(content["data"]) == 3 * 9 and "capital" not in shown.read_text()  # no texts


def test_no_key_and_no_output_is_in_any_file(offline: Place) -> None:
    files = [path for path in [*offline.run.rglob("*"), *offline.logs.rglob("*")] if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    for path in files:
        content = path.read_bytes()
        assert KEY.encode() not in content and TOKEN.encode() not in content, path
    assert not list(offline.run.glob("wandb/**/output.log")) and not list(offline.run.glob("wandb/**/code/*"))


def test_wandb_sync_makes_one_run_of_all_starts(offline: Place, server: WandbServer, tmp_path: Path) -> None:
    """The offline files read by wandb's own reader, which is the one in `wandb sync`: nothing of ours is in between."""
    copy = tmp_path / "run"
    shutil.copytree(offline.run, copy)
    env = os.environ | {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY, "WANDB_ERROR_REPORTING": "false"}
    program = Path(sys.executable).with_name("wandb")
    folders = sorted((copy / "wandb").glob("offline-run-*"))
    done = subprocess.run(
        [program, "sync", *folders], env=env, capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert done.returncode == 0 and "ERROR" not in done.stderr, done.stderr
    check_server(server, offline, AGAIN)
    assert server.runs.keys() == {offline.id}
    resolved = yaml.safe_load((offline.run / "config.yaml").read_text())
    assert {key: server.config(offline.id)[key] for key in resolved} == resolved
    known = json.loads((offline.run / "run.json").read_text())
    made = server.config(offline.id)["provenance"]
    assert (made["base_fingerprint"], made["data_sha256"]) == (known["fingerprint"], known["data_sha256"])
    summary, table = server.summary(offline.id), json.loads((offline.run / "results" / "test.json").read_text())
    cells = {
        f"test/{row.partition(' / ')[2]}/{row.partition(' / ')[0]}/{metric}": cell["mean"]
        for row, line in table["Token accuracy"].items()
        for metric, cell in line.items()
    }
    assert cells and {name: summary[name] for name in cells} == pytest.approx(cells)
    scores = [row["val/score"] for row in offline.csv().values() if "val/score" in row]
    assert summary["val/best_score"] == max(scores) and summary["gpu_hours"] > 0 and summary["skipped_steps"] == 0
    assert {artifact["artifactTypeName"] for artifact in server.artifacts} == {"editor", "run_table"}


def check_server(server: WandbServer, place: Place, again: tuple[int, ...] = ()) -> None:
    history = server.history(place.id)
    expected = place.csv()
    assert [row["_step"] for row in history] == list(range(1, STEPS + 1))
    for row in history:
        assert_same(row, expected[row["_step"]], row["_step"] in again)


@pytest.mark.long
def test_online_a_killed_run_goes_on_in_the_same_run(
    tmp_path: Path, prepared: Path, llama_folder: Path, server: WandbServer
) -> None:
    place = Place(tmp_path, prepared, llama_folder, "online")
    code, told = place.start(at=5, what="SIGUSR1", url=server.url)
    assert code == 0 and f"Weights & Biases: {server.url}/me/instructedit/runs/{place.id}" in told, told
    assert [end["exitcode"] for end in server.ended[place.id] if end["complete"]] == [1]
    assert any(end["preempting"] for end in server.ended[place.id])
    assert [row["_step"] for row in server.history(place.id)] == [1, 2, 3, 4]
    assert place.start(at=5, what="SIGKILL", wait=1, url=server.url)[0] == 137
    code, told = place.start(url=server.url)
    assert code == 0, told
    check_server(server, place)
    assert server.ended[place.id][-1]["exitcode"] == 0
    assert server.config(place.id)["provenance"]["starts"][-1]["step"] == 9
    assert server.runs[place.id]["jobType"] == "fit" and server.runs.keys() == {place.id}
    assert not any(KEY in str(content) for content in (server.runs, server.files, server.lines))


@pytest.mark.long
def test_kept_offline_then_online_every_step_is_there_once_also_after_a_sync(
    tmp_path: Path, prepared: Path, llama_folder: Path, server: WandbServer
) -> None:
    place = Place(tmp_path, prepared, llama_folder, "online")
    code, told = place.start(at=5, what="SIGUSR1", key="")
    assert code == 0 and "kept offline" in told
    code, told = place.start(url=server.url)
    assert code == 0, told
    check_server(server, place)
    summary = dict(server.summary(place.id))
    env = os.environ | {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY, "WANDB_ERROR_REPORTING": "false"}
    command = [sys.executable, "-m", "instructedit", "compare", "--sync", str(place.run)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "--run.wandb online" in done.stderr, done
    check_server(server, place)
    assert server.summary(place.id) == summary


@pytest.mark.parametrize(
    "trouble", ["no key", "no network", pytest.param("a network that answers nothing", marks=pytest.mark.long)]
)
def test_online_without_a_way_there_is_kept_offline(
    trouble: str, tmp_path: Path, prepared: Path, llama_folder: Path, server: WandbServer
) -> None:
    server.silent = True
    place = Place(tmp_path, prepared, llama_folder, "online")
    url = server.url if trouble.startswith("a network") else ""
    since = time.monotonic()
    code, told = place.start(url=url, key="" if trouble == "no key" else KEY, init_seconds=3)
    assert code == 0 and time.monotonic() - since < 40, told
    said = [line for line in told.splitlines() if "Weights & Biases" in line]
    assert len(said) == 2 and ("no key" if trouble == "no key" else "cannot be reached") in said[0], told
    assert "wandb:" not in told and "Traceback" not in told
    history = [
        r.history.step.num for p in files_of(place.run / "wandb", place.id) for _, r in records(p) if r.history.item
    ]
    assert history == list(range(1, STEPS + 1))


@pytest.mark.long
def test_online_a_server_that_falls_silent_holds_nothing_up(
    tmp_path: Path, prepared: Path, llama_folder: Path, server: WandbServer
) -> None:
    place = Place(tmp_path, prepared, llama_folder, "online")
    code, _ = place.start(at=5, what="SIGUSR1", url=server.url)
    answer = server.answer

    def once(query: str, variables: dict[str, Any]) -> dict[str, Any]:
        server.silent = "UpsertBucket" in query  # it has begun
        return answer(query, variables)

    server.answer = once  # type: ignore[method-assign]
    since = time.monotonic()
    code, told = place.start(url=server.url)
    assert code == 0 and "Traceback" not in told, told
    assert time.monotonic() - since < 60
    assert (place.run / "results" / "table.md").exists()
