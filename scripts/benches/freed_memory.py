"""A CPU's training steps where glibc keeps what a step frees (`hardware.keep_freed_memory`) and where it does not: processes in turns."""

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benches.common import Options, Table

TITLE = "Training steps on a CPU, freed memory kept or given back to the kernel (one thread, medians)"
SCRIPTS = Path(__file__).resolve().parents[1]
NETWORKS = {"cnn3, 1x28x28, batch 128": ((1, 28, 28), 128, 12), "resnet18, 3x32x32, batch 128": ((3, 32, 32), 128, 3)}


def one(name: str, kept: bool, toy: bool) -> dict[str, float]:
    """Processor seconds a step, those of them in the kernel, and the process's peak of memory in MiB."""
    import resource

    import torch

    from attnlab.backbones.cnn3 import cnn3
    from attnlab.backbones.resnet import resnet18
    from attnlab.training.hardware import keep_freed_memory
    from benches.common import random_images

    torch.set_num_threads(1)
    if kept:
        keep_freed_memory()
    shape, batch, steps = NETWORKS[name]
    steps = 1 if toy else steps
    torch.manual_seed(0)
    make = cnn3 if name.startswith("cnn3") else resnet18
    network = make(10, shape, width=4 if toy else 64).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    images, labels = random_images(batch, shape)
    x_BCHW = images.float() / 255

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(x_BCHW), labels).backward()
        optimizer.step()

    step()
    before = resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(steps):
        step()
    after = resource.getrusage(resource.RUSAGE_SELF)
    kernel = (after.ru_stime - before.ru_stime) / steps
    return {"seconds": (after.ru_utime - before.ru_utime) / steps + kernel, "kernel": kernel, "peak_mib": after.ru_maxrss / 1024}


def measure(options: Options) -> tuple[dict[str, Any], Table]:
    found: dict[str, Any] = {}
    table: Table = [["", "s a step, kept", "given back", "of which kernel", "ratio", "peak MiB, kept", "given back"]]
    for name in NETWORKS:
        turns: dict[bool, list[dict[str, float]]] = {True: [], False: []}
        for turn in range(2 if options.quick else 5):
            for kept in (True, False) if turn % 2 else (False, True):
                words = [sys.executable, "-m", "benches.freed_memory", name, str(int(kept)), str(int(options.toy))]
                turns[kept].append(json.loads(subprocess.run(words, cwd=SCRIPTS, capture_output=True, text=True, check=True).stdout))
        kept, given = ({key: statistics.median(turn[key] for turn in turns[side]) for key in turns[side][0]} for side in (True, False))
        ratio = statistics.median(a["seconds"] / b["seconds"] for a, b in zip(turns[True], turns[False]))
        found[name] = {"kept": kept, "given_back": given, "ratio": ratio}
        seconds = [f"{kept['seconds']:.3f}", f"{given['seconds']:.3f}", f"{given['kernel']:.3f}", f"{ratio:.3f}"]
        table.append([name, *seconds, f"{kept['peak_mib']:,.0f}", f"{given['peak_mib']:,.0f}"])
    return found, table


if __name__ == "__main__":
    print(json.dumps(one(sys.argv[1], sys.argv[2] == "1", sys.argv[3] == "1")))
