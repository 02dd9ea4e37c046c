"""Four networks as four runs, and as one run of algorithm=joint_ensemble with its members in a loop or packed: seconds of CPU, in turns."""

import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benches.common import Options, Table, alternate

TITLE = "Four members of an ensemble, ResNet-18 on digits: seconds of CPU of whole runs, one thread"
ROOT = Path(__file__).resolve().parents[2]
TOGETHER = ["algorithm=joint_ensemble", "algorithm.members=4", "algorithm.repulsion=none"]


def cpu_seconds(commands: Sequence[Sequence[str]]) -> float:
    """Of runs one after another, each a process of its own under new outputs."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for words in commands:
        with tempfile.TemporaryDirectory(prefix="attnlab-bench-") as folder:
            command = [sys.executable, "-m", "attnlab.train", *words, f"paths.outputs={folder}"]
            subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(options: Options) -> tuple[dict[str, Any], Table]:
    size = ["model.width=2", "data.limit=64", "trainer.max_epochs=1"] if options.toy else ["model.width=16", "trainer.max_epochs=2"]
    base = [
        *size,
        "trainer.accelerator=cpu",
        "trainer.threads=1",
        "trainer.precision=32",
        "ood=[entropy]",
        "evaluator=[ood]",
        "logger=none",
    ]
    contestants = {
        "four runs": [[*base, f"seed={seed}"] for seed in range(4)],
        "one run, members in a loop": [[*base, *TOGETHER]],
        "one run, packed": [[*base, *TOGETHER, "algorithm.packed=true"]],
    }
    measured = {name: lambda commands=commands: cpu_seconds(commands) for name, commands in contestants.items()}
    found = alternate(measured, rounds=1 if options.toy or options.quick else 2, warmup=0)
    table: Table = [["", "seconds of CPU", "of four runs"]]
    table += [[name, f"{value:.1f}", f"{value / found['four runs']:.2f}"] for name, value in found.items()]
    return found, table
