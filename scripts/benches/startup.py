"""How long a person waits for an answer: help, a mistyped key, a finished run repeated."""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benches.common import Options, Table

TITLE = "Answers of python -m attnlab.train, seconds from the command to its end (median)"
ROOT = Path(__file__).resolve().parents[2]
SMALL = ["model.width=4", "trainer.max_epochs=1", "data.limit=128", "logger=none", "ood=msp"]


def wall(words: list[str], code: int) -> float:
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "attnlab.train", *words], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != code:
        raise RuntimeError(f"{words} ended with {done.returncode}, not {code}: {done.stderr[-500:]}")
    return time.perf_counter() - start


def measure(options: Options) -> tuple[dict[str, Any], Table]:
    times = 3 if options.quick else 7
    with tempfile.TemporaryDirectory(prefix="attnlab-bench-") as folder:
        run = [*SMALL, f"paths.outputs={folder}"]
        cases = {
            "--help": (["--help"], 0, 2.0),
            "a mistyped key (modle=resnet18)": (["modle=resnet18"], 1, 4.0),
            "a mistyped parameter (model.widht=16)": (["model.widht=16"], 1, 4.0),
            "a mistyped value (attention=recta)": (["attention=recta"], 1, 4.0),
            "a finished run repeated": (run, 0, 6.0),
        }
        wall(run, 0)  # the run itself
        wall(["--help"], 0)  # files into the cache
        table: Table = [["", "seconds", "at most"]]
        found: dict[str, Any] = {}
        for name, (words, code, limit) in cases.items():
            found[name] = statistics.median(wall(words, code) for _ in range(times))
            table.append([name, f"{found[name]:.2f}", f"{limit:.0f}"])
    return found, table
