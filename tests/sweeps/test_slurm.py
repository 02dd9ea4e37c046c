"""A sweep through a real Slurm of this machine (scripts/slurm_here.sh): a job cancelled, a job past its time limit, the end bit for bit.

Takes about four minutes, as Slurm counts time limits in minutes: `pytest -m slurm -n 0 tests/sweeps/test_slurm.py`, as root on a machine
with Debian's slurm-wlm and munge. Skipped where they are not there.
"""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests import ROOT
from tests.conftest import POINTS

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(not all(map(shutil.which, ("slurmctld", "slurmd", "munged"))), reason="slurm-wlm and munge are not installed"),
]

STALL = """
import time
from pathlib import Path


class Stall:  # sleeps in the third epoch where a file says so, once: a job that stays in the middle of its run
    def __init__(self, *, folder: str, seed: int):
        self.file = Path(folder) / str(seed)

    def on_epoch_start(self, learner, epoch):
        if epoch == 2 and self.file.exists():
            self.file.unlink()
            time.sleep(600)
"""
CANCELLED, TIMED_OUT = 1, 3  # by seed
WORDS = [*POINTS, "trainer.max_epochs=4", "trainer.accelerator=cpu", "trainer.checkpoint_seconds=0", "ood=none", "evaluator=none"]
WORDS += ["hydra.searchpath=[pkg://mine.conf]", "allow_targets=[mine]", "callback=stall", "seed=range(6)"]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which sbatch and squeue find a Slurm of this machine."""
    folder = tmp_path_factory.mktemp("slurm")
    script = str(ROOT / "scripts" / "slurm_here.sh")
    began = subprocess.run([script, "start", str(folder)], capture_output=True, text=True, timeout=120)
    if began.returncode:
        pytest.skip(began.stderr.strip().splitlines()[-1])
    try:
        yield {**os.environ, "SLURM_CONF": f"{folder}/slurm.conf", "OMP_NUM_THREADS": "1"}
    finally:
        subprocess.run([script, "stop", str(folder)], check=True, timeout=120)


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of a user's with the callback that stalls."""
    folder = tmp_path_factory.mktemp("package")
    conf = folder / "mine" / "conf" / "callback"
    conf.mkdir(parents=True)
    for path in (folder / "mine" / "__init__.py", folder / "mine" / "conf" / "__init__.py"):
        path.touch()
    (folder / "mine" / "stall.py").write_text(STALL)
    (folder / "stall").mkdir()
    (conf / "stall.yaml").write_text(f'stall: {{_target_: mine.stall.Stall, folder: {folder / "stall"}, seed: "${{seed}}"}}\n')
    return folder


def readme_words(**changed: str) -> list[str]:
    """The words of the README's command for Slurm that choose the launcher and its settings."""
    found = re.search(r"hydra/launcher=submitit_slurm.*?```", (ROOT / "README.md").read_text(), re.S)
    words = re.findall(r"hydra[/.]launcher[^\s`]*", found[0])
    assert len(words) >= 8 and words[0] == "hydra/launcher=submitit_slurm"
    kept = [word for word in words if word.partition("=")[0].rpartition(".")[2] not in changed]
    return [*kept, *(f"hydra.launcher.{name}={value}" for name, value in changed.items())]


def sweep(outputs: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "attnlab.train", "-m", *WORDS, f"paths.outputs={outputs}", *words]


def ask(slurm: dict[str, str], *words: str) -> str:
    return subprocess.run(words, env=slurm, capture_output=True, text=True, check=True).stdout


def wait_for(what: Callable[[], object], process: subprocess.Popen, log: Path, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert process.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.2)


def outcomes(outputs: Path) -> dict[int, tuple]:
    """What each run came to, by seed: its weights, its metrics, its epochs; without seconds."""
    found = {}
    for path in outputs.glob("runs/*/result.json"):
        result = json.loads(path.read_text())
        assert result["status"] == "finished", result
        rows = list(csv.DictReader((path.parent / "metrics.csv").read_text().splitlines()))
        history = [{key: value for key, value in row.items() if key not in ("seconds", "images_per_second")} for row in rows]
        checkpoint = torch.load(path.parent / "last.ckpt", weights_only=True)
        metrics = {key: value for key, value in result["metrics"].items() if key not in ("train/seconds", "train/images_per_second")}
        found[result["seed"]] = (checkpoint["state_dict"], checkpoint["optimizer_states"], metrics, history)
    return found


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def test_a_sweep_of_six_survives_scancel_and_a_time_limit(slurm: dict[str, str], mine: Path, tmp_path: Path) -> None:
    slurm = {**slurm, "PYTHONPATH": f"{ROOT}:{mine}"}
    for seed in (CANCELLED, TIMED_OUT):
        (mine / "stall" / str(seed)).touch()
    remote, log = tmp_path / "remote", tmp_path / "sweep.log"
    command = sweep(remote, "retries=1", *readme_words(timeout_min="2", signal_delay_s="1"))
    started = time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen(command, env=slurm, cwd=ROOT, stdout=file, stderr=file)
    try:
        wait_for(lambda: not (mine / "stall" / str(CANCELLED)).exists(), process, log, 200)
        running = ask(slurm, "squeue", "--noheader", "--array", "--states=running", "--format=%i").split()
        assert len(running) == 2, "two slots"
        ask(slurm, "scancel", next(name for name in running if name.endswith(f"_{CANCELLED}")))
        while process.poll() is None:  # Slurm holds a job that is queued again for two minutes: not here
            for name in ask(slurm, "squeue", "--noheader", "--array", "--states=pending", "--format=%i|%r").split():
                if name.endswith("|BeginTime"):
                    subprocess.run(["scontrol", "update", f"jobid={name.partition('|')[0]}", "starttime=now"], env=slurm)
            time.sleep(1)
            assert time.monotonic() - started < 540, log.read_text()
    finally:
        process.kill()
        process.wait()
    said = log.read_text()
    assert process.returncode == 0, said
    assert re.search(r"-s1-\w+: failed: slurm job \d+_1 ended without a result \(CANCELLED\)", said), said
    assert "0 failed" in said and "Traceback" not in said and "sacct" not in said, said
    for seed in (CANCELLED, TIMED_OUT):
        assert "going on after epoch 2 of 4" in next(remote.glob(f"runs/*-s{seed}-*/train.log")).read_text()
    again = "".join(path.read_text() for path in remote.glob(f".hydra/.submitit/*_{TIMED_OUT}/*.out"))
    assert "Requeued job" in again and "(2 remaining timeouts)" in again

    local = subprocess.run(sweep(tmp_path / "local"), env=slurm, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert local.returncode == 0, local.stderr
    one, other = outcomes(remote), outcomes(tmp_path / "local")
    assert one.keys() == other.keys() == set(range(6))
    for seed in one:
        assert same(one[seed], other[seed]), seed
    repeated = subprocess.run(command, env=slurm, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert "0 done, 6 skipped, 0 failed" in repeated.stderr and not ask(slurm, "squeue", "--noheader")
