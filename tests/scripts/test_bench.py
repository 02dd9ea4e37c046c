"""scripts/bench.py runs, prints its table last, and writes what it measured. What it measures is in docs/speed.md, not here."""

import json
from pathlib import Path

from tests.commands import Ended, script


def bench(*words: str) -> Ended:
    return script("bench.py", *words)


def test_step_tax(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    done = bench("step-tax", "--quick", "--json", str(path))
    assert done.code == 0, done.err
    found = json.loads(path.read_text())
    assert {"device", "torch", "python", "threads"} <= found["machine"].keys() and found["command"].endswith(f"--json {path}")
    tax = found["step-tax"]
    ours, plain = tax["attnlab_us_per_step"], tax["plain_us_per_step"]
    assert min(ours, plain) > 0 and f"{ours - plain:+.0f}" in done.out  # which is larger, a machine busy with other tests does not tell
    assert done.out.splitlines()[-1].startswith("plain loop")
    assert not list(tmp_path.glob(".*.tmp"))


def test_an_unknown_bench_is_named() -> None:
    done = bench("step-taxes")
    assert done.code == 2 and "step-tax" in done.err
