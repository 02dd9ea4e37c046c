"""scripts/bench.py runs, prints its table last, and writes what it measured. What it measures is in docs/speed.md, not here."""

import json
import subprocess
import sys
from pathlib import Path

from tests import ROOT


def bench(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "scripts/bench.py", *words], capture_output=True, text=True, timeout=300, cwd=ROOT)


def test_step_tax(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    done = bench("step-tax", "--quick", "--json", str(path))
    assert done.returncode == 0, done.stderr
    found = json.loads(path.read_text())
    assert {"device", "torch", "python", "threads"} <= found["machine"].keys() and found["command"].endswith(f"--json {path}")
    tax = found["step-tax"]
    assert tax["attnlab_us_per_step"] > tax["plain_us_per_step"] > 0
    assert done.stdout.splitlines()[-1].startswith("plain loop")
    assert not list(tmp_path.glob(".*.tmp"))


def test_an_unknown_bench_is_named() -> None:
    done = bench("step-taxes")
    assert done.returncode == 2 and "step-tax" in done.stderr
