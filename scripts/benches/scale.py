"""Memory and time as the work grows: centres of lens depth, images in memory, records in a table. Each size in a process of its own."""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benches.common import Options, Table, random_images, seconds

TITLE = "Scale"
SCRIPTS = Path(__file__).resolve().parents[1]


def measure(options: Options) -> tuple[dict[str, Any], Table]:
    found: dict[str, Any] = {}
    table: Table = [["", "seconds", "peak memory, MiB"]]
    cases = [("centres", num) for num in (100, 500, 1500, *([] if options.quick else [5000]))]
    cases += [("images", num) for num in (10**3, 10**4, 10**5, *([] if options.quick else [10**6]))]
    names = {"centres": "lens depth, 1,000 queries, 10 classes x {:,} centres", "images": "one epoch of {:,} resident images, 3x32x32"}
    for what, num in cases:
        words = [sys.executable, "-m", "benches.scale", what, str(num), options.device]
        done = subprocess.run(words, cwd=SCRIPTS, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        found[f"{what} {num}"] = row = json.loads(done.stdout.splitlines()[-1])
        table.append([names[what].format(num), f"{row['seconds']:.2f}", f"{row['mebibytes']:,.0f}"])
        if "fit_seconds" in row:
            table.append(["    fitting (random reduction)", f"{row['fit_seconds']:.2f}", ""])
    return found, table


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def centres(num: int, options: Options) -> dict[str, float]:
    from attnlab.ood.lens_depth import LensDepth
    from benches.ood import _bank

    generator, device = torch.Generator().manual_seed(0), options.torch_device
    train, test = _bank(10 * num + 10, 10, generator, device), _bank(1000, 10, generator, device)
    before, head = peak(), LensDepth(num_centers=num, reduction="random")
    fit = seconds(lambda: head.fit(train), device)
    return {"fit_seconds": fit, "seconds": seconds(lambda: head.score(test), device), "mebibytes": peak() - before}


def images(num: int, options: Options) -> dict[str, float]:
    from attnlab.data.loader import ResidentLoader

    pictures, labels = random_images(num, (3, 32, 32))
    half = (0.5,) * 3
    before = peak()
    loader = ResidentLoader(
        pictures, labels, batch_size=128, mean=half, std=half, unit=255.0, device=options.torch_device, shuffle=True, pad=4, flip=True
    )
    start = time.perf_counter()
    for _ in loader:
        pass
    return {"seconds": time.perf_counter() - start, "mebibytes": peak() - before}


if __name__ == "__main__":
    work = {"centres": centres, "images": images}[sys.argv[1]]
    print(json.dumps(work(int(sys.argv[2]), Options(device=sys.argv[3]))))
