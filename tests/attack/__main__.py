"""python -m tests.attack [--minutes 30] [--seed 0] [--only lines,kills,files,hostile] [--json FILE] [--scale 1.0]

Attacks attnlab: mutated command lines, runs that are killed, files that are damaged, files of others that try to run something. Each ends
when it has reached its number (1,000 lines, 200 kills, 500 files, every hostile file; times --scale) or its share of the minutes is over.
The exit code is 1 where anything was found.
"""

import argparse
import datetime
import json
import os
import platform
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["WANDB_MODE"] = "offline"

from tests.attack import files, hostile, kills, lines
from tests.attack.report import Report
from tests.commands import warm

# the attack, how many, its part of the time
ATTACKS = {
    "hostile": (hostile.attack, len(hostile.CASES), 2),
    "kills": (kills.attack, 200, 4),
    "files": (files.attack, 500, 4),
    "lines": (lines.attack, 1000, 5),
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.attack", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(ATTACKS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    for name, (_, goal, _) in ATTACKS.items():
        parser.add_argument(f"--{name}", type=int, help=f"how many, instead of {goal}")
    given = parser.parse_args()
    chosen = given.only.split(",")
    if unknown := [name for name in chosen if name not in ATTACKS]:
        parser.error(f"--only={','.join(unknown)}: there are {', '.join(ATTACKS)}")

    warm()
    began = time.monotonic()
    reports = []
    for name, (attack, goal, part) in ATTACKS.items():
        if name in chosen:
            left = given.minutes * 60 - (time.monotonic() - began)
            left *= part / sum(ATTACKS[other][2] for other in list(ATTACKS)[list(ATTACKS).index(name) :] if other in chosen)
            wanted = getattr(given, name)
            report = Report(name, round(goal * given.scale) if wanted is None else wanted, deadline=time.monotonic() + left)
            attack(report, seed=given.seed)
            report.show(now=True)
            reports.append(report)
    summary = {
        "command": " ".join(["python -m tests.attack", *sys.argv[1:]]),
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}",
        "seed": given.seed,
        "seconds": round(time.monotonic() - began),
        **{report.name: report.summary() for report in reports},
    }
    if given.json:
        given.json.write_text(json.dumps(summary, indent=1) + "\n")
    for report in reports:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(report.counts.items()) if not kind.startswith("kind "))
        print(f"{report.name}: {report.done} in {report.seconds:.0f} s, {len(report.found)} findings ({kinds})")
    return int(any(report.found for report in reports))


if __name__ == "__main__":
    sys.exit(main())
