"""A finished run in whose configuration the machine left its traces, and a stand-in for a hub."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import MappingProxyType

import pytest
from PIL import Image

from attnlab.config.compose import compose
from attnlab.config.plan import outputs
from attnlab.pipeline.train import train
from attnlab.records.query import StoredRun, read_runs
from tests.conftest import TINY

WORDS = [*TINY, "trainer.max_epochs=1", "trainer.precision=32", "attention=rect", "evaluator=ood", "data.ood=[photos]"]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs with one network under two seeds."""
    root = tmp_path_factory.mktemp("secret_place") / "outputs"
    for seed in (0, 1):
        train(compose([*WORDS, f"seed={seed}", f"paths.outputs={root}", f"data.root={root.parent}/downloads"]))
    (picture,) = root.glob("runs/*-s0-*")
    (picture / "figures").mkdir()
    Image.new("L", (4, 4)).save(picture / "figures" / "curves.png")
    return root


@pytest.fixture
def runs(made: Path) -> list[StoredRun]:
    return sorted(read_runs(made), key=lambda run: run.result["seed"])


def run_of(*words: str, root: Path) -> StoredRun:
    plan = compose([*TINY, "evaluator=none", "ood=none", "trainer.max_epochs=1", f"paths.outputs={root}", *words])
    train(plan)
    return next(run for run in read_runs(outputs(plan)) if run.address == plan.address)


@dataclass
class Hub:
    """`place/OWNER/NAME` are its repositories; the names of the files that were fetched are in `asked`."""

    place: Path
    asked: list[str] = field(default_factory=list)


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on loopback, as far as the real client needs one to download."""
    from huggingface_hub import constants

    found = Hub(tmp_path / "hub")
    found.place.mkdir()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = self.path.partition("?")[0].strip("/").split("/")
            api = parts[:2] == ["api", "models"]
            folder, (kind, revision, *rest) = found.place / "/".join(parts[2:4] if api else parts[:2]), parts[4:] if api else parts[2:]
            files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
            if not files:
                self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            elif revision not in ("main", COMMIT):
                self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            elif api and kind == "revision":
                self.send(200, {"id": "x", "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]})
            elif api:
                self.send(200, [{"type": "file", "path": name, "size": path.stat().st_size, "oid": name} for name, path in files.items()])
            else:
                path = files["/".join(rest)]
                found.asked.append(path.name)
                self.send(200, path.read_bytes(), {"ETag": f'"{path.name}"', "X-Repo-Commit": COMMIT})

        do_HEAD = do_GET

        def send(self, code: int, content: object, headers: Mapping[str, str] = MappingProxyType({})) -> None:
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(code)
            for key, value in {"Content-Length": str(len(data)), "Content-Type": "application/json", **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.daemon_threads = True
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield found
    server.shutdown()
    server.server_close()
