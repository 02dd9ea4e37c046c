"""`hydra/launcher=dask`: sweeps on two workers of this machine, with processes that only pretend to train; what it refuses.

The slow one trains, and kills a worker in the middle: `pytest -m slow -n 0 tests/sweeps/test_workers.py`.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from attnlab.sweeps import sweep, workers
from tests import ROOT
from tests.sweeps.test_launcher import WORDS, processes_of, results
from tests.sweeps.test_launcher import words_of as sweep_of

PRETEND = """
import os, sys, time
from attnlab.sweeps.processes import die_with_parent
die_with_parent()
folder, seed, act = sys.argv[1], sys.argv[2], sys.argv[3]
with open(f"{folder}/told", "a") as file:
    file.write(f"{seed} {os.getpid()} {os.getppid()}\\n")
again = open(f"{folder}/told").read().count(f"{seed} ") > 1
if act == "fail":
    sys.exit("attnlab: no luck today")
time.sleep(60 if act == "wait" or (act == "once" and not again) else 0)
"""


def test_what_it_needs() -> None:
    with pytest.raises(ValueError, match=r"hydra.launcher.address: name the scheduler of the Dask cluster, such as tcp://host:8786"):
        workers.DaskLauncher()
    with pytest.raises(ValueError, match="threads must be at least 1 or null, got 0"):
        workers.DaskLauncher(address="tcp://127.0.0.1:1", threads=0)


def test_a_worker_runs_a_command_and_ends_it_at_a_word(tmp_path: Path) -> None:
    given = {"folder": str(tmp_path), "log": str(tmp_path / "log"), "stop": str(tmp_path / "stop"), "threads": 3, "patience": 0.3}
    print_threads = "import os, sys; print(os.environ['OMP_NUM_THREADS'], flush=True); sys.exit(7)"
    assert workers.run_command(["-S", "-c", print_threads], **given) == 7
    assert (tmp_path / "log").read_text().splitlines()[-1] == "3"
    deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); open('stop', 'w').close(); time.sleep(60)"
    assert workers.run_command(["-S", "-c", deaf], **given) == workers.STOPPED
    assert workers.run_command(["-S", "-c", "1/0"], **given) == workers.STOPPED, "the word is there: it is not begun"


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a scheduler with two workers; a nanny starts a worker again that dies."""
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "host": "127.0.0.1"}
    with distributed.LocalCluster(**options) as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def pretend(cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[sweep.Job]]:
    """`pretend({0: "work", 1: "fail"}, "retries=1")` sweeps over seeds whose processes do as told, and write themselves down."""

    def command(acts: dict[int, str], *words: str, after: Callable[[list[list[int]]], None] | None = None) -> list[sweep.Job]:
        def words_of(config: object, job: sweep.Job) -> list[str]:
            seed = job.plan.full["seed"]
            return ["-c", PRETEND, str(tmp_path), str(seed), acts[seed]]

        monkeypatch.setattr(workers, "words_of", words_of)
        thread = threading.Thread(target=watch, args=(tmp_path / "told", after))
        thread.start()
        where = f"paths.outputs={tmp_path}/outputs"
        options = ["hydra/launcher=dask", f"hydra.launcher.address={cluster}", "hydra.launcher.patience=2", where]
        try:
            return sweep.launch([[*WORDS, where, f"seed={seed}", *words] for seed in acts], job=None, options=options)
        finally:
            thread.join()

    return command


def told(path: Path) -> list[list[int]]:
    """Seed, process and worker of each process that has begun."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [list(map(int, line.split())) for line in lines]


def watch(path: Path, after: Callable[[list[list[int]]], None] | None) -> None:
    """Call `after` once two processes have begun."""
    end = time.monotonic() + 60
    while after and len(told(path)) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    if after:
        after(told(path))


def test_the_jobs_of_a_worker_that_dies_go_to_others(pretend, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    """Of two jobs in the middle of their work, one loses its worker, and ends with it; a third waits."""
    killed: list[int] = []

    def kill(begun: list[list[int]]) -> None:
        _, process, worker = next(entry for entry in begun if entry[0] == 0)
        killed.append(process)
        os.kill(worker, signal.SIGKILL)

    jobs = pretend({0: "once", 1: "work", 2: "work"}, after=kill)
    assert [job.outcome for job in jobs] == ["done"] * 3
    assert sorted(seed for seed, _, _ in told(tmp_path / "told")) == [0, 0, 1, 2]
    end = time.monotonic() + 20
    while Path(f"/proc/{killed[0]}").exists() and "State:\tZ" not in Path(f"/proc/{killed[0]}/status").read_text():
        assert time.monotonic() < end, "the job outlived its worker"
        time.sleep(0.05)
    assert "3 done, 0 skipped, 0 failed" in capfd.readouterr().err


def test_a_job_that_fails_is_tried_again_and_reported(pretend, tmp_path: Path) -> None:
    jobs = pretend({0: "fail", 1: "work"}, "retries=1")
    assert [job.outcome for job in jobs] == ["failed", "done"] and jobs[0].error == "no luck today"
    assert Path(jobs[0].log).read_text().splitlines().count("attnlab: no luck today") == 2
    assert sorted(seed for seed, _, _ in told(tmp_path / "told")) == [0, 0, 1]


def test_ctrl_c_stops_the_jobs_on_the_workers(pretend, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        pretend({0: "wait", 1: "wait", 2: "wait"}, after=lambda _: os.kill(os.getpid(), signal.SIGINT))
    begun = told(tmp_path / "told")
    assert len(begun) == 2
    for _, process, _ in begun:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_no_scheduler_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed")

    def refuse(*_: object, **__: object) -> None:
        raise OSError("Timed out trying to connect")

    monkeypatch.setattr(distributed, "Client", refuse)
    options = ["hydra/launcher=dask", "hydra.launcher.address=tcp://127.0.0.1:9", f"paths.outputs={tmp_path}"]
    jobs = sweep.launch([["data=two_moons", "model=mlp2d", options[-1]]], job=None, options=options)
    assert jobs[0].outcome == "failed"
    assert jobs[0].error == "DaskLauncher lost it: hydra.launcher.address=tcp://127.0.0.1:9: no Dask scheduler answers there"


@pytest.mark.slow
def test_a_run_goes_on_from_its_checkpoint_on_another_worker(cluster: str, tmp_path: Path) -> None:
    words = ["trainer.max_epochs=60", "trainer.checkpoint_seconds=0", "seed=0,1", "hydra.launcher.threads=1"]
    words += ["hydra/launcher=dask", f"hydra.launcher.address={cluster}"]

    def epochs() -> list[int]:
        return [len(path.read_text().splitlines()) - 1 for path in tmp_path.glob("runs/*/metrics.csv")]

    command = [sys.executable, "-m", "attnlab.train", *sweep_of(tmp_path, *words)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 300
        while len(epochs()) < 2 or min(epochs()) < 2:
            assert process.poll() is None and time.monotonic() < end, process.stderr.read()
            time.sleep(0.05)
        job = next(pid for pid in processes_of(tmp_path) if pid != process.pid)
        os.kill(int(Path(f"/proc/{job}/stat").read_text().rpartition(")")[2].split()[1]), signal.SIGKILL)  # its parent, a worker
        said = process.communicate(timeout=300)[1]
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0 and "2 done, 0 skipped, 0 failed" in said, said
    assert {seed: result["status"] for seed, result in results(tmp_path).items()} == dict.fromkeys(range(2), "finished")
    logs = [path.read_text() for path in tmp_path.glob("runs/*/train.log")]
    assert sorted("going on after epoch" in text for text in logs) == [False, True]
