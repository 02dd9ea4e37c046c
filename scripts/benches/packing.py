"""Several runs at once on one device (hydra.launcher.jobs_per_device) against one after another: total images a second of a short sweep."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attnlab.config.result import read_result
from benches.common import Options, Table

TITLE = "Packing runs onto one device: six runs of ResNet-18, batch 128"
ROOT = Path(__file__).resolve().parents[2]


def measure(options: Options) -> tuple[dict[str, Any], Table]:
    gpu = options.torch_device.type == "cuda"
    runs = 6 if gpu or not options.quick else 2
    table: Table = [["runs at a time", "seconds in all", "images/s in all", "of one at a time"]]
    found: dict[str, Any] = {}
    for jobs in (1, 2, 3) if gpu else (1, 2):
        found[str(jobs)] = row = one(jobs, gpu=gpu, runs=runs)
        rate = row["images_per_second"]
        table.append([str(jobs), f"{row['seconds']:.1f}", f"{rate:,.0f}", f"{rate / found['1']['images_per_second']:.2f}"])
    return found, table


def one(jobs: int, *, gpu: bool, runs: int, words: Sequence[str] = ()) -> dict[str, Any]:
    """`runs` runs, `jobs` of them at a time."""
    size = ["data.size=32", "trainer.max_epochs=40"] if gpu else ["model.width=8", "trainer.max_epochs=2", "trainer.threads=1"]
    base = ["-m", "data.batch_size=128", "ood=none", "logger=none", *size, *words, "hydra/launcher=local"]
    with tempfile.TemporaryDirectory(prefix="attnlab-bench-") as folder:
        words = [*base, f"seed=range({runs})", f"hydra.launcher.jobs_per_device={jobs}", f"paths.outputs={folder}"]
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "attnlab.train", *words], cwd=ROOT, check=True, capture_output=True)
        took = time.perf_counter() - start
        results = [read_result(path.parent).result for path in Path(folder).glob("runs/*/result.json")]
        images = sum(result["images_per_second"] * result["seconds"] for result in results)
    return {"seconds": took, "images_per_second": images / took, "runs": len(results)}
