"""Kills: a tiny run or a sweep is killed (SIGKILL) again and again until it comes to its end, which must be that of one nobody disturbed.

Half of the kills come at a random moment; the others at a random one of the moments that matter: as a process is about to open a file to
write, to rename or to remove one (`sys.addaudithook` tells it), that is within checkpoints, records and journals. Compared bit for bit:
every tensor of last.ckpt, the history but for its seconds, all metrics, scores.npz. Findings: `other numbers`, `did not end`,
`left behind` (a temporary file after the end), `traceback`.
"""

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attnlab.config.result import read_result
from tests.attack.report import MEMORY, Report
from tests.commands import Ended, Forked, module
from tests.conftest import POINTS, TINY

NETWORK = [word for word in TINY if not word.startswith("ood")]
KEPT = "trainer.checkpoint_seconds=0"  # a checkpoint an epoch
CASES = {
    "points": [*POINTS, KEPT, "trainer.max_epochs=3"],
    "points, callbacks": [*POINTS, KEPT, "trainer.max_epochs=3", "callback=[ema,best,early_stop]", "data.val=0.2"],
    "points, swa": [*POINTS, KEPT, "trainer.max_epochs=3", "callback=swa", "optimizer=adamw"],
    "network": [*NETWORK, KEPT, "ood=[msp,knn]", "attention=rect", "regularizer=[maxdropout,cutout]"],
    "network, two losses": [*NETWORK, KEPT, "ood=msp", "loss=large_margin", "algorithm=supervised", "data.limit=48"],
    "teacher in mean": [*NETWORK, KEPT, "ood=none", "algorithm=mean_teacher", "data.labels=32"],
    "sharpness": [*NETWORK, KEPT, "ood=none", "algorithm=sam", "regularizer=dropout"],
    "sweep": ["-m", *POINTS, KEPT, "seed=0,1"],
    "sweep, shared training": ["-m", *POINTS, KEPT, "ood=msp,entropy"],
}
TRIES = 60  # kills after which one comes to its end undisturbed
WRITING = os.O_WRONLY | os.O_RDWR
TIMES = {"seconds", "images_per_second", "started", "finished", "stage_seconds", "git", "command", "overrides", "config", "digest"}


def attack(report: Report, *, seed: int) -> None:
    draw = random.Random(f"kills {seed}")
    references: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        for number, case in enumerate(cases(draw)):
            if not report.more:
                return
            folder = Path(name) / str(number)
            if case not in references:
                ended, writes = go(CASES[case], folder / "reference", folder, 0)
                if ended.code:
                    report.finding("did not end", f"{case}, undisturbed", ended.err)
                    return
                references[case] = numbers(folder / "reference") | {"seconds": ended.seconds, "moments": len(writes)}
            one(report, case, references[case], folder, draw)
            shutil.rmtree(folder, ignore_errors=True)


def cases(draw: random.Random) -> Iterator[str]:
    while True:
        names = list(CASES)
        draw.shuffle(names)
        yield from names


def one(report: Report, case: str, reference: dict[str, Any], folder: Path, draw: random.Random) -> None:
    outputs, kills, told = folder / "outputs", 0, []
    while True:
        disturbed = kills < TRIES and report.more
        moment = draw.randint(1, max(2, reference["moments"])) if disturbed and draw.random() < 0.5 else None
        after = draw.uniform(0, reference["seconds"]) if disturbed and moment is None else None
        ended, where = go(CASES[case], outputs, folder, moment, after)
        if ended.code == -signal.SIGKILL and disturbed:
            kills += 1
            told.append(where or f"{after:.2f} s")
            report.add("at a write" if moment else "at random", f"case {case}")
            continue
        if ended.code or ended.traceback:
            report.finding("traceback" if ended.traceback else "did not end", f"{case}, after kills at {told}", ended.err)
            return
        break
    found = numbers(outputs)
    report.counts["ends compared"] += 1
    if differing := [key for key in reference if key not in ("seconds", "moments") and reference[key] != found.get(key)]:
        report.finding("other numbers", f"{case}, after kills at {told}", ", ".join(differing))
    left = [str(path.relative_to(outputs)) for path in outputs.rglob("*") if path.name.endswith((".tmp", ".broken"))]
    if left:
        report.finding("left behind", f"{case}, after kills at {told}", ", ".join(left))


def go(words: list[str], outputs: Path, folder: Path, moment: int | None, after: float | None = None) -> tuple[Ended, str]:
    """Run the command; kill it before its `moment`-th write, or `after` seconds. Gives also the write at which it was killed; of moment 0
    a dot a write."""
    folder.mkdir(parents=True, exist_ok=True)
    told = folder / "moment"
    told.unlink(missing_ok=True)
    run = module("attnlab.train")
    work = run if moment is None else lambda: (watch(outputs, told, moment), run())
    process = Forked(work, *words, f"paths.outputs={outputs}", session=True, memory=MEMORY)
    if after is not None:
        while time.monotonic() - process.began < after and process.poll() is None:
            time.sleep(0.002)
        process.kill()
    return process.end(300), told.read_text() if told.exists() else ""


def watch(outputs: Path, told: Path, moment: int) -> None:
    """From now on count the writes below `outputs`, and kill this process before the `moment`-th; 0: write a dot into `told` for each."""
    root, seen = str(outputs), 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal seen
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & WRITING:
                return
        elif event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir"):
            path = arguments[0]
        else:
            return
        if isinstance(path, bytes):
            path = path.decode(errors="replace")
        if not str(path).startswith(root):
            return
        seen += 1
        if not moment:
            os.write(count, b".")
        elif seen == moment:
            file = os.open(told, os.O_WRONLY | os.O_CREAT)
            os.write(file, f"{event} {str(path).removeprefix(root)}".encode())
            os.kill(os.getpid(), signal.SIGKILL)

    if not moment:
        count = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sys.addaudithook(hook)


def numbers(outputs: Path) -> dict[str, Any]:
    """Everything that a run has come to, by folder, in a form that compares bit for bit; None for a file that cannot be read."""
    found: dict[str, Any] = {}
    for run in sorted((outputs / "runs").glob("*-*")):
        if run.is_dir() and "." not in run.name:
            result = {key: value for key, value in read_result(run).result.items() if key not in TIMES | {"trained_by"}}
            found[f"{run.name} result"] = json.dumps(result, sort_keys=True)
            for name, read in {"last.ckpt": checkpoint_of, "scores.npz": scores_of}.items():
                try:
                    found[f"{run.name} {name}"] = read(run / name)
                except Exception:  # whatever torch and numpy raise
                    found[f"{run.name} {name}"] = None
    return found


def checkpoint_of(path: Path) -> list[Any]:
    checkpoint = torch.load(path, weights_only=True)
    history = [{key: value for key, value in row.items() if key not in TIMES} for row in checkpoint["attnlab"]["history"]]
    return [{name: value.numpy().tobytes() for name, value in checkpoint["state_dict"].items()}, history]


def scores_of(path: Path) -> dict[str, bytes]:
    with np.load(path) as scores:
        return {key: scores[key].tobytes() for key in scores.files}
