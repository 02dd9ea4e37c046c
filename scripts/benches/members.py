"""Members of an ensemble in seconds of CPU, one thread: four whole runs against one of algorithm=joint_ensemble with its members in a loop
or packed; and the forward and backward pass of the members alone."""

import contextlib
import functools
import importlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from benches.common import Options, Table, alternate

TITLE = "Members of an ensemble: seconds of CPU, one thread; whole runs (ResNet-18 on digits), then passes of a batch of 64"
ROOT = Path(__file__).resolve().parents[2]
TOGETHER = ["algorithm=joint_ensemble", "algorithm.members=4", "algorithm.repulsion=none"]
NETWORKS = {  # module, members, shape, width
    "resnet18": ("resnet", 4, (1, 16, 16), 16),
    "cnn3": ("cnn3", 4, (1, 16, 16), 64),
    "mlp2d": ("mlp2d", 8, (2,), 128),
}


def cpu_seconds(commands: Sequence[Sequence[str]]) -> float:
    """Of runs one after another, each a process of its own under new outputs."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for words in commands:
        with tempfile.TemporaryDirectory(prefix="attnlab-bench-") as folder:
            command = [sys.executable, "-m", "attnlab.train", *words, f"paths.outputs={folder}"]
            subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def passes(name: str, *, toy: bool) -> dict[str, Callable[[], float]]:
    """Seconds of CPU of the forward and backward pass of all members of a network, in a loop and packed, in fp32 and bf16."""
    from attnlab.algorithms.packing import packed_outputs
    from attnlab.network import Network

    module, members, shape, width = NETWORKS[name]
    build = getattr(importlib.import_module(f"attnlab.backbones.{module}"), name)
    networks = [Network(build(10, shape, width=4 if toy else width), shape=shape).train() for _ in range(members)]
    x, y = torch.randn(64, *shape), torch.randint(10, (64,))

    def contestant(*, half: bool, packed: bool) -> float:
        start = time.process_time()
        with torch.autocast("cpu", torch.bfloat16) if half else contextlib.nullcontext():
            outs = packed_outputs(networks, [x] * members, y) if packed else [network(x, y) for network in networks]
            loss = sum(F.cross_entropy(out.logits, y) for out in outs)
        loss.backward()
        return time.process_time() - start

    return {
        f"{members} x {name}, {kind}, {how}": functools.partial(contestant, half=kind == "bf16", packed=how == "packed")
        for kind in ("fp32", "bf16")
        for how in ("in a loop", "packed")
    }


def measure(options: Options) -> tuple[dict[str, Any], Table]:
    size = ["model.width=2", "data.limit=64", "trainer.max_epochs=1"] if options.toy else ["model.width=16", "trainer.max_epochs=2"]
    base = [*size, "trainer.accelerator=cpu", "trainer.threads=1", "trainer.precision=32"]
    base += ["ood=[entropy]", "evaluator=[ood]", "logger=none"]
    contestants = {
        "four runs": [[*base, f"seed={seed}"] for seed in range(4)],
        "one run, members in a loop": [[*base, *TOGETHER]],
        "one run, packed": [[*base, *TOGETHER, "algorithm.packed=true"]],
    }
    rounds = 1 if options.toy or options.quick else 2
    measured = {name: functools.partial(cpu_seconds, commands) for name, commands in contestants.items()}
    found = alternate(measured, rounds=rounds, warmup=0)
    table: Table = [["", "seconds of CPU", "of the first"]]
    table += [[name, f"{value:.1f}", f"{value / found['four runs']:.2f}"] for name, value in found.items()]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name in NETWORKS:
        steps = alternate(passes(name, toy=options.toy), rounds=rounds)
        first = next(iter(steps.values()))
        table += [[words, f"{value:.4f}", f"{value / first:.2f}"] for words, value in steps.items()]
        found |= steps
    torch.set_num_threads(threads)
    return found, table
