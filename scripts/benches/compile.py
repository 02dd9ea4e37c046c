"""What torch.compile costs once and gives each step: a cold cache, a warm one (another process), images a second eager and compiled."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benches.common import Options, Table

TITLE = "torch.compile, ResNet-18 with rect: seconds until the first step is done, then images a second"
SCRIPTS = Path(__file__).resolve().parents[1]


def child(mode: str, options: Options, cache: str, choice: str) -> dict[str, float]:
    """Seconds of the first step and of later ones, in a process of its own."""
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache}
    words = [sys.executable, "-m", "benches.compile", mode, choice, options.device, str(int(options.quick))]
    done = subprocess.run(words, cwd=SCRIPTS, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def one(mode: str, choice: str, options: Options) -> dict[str, float]:
    import statistics

    import torch

    from benches.common import resident, seconds
    from benches.components import SHAPE, Step

    settings = options.settings(compile=mode, max_epochs=10)
    gpu = settings.device.type == "cuda"
    size = 128 if gpu else 16
    batch = next(iter(resident(2 * size, SHAPE, batch_size=size, device=settings.device, pad=4, flip=True)))
    torch.manual_seed(0)
    step = Step(choice, batch, settings, 20 if gpu else 1)
    first = seconds(lambda: step.learner.step(step.batch, step.totals), settings.device)
    step.seconds()
    later = statistics.median(step.seconds() for _ in range(3 if options.quick else 7))
    return {"first_seconds": first, "images_per_second": size / later}


def measure(options: Options) -> tuple[dict[str, Any], Table]:
    gpu = options.torch_device.type == "cuda"
    modes = ("off", "default", *(["reduce-overhead", "max-autotune"] if gpu and not options.quick else ["reduce-overhead"] if gpu else []))
    found: dict[str, Any] = {}
    table: Table = [["", "first step, cold", "first step, warm cache", "images/s"]]
    for mode in modes:
        with tempfile.TemporaryDirectory(prefix="attnlab-bench-") as cache:
            cold = child(mode, options, cache, "attention=rect")
            warm = child(mode, options, cache, "attention=rect")
        found[mode] = {
            "cold_seconds": cold["first_seconds"],
            "warm_seconds": warm["first_seconds"],
            "images_per_second": warm["images_per_second"],
        }
        name = "eager" if mode == "off" else mode
        table.append([name, f"{cold['first_seconds']:.1f}", f"{warm['first_seconds']:.1f}", f"{warm['images_per_second']:,.1f}"])
    return found, table


if __name__ == "__main__":
    print(json.dumps(one(sys.argv[1], sys.argv[2], Options(device=sys.argv[3], quick=sys.argv[4] == "1"))))
