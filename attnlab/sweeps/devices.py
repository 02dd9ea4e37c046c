"""The GPUs and CPUs that a sweep may use. Asks no torch."""

import contextlib
import math
import os
import subprocess
from pathlib import Path


def find_devices() -> list[str]:
    """What CUDA_VISIBLE_DEVICES can name here: GPUs, or their slices (MIG) where there are some; none on a CPU machine."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip() not in ("", "-1")]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=True).stdout
        return parse_devices(listed)
    return [str(index) for index, _ in enumerate(Path("/proc/driver/nvidia/gpus").glob("*"))]


def parse_devices(listed: str) -> list[str]:
    """`nvidia-smi -L`: a line a GPU, below it one a slice."""
    found: list[list[str]] = []
    for line in listed.splitlines():
        if line.startswith("GPU "):
            found.append([line.partition(":")[0].removeprefix("GPU ")])
        elif line.strip().startswith("MIG ") and found:
            found[-1].append(line.partition("UUID: ")[2].rstrip(") "))
    return [name for gpu in found for name in (gpu[1:] or gpu)]


def count_cpus() -> int:
    """CPUs that this process may use: its affinity, and a container's share of them."""
    cpus = float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else float(os.cpu_count() or 1)
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cpus = min(cpus, int(quota) / int(period))
    return max(1, math.floor(cpus))
