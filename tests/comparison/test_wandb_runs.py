"""Runs read through the W&B API: wandb's own client and service against a server that answers as the real one does.

The answers are made by hand after the queries that wandb 0.31 sends; the real server is not asked.
"""

import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from instructedit import cli
from instructedit.comparison.wandb_access import plain
from instructedit.comparison.wandb_runs import read_project
from instructedit.errors import InputError

pytest.importorskip("wandb", reason="the extra `wandb` is not installed")

KEY = "k" * 40


def node(name: str, lr: float, score: float, group: str = "sweep", state: str = "finished") -> dict[str, Any]:
    """A run as the server lists it."""
    config: dict[str, Any] = {"model": {"lr": lr}, "trainer": {"max_steps": 20}}
    starts = [{"step": 0, "commit": "b" * 40}, {"step": 9, "commit": "c" * 40}]
    made = {"commit": "c" * 40, "dirty": False, "versions": {"torch": "2"}, "starts": starts, "slurm": None}
    config["provenance"] = {**made, "base_fingerprint": "f" * 64, "data_sha256": {"zsre/test": "1" * 64}}
    summary = {
        "_step": 20,
        "test/MEND/zsre/reliability": score / 100,
        "test/Base/zsre/reliability": 0.1,
        "gpu_hours": 2.5,
    }
    texts = {"id": f"id-{name}", "projectId": "1", "name": f"id{name}", "displayName": name, "state": state}
    held = {"config": json.dumps({key: {"value": value} for key, value in config.items()}), "jobType": "fit"}
    held |= {"summaryMetrics": json.dumps(summary), "systemMetrics": "{}", "group": group}
    rest = {"readOnly": False, "createdAt": "2026-01-01T00:00:00", "user": {"name": "Me", "username": "me"}}
    rest |= {"historyLineCount": 20, "tags": ["t"], "historyKeys": {"lastStep": 20, "keys": {}}}
    nothing = dict.fromkeys(("sweepName", "commit", "description", "notes", "heartbeatAt"))
    return {**nothing, **texts, **held, **rest}


NODES = [node("one", 1e-3, 70), node("two", 1e-2, 60), node("two", 1e-2, 65, group="other", state="running")]


def answer(query: str, variables: Mapping[str, Any]) -> object:
    """What the server says to one query."""
    if variables.get("project") == "gone":
        return {"project": None}
    if "query Runs(" in query:
        group = json.loads(variables["filters"]).get("group")
        edges = [{"node": each, "cursor": "c"} for each in NODES if group in (None, each["group"])]
        page = {"endCursor": "c", "hasNextPage": False}
        found = {
            "internalId": "1",
            "runCount": len(edges),
            "readOnly": False,
            "runs": {"edges": edges, "pageInfo": page},
        }
        return {"project": found}
    if "RunFullHistory" in query:
        rows = [{"_step": step, "step": step, "train/loss": 1 / step} for step in range(1, 21)]
        rows = [row | {"throughput/edits_per_second": 4.0} for row in rows]
        rows[9] |= {"val/score": 50.0}
        rows[19] |= {"val/score": 70.0 if variables["name"] == "idone" else 60.0, "table": {"_type": "table"}}
        return {"project": {"run": {"history": [json.dumps(row) for row in rows]}}}
    return {"viewer": {"id": "1", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}


@pytest.fixture
def server(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A server, and the keys that were shown to it."""
    shown: list[str] = []

    def handle(request: Request) -> Response:
        shown.append(request.headers.get("Authorization", ""))
        asked = json.loads(request.data)
        return Response(
            json.dumps({"data": answer(asked["query"], asked.get("variables") or {})}), mimetype="application/json"
        )

    httpserver.expect_request("/").respond_with_data("")
    httpserver.expect_request("/graphql", method="POST").respond_with_handler(handle)
    monkeypatch.setenv("WANDB_BASE_URL", httpserver.url_for("/").rstrip("/"))
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    import wandb

    wandb.teardown()
    yield shown
    wandb.teardown()


@pytest.mark.slow
def test_a_project_is_read_as_directories_are(server: list[str]) -> None:
    one, two = read_project("me/edits", group="sweep")
    assert (one.name, one.source, one.state, one.step, one.max_steps) == ("one", "me/edits/idone", "done", 20, 20)
    assert one.settings == {"model.lr": "0.001", "trainer.max_steps": "20"}
    code = {"commit": f"{'b' * 12}, {'c' * 12}", "dirty": "no", "version of torch": "2"}
    assert one.facts == code | {"base fingerprint": "f" * 12, "data zsre/test": "1" * 12}
    assert (
        one.best == (20, 70.0)
        and len(one.curves["train/loss"].values) == 20
        and not {"table", "step"} & set(one.curves)
    )
    assert one.edits_per_second == 4.0 and one.device_hours == 2.5
    assert one.row == "MEND" and one.cells["zsre", "MEND", "reliability"].mean == 0.7
    assert two.best == (20, 60.0) and two.outcomes is None


@pytest.mark.slow
def test_filters_choose_and_equal_names_are_told_apart(server: list[str]) -> None:
    assert [run.name for run in read_project("me/edits", taken=["one"])] == ["one (idone)", "two", "two (idtwo)"]
    assert [run.name for run in read_project("me/edits", only="model.lr=0.010,state=finished,tag=t")] == ["two"]
    with pytest.raises(InputError, match="Did you mean 'model.lr'"):
        read_project("me/edits", only="model.lrr=1")
    with pytest.raises(InputError, match="No run of me/edits is left"):
        read_project("me/edits", only="model.lr=7")


@pytest.mark.slow
def test_the_command_compares_them_and_never_shows_the_key(
    server: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    cli.run(["compare", "--wandb", "me/edits", "--metric", "test/zsre/reliability"])
    said = "".join(capfd.readouterr())
    assert "70.0" in said and "without an interval" in said and "No paired test" in said
    assert KEY not in said and any(server), "the key goes to the server and nowhere else"


@pytest.mark.slow
def test_an_unknown_project_is_told(server: list[str]) -> None:
    with pytest.raises(InputError, match="told nothing of me/gone"):
        read_project("me/gone")


@pytest.fixture
def fresh() -> Iterator[None]:
    """Without the settings and the key of the tests before; wandb's service is not running."""
    import wandb

    wandb.teardown()
    yield
    wandb.teardown()


def test_a_server_that_is_away_is_told_at_once(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    with pytest.raises(InputError, match="cannot be reached at http://127.0.0.1:1: .*refused") as told:
        read_project("me/edits")
    assert KEY not in str(told.value)


def test_a_server_that_answers_nothing_is_not_waited_for(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr("instructedit.comparison.wandb_access.REACH_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(InputError, match="cannot be reached .*timed out"):
            read_project("me/edits")


def test_without_a_key_nothing_is_asked(fresh: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(InputError, match="No key for Weights & Biases"):
        read_project("me/edits")


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("WANDB_API_KEY", "tooshort", "API key must have 40+ characters"),
        ("WANDB_API_KEY", f"{KEY} ", "WANDB_API_KEY holds a space"),
        ("WANDB_API_KEY", f"{KEY}\n", "WANDB_API_KEY holds a space"),
        ("WANDB_BASE_URL", "nonsense", "'nonsense', which is none"),
        ("WANDB_BASE_URL", "http://[", "'http://[', which is none"),
        ("WANDB_BASE_URL", "ftp://x", "'ftp://x', which is none"),
        ("WANDB_BASE_URL", "http://127.0.0.1:1234567", "which is none"),
        ("WANDB_BASE_URL", f"http://{'x' * 70}.invalid", "cannot be reached"),
        ("WANDB_BASE_URL", "http://me:SECRET@127.0.0.1:9", "holds a name or a password"),
        ("WANDB_MODE", "garbage", "WANDB_MODE is 'garbage'"),
        ("WANDB_MODE", "offline", "WANDB_MODE is 'offline', with which wandb asks no server"),
    ],
)
def test_a_mistake_in_the_environment_is_one_line_without_the_key(
    fresh: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    variable: str,
    value: str,
    told: str,
) -> None:
    import wandb

    run = tmp_path / "run"
    folder = run / "wandb" / "offline-run-20260101_000000-cafe0001"
    folder.mkdir(parents=True)
    (folder / "run-cafe0001.wandb").touch()
    (run / "run.json").write_text('{"wandb_id": "cafe0001"}')
    settings = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": "http://127.0.0.1:9", "NETRC": str(tmp_path / "netrc")}
    for name, given in (settings | {variable: value}).items():
        monkeypatch.setenv(name, given)
    for argv in (["--wandb", "me/edits"], ["--sync", str(run)]):
        with pytest.raises(SystemExit) as stop:
            cli.main(["compare", *argv])
        said = "".join(capfd.readouterr())
        assert stop.value.code == 2 and said.count("\n") == 1 and told in said, said
        assert KEY not in said and "SECRET" not in said and "tooshort" not in said
        wandb.teardown()


def test_an_error_is_told_without_key_and_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert plain(ValueError(f"{KEY} at\nhttp://me:SECRET@host/x.")) == "... at http://...@host/x"
