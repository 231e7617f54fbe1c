"""A stand-in for the Hugging Face Hub on this machine: repositories in memory, the requests that huggingface-hub makes.

Files are fetched and committed over HTTP as from the Hub; large files by LFS's basic transfer, without Xet.
"""

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field

import yaml
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response


@dataclass
class Repository:
    """One repository's files, and whether it is private."""

    files: dict[str, bytes] = field(default_factory=dict)
    private: bool = False

    @property
    def commit(self) -> str:
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()


@dataclass
class HubServer:
    """Answers at ``url``; ``repositories`` by name, ``seen`` every request's method and path, ``tokens`` sent."""

    server: HTTPServer
    token: str = "hf_test"
    repositories: dict[str, Repository] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    large: tuple[str, ...] = (".safetensors",)
    _stored: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.server.expect_request(re.compile(".*")).respond_with_handler(self.answer)

    @property
    def url(self) -> str:
        return self.server.url_for("").rstrip("/")

    def answer(self, request: Request) -> Response:
        self.seen.append(f"{request.method} {request.path}")
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        self.tokens.add(given)
        if request.path == "/api/repos/create":
            return self._create(request) if given == self.token else _error(401, "", "Invalid username or password.")
        if request.path == "/api/validate-yaml":
            return _validated(json.loads(request.data)["content"])
        for pattern, answer in (
            (r"/api/(?:models|datasets)/(.+)/preupload/main", self._preupload),
            (r"/api/(?:models|datasets)/(.+)/commit/main", self._commit),
            (r"/(.+)\.git/info/lfs/objects/batch", self._batch),
            (r"/store/()(\w+)", self._store),
            (r"/api/(?:models|datasets)/(.+)/revision/(.+)", self._info),
            (r"/api/(?:models|datasets)/(.+)/tree/(.+)", self._tree),
            (r"/api/(?:models|datasets)/([^/]+/[^/]+)", self._info),
            (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self._file),
        ):
            if found := re.fullmatch(pattern, request.path):
                return self._checked(answer, request, given, *found.groups())
        return _error(404, "EntryNotFound", f"no such path {request.path}")

    def _checked(self, answer, request: Request, given: str, name: str, *more: str) -> Response:  # type: ignore[no-untyped-def]
        if name and (name not in self.repositories or (self.repositories[name].private and given != self.token)):
            return _error(401, "RepoNotFound", "Repository not found")
        found: Response = answer(request, self.repositories.get(name), *more)
        return found

    def _create(self, request: Request) -> Response:
        told = json.loads(request.data)
        name = f"{told.get('organization') or 'me'}/{told['name']}"
        url = json.dumps({"url": f"{self.url}/{name}", "name": name})
        if name in self.repositories:
            return Response(url, 409, mimetype="application/json")
        self.repositories[name] = Repository(private=told.get("visibility", told.get("private")) in (True, "private"))
        return Response(url, 200, mimetype="application/json")

    def _preupload(self, request: Request, repository: Repository) -> Response:
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(self.large) else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(request.data)["files"]
        ]
        return _json({"files": files})

    def _batch(self, request: Request, repository: Repository) -> Response:
        objects = [
            {**each, "actions": {"upload": {"href": f"{self.url}/store/{each['oid']}"}}}
            for each in json.loads(request.data)["objects"]
        ]
        return _json({"transfer": "basic", "objects": objects})

    def _store(self, request: Request, repository: Repository, oid: str) -> Response:
        assert hashlib.sha256(request.data).hexdigest() == oid
        self._stored[oid] = request.data
        return Response("", 200)

    def _commit(self, request: Request, repository: Repository) -> Response:
        for line in request.data.splitlines():
            item = json.loads(line)
            if item["key"] == "file":
                repository.files[item["value"]["path"]] = base64.b64decode(item["value"]["content"])
            elif item["key"] == "lfsFile":
                repository.files[item["value"]["path"]] = self._stored[item["value"]["oid"]]
        return _json(
            {"commitUrl": f"{self.url}/x/y/commit/{repository.commit}", "commitOid": repository.commit, "success": True}
        )

    def _info(self, request: Request, repository: Repository, revision: str = "main") -> Response:
        if revision not in ("main", repository.commit):
            return _error(404, "RevisionNotFound", "Invalid rev id")
        names = [{"rfilename": name} for name in repository.files]
        return _json({"id": "x/y", "sha": repository.commit, "private": repository.private, "siblings": names})

    def _tree(self, request: Request, repository: Repository, revision: str) -> Response:
        if revision not in ("main", repository.commit):
            return _error(404, "RevisionNotFound", "Invalid rev id")
        return _json(
            [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in repository.files.items()
            ]
        )

    def _file(self, request: Request, repository: Repository, revision: str, name: str) -> Response:
        if name not in repository.files:
            return _error(404, "EntryNotFound", "Entry not found")
        content = repository.files[name]
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": repository.commit}
        return Response(content, 200, headers=headers)


def _validated(card: str) -> Response:
    """Check a card's front matter as the Hub does: a licence it knows, a base that can be a repository."""
    told = yaml.safe_load(card.split("---")[1])
    errors = []
    if told["license"] not in ("apache-2.0", "mit", "openrail", "other", "unknown"):
        errors.append(f'"license" must be one of apache-2.0, mit, ...; found {told["license"]}')
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", told.get("base_model", "a/b")):
        errors.append('"base_model" is not valid. Use a model id')
    content = {"errors": [{"message": error} for error in errors], "warnings": []}
    return Response(json.dumps(content), 400 if errors else 200, mimetype="application/json")


def _json(content: object) -> Response:
    return Response(json.dumps(content), 200, mimetype="application/json")


def _error(status: int, code: str, message: str) -> Response:
    headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
    return Response(json.dumps({"error": message}), status, headers=headers, mimetype="application/json")
