"""What a process asks of its C library."""

import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from attnlab.training.hardware import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.zeros(12 << 20)  # 48 MiB, freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
before = faults()
keep_freed_memory()
faults()
print(before, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc")
@pytest.mark.parametrize("of_dask", [False, True])
def test_freed_memory_is_used_again(of_dask: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    if of_dask:
        monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "65536")
    out = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True).stdout
    before, after = map(int, out.split())
    assert after < before / 4, out
