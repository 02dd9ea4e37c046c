"""Sweeps for real: Ctrl-C, SIGKILL of the group, the repeat and the repeat's repeat with the local launcher; submitit; joblib."""

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from attnlab.sweeps import local
from attnlab.sweeps.processes import PARENT
from attnlab.sweeps.warm import Warm, serve
from tests.commands import Ended, Forked, module
from tests.conftest import POINTS

pytestmark = pytest.mark.long
WORDS = [*POINTS, "trainer.max_epochs=1", "ood=none", "evaluator=none"]


def state(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


class Near(Warm):
    """As `Warm`, but the process that jobs are forks of is itself a fork of this one: it need not import everything again."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = Forked(serve, theirs.fileno(), env={**environment, PARENT: str(os.getpid())}, session=True)
        self.codes: dict[int, int] = {}


def sweep() -> None:
    local.Warm = Near  # in a child
    module("attnlab.train")()


def words_of(folder: Path, *words: str) -> list[str]:
    return ["-m", *WORDS, f"paths.outputs={folder}", *words]


def complete(folder: Path, *words: str) -> Ended:
    """A sweep to its end, and the end of what it leaves: loky's processes stay for minutes where Python does not end by itself."""
    return Forked(sweep, *words_of(folder, *words), session=True).end(500)


def results(folder: Path) -> dict[int, dict]:
    found = [json.loads(path.read_text()) for path in folder.glob("runs/*/result.json")]
    return {result["seed"]: result for result in found}


def wait_for(what: Callable[[], bool], process: Forked, seconds: float = 400) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert process.poll() is None, process.read()[1]
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.02)


def processes_of(folder: Path) -> list[int]:
    """Processes that work for a folder of outputs: that name it in their command, or have a file in it open (forks have no command)."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            files = [os.readlink(file) for file in (process / "fd").iterdir()]
            if str(folder).encode() in (process / "cmdline").read_bytes() or any(file.startswith(str(folder)) for file in files):
                found.append(int(process.name))
        except OSError:
            continue
    return found


LONG = ["trainer.max_epochs=60", "trainer.checkpoint_seconds=0", "seed=0,1"]
LOCAL = ["hydra/launcher=local"]  # one after another; several at once are tested with processes that only pretend, in test_sweep.py


@pytest.fixture(scope="module")
def torn(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """One sweep of two, interrupted, then killed with its group, then repeated twice."""
    folder = tmp_path_factory.mktemp("torn")
    seen: dict = {"folder": folder}

    def begin() -> Forked:
        return Forked(sweep, *words_of(folder, *LONG, *LOCAL), session=True)

    def epochs() -> list[int]:
        return [len(path.read_text().splitlines()) - 1 for path in folder.glob("runs/*/metrics.csv")]

    first = begin()
    wait_for(lambda: max(epochs(), default=0) >= 2, first)
    assert processes_of(folder), "its job is not seen"
    os.kill(first.pid, signal.SIGINT)
    seen["interrupted"] = (first.communicate(timeout=100)[1], first.returncode, results(folder), epochs(), processes_of(folder))

    second = begin()
    before = sum(epochs())
    wait_for(lambda: sum(epochs()) >= before + 2, second)
    os.killpg(second.pid, signal.SIGKILL)
    second.communicate(timeout=100)
    end = time.monotonic() + 20
    while processes_of(folder) and time.monotonic() < end:
        time.sleep(0.05)
    seen["killed"] = (results(folder), processes_of(folder))
    seen["left"] = {path.name for path in (folder / ".hydra").iterdir()}

    seen["repeated"] = (complete(folder, *LONG, *LOCAL), results(folder))
    seen["state"] = state(folder)
    seen["again"] = complete(folder, *LONG, *LOCAL)
    return seen


def test_ctrl_c_leaves_resumable_runs(torn: dict) -> None:
    said, code, found, epochs, alive = torn["interrupted"]
    assert code == 130 and alive == []
    assert "stopping" in said and "Traceback" not in said
    assert said.endswith("attnlab: interrupted; the same command goes on from the last checkpoint\n")
    assert "interrupted" in said and "1 not started" in said
    assert any(result["status"] == "interrupted" for result in found.values()) and max(epochs) >= 2


def test_kill_9_of_the_group_leaves_no_process(torn: dict) -> None:
    found, alive = torn["killed"]
    assert alive == [] and any(result["status"] != "finished" for result in found.values())


def test_the_repeat_does_what_is_missing(torn: dict) -> None:
    done, found = torn["repeated"]
    assert done.code == 0, done.err
    assert {result["status"] for result in found.values()} == {"finished"} and set(found) == {0, 1}
    killed = {seed for seed, result in torn["killed"][0].items() if result["status"] == "finished"}
    summary = next(line for line in done.err.splitlines() if line.startswith("sweep of 2 jobs"))
    assert f"{len(killed)} skipped, 0 failed" in summary and "resumed" in summary
    for seed in killed:
        assert found[seed] == torn["killed"][0][seed]
    assert "going on after epoch" in "".join(path.read_text() for path in torn["folder"].glob("runs/*/train.log"))
    assert sorted(done.out.splitlines()) == sorted(str(path) for path in torn["folder"].glob("runs/*/result.json"))


def test_repeated_again_nothing_runs_and_no_file_changes(torn: dict) -> None:
    again = torn["again"]
    assert again.code == 0 and "0 done, 2 skipped, 0 failed" in again.err
    assert state(torn["folder"]) == torn["state"]
    assert torn["left"] & {"multirun.yaml"} and {path.name for path in (torn["folder"] / ".hydra").iterdir()} == {"local"}


def test_submitit_on_this_machine(tmp_path: Path) -> None:
    """Two jobs, each a process of submitit; the repeat starts none."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    words = ["hydra/launcher=submitit_local", "seed=0,1"]
    done = complete(tmp_path, *words)
    assert done.code == 0 and "2 done, 0 skipped, 0 failed" in done.err, done.err
    assert {seed: result["status"] for seed, result in results(tmp_path).items()} == dict.fromkeys(range(2), "finished")
    assert list((tmp_path / ".hydra" / ".submitit").iterdir())
    before = state(tmp_path)
    again = complete(tmp_path, *words)
    assert "0 done, 2 skipped, 0 failed" in again.err and state(tmp_path) == before


def test_joblib(tmp_path: Path) -> None:
    """Two jobs, one of which fails in its own process."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    done = complete(tmp_path, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "model=mlp2d,resnet18")
    assert done.code == 1 and "1 done, 0 skipped, 1 failed" in done.err, done.err
    assert "model=resnet18 takes images" in done.err and "Traceback" not in done.err
    log = Path(next(line for line in done.err.splitlines() if "log: " in line).partition("log: ")[2])
    assert log.name == "train.log" and "Traceback" in log.read_text()
    assert sorted(json.loads(path.read_text())["status"] for path in tmp_path.glob("runs/*/result.json")) == ["failed", "finished"]
