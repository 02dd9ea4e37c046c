"""What the framework costs, measured beside a rival in the same run, alternating, medians.

python scripts/bench.py step-tax train components data ood startup --json FILE       on this machine, about ten minutes
python scripts/bench.py train compile packing limits                                 what one asks of a GPU
python scripts/bench.py members                                                      four networks as four runs and as one
python scripts/bench.py scale                                                        memory and time as the work grows
python scripts/bench.py explain                                                      deletion and insertion, IG, SmoothGrad
python scripts/bench.py costs --device cpu --json docs/costs.json                    what the catalogue says of costs
python scripts/bench.py freed-memory                                                 what a CPU gains by keeping it
python scripts/bench.py small-job                                                    a whole job beside plain Lightning's
python scripts/bench.py step-tax --quick                                             fewer rounds, a first look

Each subcommand prints a short table last. `--data FOLDER` is a Parquet folder of real 32x32 images (CIFAR-10) for `data`; without it
random images of that size stand in, which cost the same.
"""

import argparse
import datetime
import importlib
import json
import sys
from pathlib import Path

from benches.common import Options, machine, show

NAMES = (
    "step-tax", "train", "components", "data", "ood", "startup", "compile", "packing", "members", "limits", "scale", "explain", "costs",
    "freed-memory", "small-job",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benches", nargs="+", choices=NAMES, metavar="bench", help=", ".join(NAMES))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and smaller sizes")
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto", help="cpu: leave a GPU alone")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="Parquet folder of 32x32 colour images")
    parser.add_argument("--compiled", action="store_true", help="components: compiled as well where that takes minutes (on a CPU)")
    given = parser.parse_args()
    options = Options(quick=given.quick, device=given.device, data=given.data, compiled=given.compiled)
    found = {
        "machine": machine(options),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python scripts/bench.py", *sys.argv[1:]]),
    }
    tables = []
    for name in dict.fromkeys(given.benches):
        print(f"{name} ...", file=sys.stderr, flush=True)
        bench = importlib.import_module(f"benches.{name.replace('-', '_')}")
        found[name], table = bench.measure(options)
        tables.append((bench.TITLE, table))
        if given.json:  # after each: what was measured is not lost if a later one fails
            temporary = given.json.with_name(f".{given.json.name}.tmp")
            temporary.write_text(json.dumps(found, indent=1) + "\n")
            temporary.replace(given.json)
    print("; ".join(f"{key} {value}" for key, value in found["machine"].items()))
    for title, table in tables:
        print(f"\n{title}")
        show(table)


if __name__ == "__main__":
    main()
