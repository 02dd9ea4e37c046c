"""A stand-in for W&B's server, on loopback: it answers what the client asks and keeps what it is sent.

The client (wandb-core, the helper process of the wandb package) speaks GraphQL for what a run is, posts the lines of its history to a
"file stream", and puts files to addresses that GraphQL gave it. `StandIn` knows the operations that a run, its files and its artifacts
need; what it does not know is answered as a server without that field would, and kept in `unknown`.

    with StandIn() as server:
        ...  # with server.environment()
    server.runs["3fa9"].history, .config, .summary, .files, .tables
"""

from __future__ import annotations

import contextlib
import gzip
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

KEY = "0123456789abcdef" * 2 + "01234567"  # of the form that the client checks, and of nobody
HISTORY, SUMMARY = "wandb-history.jsonl", "wandb-summary.json"
ENTITY = "standin"


@dataclass
class Run:
    """One run as the server has it. started: how many times a client began or took it up."""

    run_id: str
    fields: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, dict[int, str]] = field(default_factory=dict)  # of the stream's files, by their place
    files: dict[str, bytes] = field(default_factory=dict)
    started: int = 0
    exit_code: int | None = None

    @property
    def config(self) -> dict[str, Any]:
        stored = json.loads(self.fields.get("config") or "{}")
        return {key: entry["value"] for key, entry in stored.items() if key != "_wandb"}

    @property
    def history(self) -> list[dict[str, Any]]:
        """A row a step."""
        return [json.loads(line) for _, line in sorted(self.lines.get(HISTORY, {}).items())]

    @property
    def summary(self) -> dict[str, Any]:
        lines = self.lines.get(SUMMARY, {})
        return json.loads(lines[max(lines)]) if lines else {}


@dataclass
class Artifact:
    """One version of an artifact: its files by their path in it."""

    name: str
    kind: str
    run_id: str
    manifest: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    committed: bool = False


class StandIn:
    """The server; `address` once entered."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.artifacts: list[Artifact] = []
        self.asked: list[str] = []  # names of operations, in order
        self.unknown: list[str] = []
        self.sent = bytearray()  # every body, to be searched for what must not be sent
        self.lock = threading.Lock()

    def __enter__(self) -> StandIn:
        handler = type("Handler", (Handler,), {"standin": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(10)

    def environment(self) -> dict[str, str]:
        return {"WANDB_BASE_URL": self.address, "WANDB_API_KEY": KEY}

    def table(self, run_id: str, key: str) -> dict[str, Any]:
        """The newest version of a table, with its pictures' bytes in place of what names them."""
        found = [one for one in self.artifacts if one.run_id == run_id and f"{key}.table.json" in one.files]
        assert found and found[-1].committed, (key, [one.name for one in self.artifacts])
        table = json.loads(found[-1].files[f"{key}.table.json"])

        def cell(value: Any) -> Any:
            return found[-1].files[value["path"]] if isinstance(value, dict) and "path" in value else value

        return {"columns": table["columns"], "data": [[cell(value) for value in row] for row in table["data"]]}

    def take(self, method: str, path: str, body: bytes) -> dict[str, Any]:
        """The answer to a request. Raises for what is not known."""
        if method == "PUT":
            self.put(path, body)
            return {}
        told = json.loads(body)
        if path.endswith("/graphql"):
            return self.answer(told["query"], told.get("variables") or {})
        assert path.endswith("/file_stream")
        self.stream(path.split("/")[-2], told)
        return {}

    # GraphQL: each method answers the operation of its name.

    def answer(self, query: str, given: dict[str, Any]) -> dict[str, Any]:
        name = query.split("(")[0].split("{")[0].split()[-1] if query.strip() else ""
        self.asked.append(name)
        method: Callable[[dict[str, Any]], dict[str, Any]] | None = getattr(self, f"on_{name}", None)
        if method is None:
            self.unknown.append(name)
            return {"errors": [{"message": f"the stand-in does not know {name}"}], "data": None}
        return {"data": method(given)}

    def on_Viewer(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"viewer": {"id": "u", "entity": ENTITY, "username": ENTITY, "email": "", "flags": "{}", "teams": {"edges": []}}}

    def on_ServerFeaturesQuery(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def on_RunResumeStatus(self, given: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.get(given["name"])
        about = {"id": "p", "name": given["project"], "entity": {"id": "e", "name": ENTITY}}
        if run is None:
            return {"model": {**about, "bucket": None}}
        rows = run.history
        bucket = {
            "id": run.run_id,
            "name": run.run_id,
            "displayName": run.fields.get("displayName"),
            "summaryMetrics": json.dumps(run.summary),
            "historyLineCount": len(rows),
            "eventsLineCount": 0,
            "logLineCount": 0,
            "historyTail": json.dumps([json.dumps(row) for row in rows[-1:]]),
            "eventsTail": "[]",
            "config": run.fields.get("config") or "{}",
            "tags": run.fields.get("tags") or [],
            "notes": run.fields.get("notes"),
            "wandbConfig": '{"t": {}}',
        }
        return {"model": {**about, "bucket": bucket}}

    def on_UpsertBucket(self, given: dict[str, Any]) -> dict[str, Any]:
        name = given.get("name") or given["id"]
        fresh = name not in self.runs
        run = self.runs.setdefault(name, Run(name))
        run.fields |= {key: value for key, value in given.items() if value is not None}
        bucket = {
            "id": name,
            "name": name,
            "displayName": run.fields.get("displayName"),
            "description": None,
            "config": run.fields.get("config"),
            "sweepName": None,
            "project": {"id": "p", "name": run.fields.get("project"), "entity": {"id": "e", "name": ENTITY}},
            "historyLineCount": len(run.history),
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": fresh}}

    def on_CreateRunFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        files = [{"name": name, "uploadUrl": f"{self.address}/put/run/{given['run']}/{name}"} for name in given["files"]]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}

    def on_ArtifactType(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"project": None}

    def on_CreateArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        told = given["input"]
        name = told["artifactCollectionName"]
        self.artifacts.append(Artifact(name, told["artifactTypeName"], told["runName"]))
        made = {"id": str(len(self.artifacts) - 1), "state": "PENDING", "artifactSequence": {"id": name, "latestArtifact": None}}
        return {"createArtifact": {"artifact": made}}

    def on_CreateArtifactManifest(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"createArtifactManifest": self.manifest(given["artifactID"])}

    def on_UpdateArtifactManifest(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"updateArtifactManifest": self.manifest(given["artifactManifestID"])}

    def manifest(self, number: str) -> dict[str, Any]:
        file = {"id": number, "uploadUrl": f"{self.address}/put/manifest/{number}", "uploadHeaders": []}
        return {"artifactManifest": {"id": number, "file": file}}

    def on_CreateArtifactFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        nodes = []
        for one in given["input"]["artifactFiles"]:
            address = f"{self.address}/put/artifact/{one['artifactID']}/{one['name']}"
            place = {"storagePath": one["name"], "uploadUrl": address, "uploadHeaders": [], "uploadMultipartUrls": None}
            nodes.append({"node": {**place, "artifact": {"id": one["artifactID"]}}})
        return {"createArtifactFiles": {"files": {"edges": nodes}}}

    def on_CommitArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        self.artifacts[int(given["artifactID"])].committed = True
        return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": ""}}}

    # What is not GraphQL.

    def stream(self, run_id: str, told: dict[str, Any]) -> None:
        """Lines of files, each from a place on: what stood there is replaced."""
        run = self.runs[run_id]
        for name, part in (told.get("files") or {}).items():
            lines = run.lines.setdefault(name, {})
            for number, line in enumerate(part["content"], part["offset"]):
                lines[number] = line
        if told.get("complete"):
            run.exit_code = told.get("exitcode")

    def put(self, path: str, body: bytes) -> None:
        kind, number, *rest = unquote(path).lstrip("/").removeprefix("put/").split("/", 2)
        if kind == "run":
            self.runs[number].files[rest[0]] = body
        elif kind == "manifest":
            self.artifacts[int(number)].manifest = json.loads(body)
        else:
            self.artifacts[int(number)].files[rest[0]] = body


class Handler(BaseHTTPRequestHandler):
    standin: StandIn
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body, status = self.body(), 200
        with self.standin.lock:
            try:
                said = self.standin.take(self.command, self.path, body)
            except Exception as error:  # a client that is refused so does not try again
                self.standin.unknown.append(f"{self.command} {self.path}: {error!r} {body[:1000]!r}")
                said, status = {}, 400
        self.say(said, status)

    do_PUT = do_GET = do_POST

    def body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.standin.sent += body
        return body

    def say(self, told: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the client's helper ends without a word
            super().handle()
