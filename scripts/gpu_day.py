"""A day with a GPU: a queue of measured pieces, most valuable first, in calls of nine minutes; what was measured is on disk at once.

Here, where packages and images are to be had; fills the ignored folder .gpu_day (at most 64 MiB with the working tree):
    python scripts/gpu_day.py --bring DIR/cifar10
There, in a copy of this checkout, again and again, on as many machines as it takes. --pack names the folder that comes back:
    python3 scripts/gpu_day.py --out /tmp/gpu_day --pack FOLDER --minutes 9
What came back of one machine goes into .gpu_day/back; the next machine takes it from there and goes on.
    python scripts/gpu_day.py --list                          the pieces and their parts; with --out, how far they are
    python scripts/gpu_day.py --rehearse                      the whole queue on the CPU at toy size: see that everything works

A piece is made of parts. A part that is done is not repeated; one that failed is tried again by the next call; a training that was
interrupted goes on from its checkpoint. --minutes and SIGTERM end the day early, without loss. Each DIR/PIECE.json has a piece's
figures and the machine of each; DIR/outputs has the records. Exit code 1: a part failed.
"""

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

from gpu_day.bring import equip, fill, pack, unpack
from gpu_day.queue import PIECES, Queue

ROOT = Path(__file__).resolve().parents[1]
BOX = ROOT / ".gpu_day"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, metavar="DIR", help="figures and records; go on from what is there")
    parser.add_argument("--minutes", type=float, default=9.0, help="end by then (default 9)")
    parser.add_argument("--only", nargs="+", choices=PIECES, metavar="PIECE", help=", ".join(PIECES))
    parser.add_argument("--pack", type=Path, metavar="FOLDER", help="after every piece: figures and records as two files there")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, at toy size, in a temporary folder unless --out says another")
    parser.add_argument("--list", action="store_true", help="pieces and parts")
    parser.add_argument("--bring", type=Path, metavar="CIFAR10", help="fill .gpu_day: wheels, and the Parquet files of that folder")
    given = parser.parse_args()
    if given.bring:
        print(fill(BOX, given.bring, root=ROOT))
        return 0
    with tempfile.TemporaryDirectory(prefix="gpu-day-") as temporary:
        out = (given.out or Path(temporary)).absolute()
        if not (given.out or given.rehearse or given.list):
            parser.error("--out DIR says where the figures go")
        out.mkdir(parents=True, exist_ok=True)
        unpack(BOX / "back", out)
        site = equip(BOX, out / "site")
        minutes = 60.0 if given.rehearse and "--minutes" not in sys.argv else given.minutes
        queue = Queue(out, root=ROOT, box=BOX, site=site, toy=given.rehearse, deadline=time.time() + 60 * minutes)
        if given.list:
            return queue.show(given.only or PIECES)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, queue.stop)
        for name in given.only or PIECES:
            if not queue.run(name):
                break
            if given.pack:
                pack(out, given.pack)
        if given.pack:
            pack(out, given.pack)
        return queue.summary(given.only or PIECES)


if __name__ == "__main__":
    sys.exit(main())
