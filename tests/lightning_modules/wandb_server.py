"""A small stand-in for the Weights & Biases server: wandb's own client can start, resume, sync and finish runs on it.

It answers the GraphQL operations and keeps the file streams as the real one does: a line replaces the one at its
offset. What it cannot show: the service's own checks and its web pages.
"""

import gzip
import json
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class WandbServer:
    """Listens on loopback until ``close``; ``url`` goes into WANDB_BASE_URL."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        """The latest ``UpsertBucket`` variables of each run id, later ones over earlier ones."""
        self.lines: defaultdict[str, dict[str, dict[int, str]]] = defaultdict(lambda: defaultdict(dict))
        """Of each run id and stream file (``wandb-history.jsonl``, ...): lines by offset."""
        self.ended: dict[str, list[dict[str, Any]]] = defaultdict(list)
        """How each start of a run told its end: exit code, preempting."""
        self.files: dict[str, bytes] = {}
        self.operations: list[str] = []
        self.artifacts: list[dict[str, Any]] = []
        self.silent = False
        """Accept connections and answer nothing, like a network that drops packets."""
        handler = type("Handler", (_Handler,), {"server_state": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def history(self, run: str) -> list[dict[str, Any]]:
        """The rows of a run, in the order of their offsets."""
        return [json.loads(line) for _, line in sorted(self.lines[run]["wandb-history.jsonl"].items())]

    def summary(self, run: str) -> dict[str, Any]:
        lines = self.lines[run]["wandb-summary.json"]
        return dict(json.loads(lines[max(lines)])) if lines else {}

    def config(self, run: str) -> dict[str, Any]:
        content = json.loads(self.runs[run]["config"])
        return {key: entry["value"] for key, entry in content.items() if key != "_wandb"}

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        name = query.split("(")[0].split("{")[0].split()[-1]
        self.operations.append(name)
        answer = getattr(self, f"_{name}", None)
        return {"data": answer(variables) if answer else None}

    def _Viewer(self, _: dict[str, Any]) -> Any:
        return {
            "viewer": {"id": "v", "entity": "me", "username": "me", "email": "", "flags": "{}", "teams": {"edges": []}}
        }

    def _RunResumeStatus(self, variables: dict[str, Any]) -> Any:
        run = variables["name"]
        if run not in self.runs:
            return {"model": {"id": "p", "name": variables["project"], "entity": _ENTITY, "bucket": None}}
        history = self.history(run)
        bucket = {
            "id": f"id-{run}",
            "name": run,
            "summaryMetrics": json.dumps(self.summary(run)),
            "displayName": self.runs[run].get("displayName"),
            "logLineCount": 0,
            "historyLineCount": len(history),
            "eventsLineCount": 0,
            "historyTail": json.dumps([json.dumps(row) for row in history[-1:]]),
            "eventsTail": "[]",
            "config": self.runs[run].get("config") or "{}",
            "tags": self.runs[run].get("tags") or [],
            "notes": None,
            "wandbConfig": json.dumps({"t": 1}),
        }
        return {"model": {"id": "p", "name": variables["project"], "entity": _ENTITY, "bucket": bucket}}

    def _UpsertBucket(self, variables: dict[str, Any]) -> Any:
        run, known = variables["name"], variables["name"] in self.runs
        old = self.runs.get(run, {})
        self.runs[run] = {**old, **{key: value for key, value in variables.items() if value is not None}}
        bucket = {
            "id": f"id-{run}",
            "name": run,
            "displayName": self.runs[run].get("displayName"),
            "description": None,
            "config": self.runs[run].get("config"),
            "sweepName": None,
            "project": {"id": "p", "name": variables["project"], "entity": _ENTITY},
            "historyLineCount": len(self.history(run)),
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": not known}}

    def _CreateRunFiles(self, variables: dict[str, Any]) -> Any:
        files = [
            {"name": name, "uploadUrl": f"{self.url}/storage/{variables['run']}/{name}"} for name in variables["files"]
        ]
        return {"createRunFiles": {"runID": f"id-{variables['run']}", "uploadHeaders": [], "files": files}}

    def _CreateArtifact(self, variables: dict[str, Any]) -> Any:
        self.artifacts.append(variables["input"])
        # Committed: known by its digest, so that no file of it is asked for.
        artifact = {"id": "a", "state": "COMMITTED", "artifactSequence": {"latestArtifact": {"id": "a"}}}
        return {"createArtifact": {"__typename": "CreateArtifactPayload", "artifact": artifact}}

    def stream(self, run: str, content: dict[str, Any]) -> None:
        for name, part in (content.get("files") or {}).items():
            for place, line in enumerate(part["content"]):
                self.lines[run][name][part["offset"] + place] = line
        if content.get("complete") or content.get("preempting"):
            self.ended[run].append({key: content.get(key) for key in ("complete", "exitcode", "preempting")})


_ENTITY = {"id": "e", "name": "me"}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that was killed is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: WandbServer

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        return gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body

    def _reply(self, content: Any) -> None:
        if self.server_state.silent:
            threading.Event().wait(3600)
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:  # noqa: N802 - the base class's name
        self._reply({})

    def do_PUT(self) -> None:  # noqa: N802
        self.server_state.files[self.path.removeprefix("/storage/")] = self._body()
        self._reply({})

    def do_POST(self) -> None:  # noqa: N802
        body = self._body()
        if self.path == "/graphql":
            asked = json.loads(body)
            self._reply(self.server_state.answer(asked["query"], asked.get("variables") or {}))
        elif self.path.endswith("/file_stream"):
            self.server_state.stream(self.path.split("/")[-2], json.loads(body))
            self._reply({})
        else:
            self._reply({})
