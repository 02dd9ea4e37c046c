"""Hardware: what the device can do: bf16, torch.compile; what it is called; and Lightning's advice about it, silenced."""

import contextlib
import ctypes
import importlib.util
import os
import shutil
import sys
import warnings
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Lightning's advice (more workers, a logger, its own deprecations) is not for our users."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric|torch\.jit|torch\.utils\._pytree).*")
        warnings.filterwarnings("ignore", message=r".*(isinstance\(treespec, LeafSpec\)|srun|does not have many workers|torch\.jit).*")
        yield


def compile_lacks(device: torch.device) -> str:
    """Why torch.compile cannot work here, in words that follow its name; empty where it can."""
    gpu = device.type == "cuda"
    if gpu and importlib.util.find_spec("triton") is None:
        return "needs Triton, which is not installed"
    if gpu and torch.cuda.get_device_capability(device) < (7, 0):
        return f"needs a GPU of compute capability 7.0, and this one has {'.'.join(map(str, torch.cuda.get_device_capability(device)))}"
    variable, names = ("CC", ("cc", "gcc", "clang")) if gpu else ("CXX", ("g++", "clang++"))
    if not any(map(shutil.which, filter(None, (os.environ.get(variable), *names)))):
        return f"needs a {'C' if gpu else 'C++'} compiler, and there is neither ${variable} nor {' nor '.join(names)}"
    return ""


def forced_precision() -> int | str | None:
    """For tests: ATTNLAB_AUTO_PRECISION (32 or bf16-mixed) is what `precision=auto` means on every machine."""
    value = os.environ.get("ATTNLAB_AUTO_PRECISION", "")
    return int(value) if value.isdigit() else value or None


def computes_in_bf16(device: torch.device) -> bool:
    """Whether bf16 is faster than fp32 there: it is several times slower where a CPU only emulates it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    if capabilities:
        return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
    probes = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(probe() for probe in probes if probe)


def keep_freed_memory() -> None:
    """Let glibc keep what a step frees for the next one; nothing happens with another C library.

    By itself it gives blocks over 32 MiB and the end of its heap back to the kernel at every step, which clears each page before it
    hands it out again. Here blocks up to 256 MiB come from the heap, and up to 1 GiB of its end stays. Numbers are the same to the bit.
    What MALLOC_TRIM_THRESHOLD_ says is overruled: Dask sets it for its workers, to 64 KiB.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return
    trim_threshold, mmap_threshold = -1, -3  # malloc.h
    mallopt(trim_threshold, 1 << 30)
    if not mallopt(mmap_threshold, 256 << 20):
        mallopt(mmap_threshold, 32 << 20)  # the most that older ones take


def describe_device(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = getattr(torch.cpu, "get_capabilities", dict)().get("cpu_name", "CPU")
    return f"{name}, {torch.get_num_threads()} threads"
