"""One piece in its own process: its parts in turn, each written down when it is done. `python -m gpu_day.child PIECE --out DIR ...`"""

import argparse
import contextlib
import dataclasses
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gpu_day.queue import DONE, FAILED, GRACE, PIECES, RUNNING, State

ROOT = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Part:
    """A measurement.

    work: does it, and returns plain data for JSON. seconds: about how long it takes on the GPU; it is not begun with less left.
    needs_gpu: left out without one. goes_on: it is made of runs that an interruption does not lose.
    """

    name: str
    work: Callable[["Day"], dict[str, Any]]
    seconds: float = 60
    needs_gpu: bool = False
    goes_on: bool = False


class Stopped(BaseException):
    """SIGTERM: no time is left."""


class Day:
    """What parts ask for: where, on what, at which size; and runs of attnlab."""

    def __init__(self, out: Path, *, box: Path | None = None, toy: bool = False) -> None:
        self.out, self.box, self.toy = out, box, toy
        self.left_out: list[str] = []  # of the part under way: what this machine cannot exercise

    @property
    def outputs(self) -> Path:
        return self.out / "outputs"

    @property
    def gpu(self) -> bool:
        import torch

        return torch.cuda.is_available()

    @property
    def options(self) -> Any:
        from benches.common import Options

        return Options(quick=self.toy, toy=self.toy, device="cpu" if self.toy else "auto")

    def images(self) -> Path:
        """CIFAR-10 in Parquet files; at toy size 256 crops of photographs."""
        if not self.toy:
            return self.box / "cifar10"
        if not (folder := self.out / "toy" / "cifar10").exists():
            from benches.scale import _write

            folder.parent.mkdir()
            _write(folder, 256, 32)
        return folder

    def on_images(self) -> list[str]:
        """Overrides: the experiments' images from files."""
        return ["data=parquet", f"data.path={self.images()}", "data.crop=4", "data.flip=true"]

    def found(self, piece: str, part: str) -> dict[str, Any]:
        """What an earlier part found; nothing where it is not there."""
        return State(self.out, piece).parts.get(part, {}).get("found") or {}

    def train(self, *words: str, outputs: Path | None = None, module: str = "attnlab.train") -> list[dict[str, Any]]:
        """Run attnlab, stop it as Ctrl-C does where we are stopped, and read the records that it names, or the sweep's."""
        outputs = outputs or self.outputs
        before = time.time()
        process = self.start(*words, outputs=outputs, module=module)
        try:
            text, _ = process.communicate()
        except Stopped:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=GRACE - 8)
            process.kill()
            raise
        if process.returncode:
            raise RuntimeError(f"{module} {' '.join(words)} ended with {process.returncode}: {last_line(self.out / 'log.txt')}")
        from attnlab.config.result import read_result

        if "-m" not in words:
            return [{**read_result(Path(text.splitlines()[-1]).parent).result, "wall_seconds": time.time() - before}]
        return [dict(read_result(path.parent).result) for path in sorted(outputs.glob("runs/*/result.json"))]

    def start(self, *words: str, outputs: Path, module: str = "attnlab.train") -> subprocess.Popen[str]:
        command = [sys.executable, "-m", module, *words, "logger=none", f"paths.outputs={outputs}"]
        with open(self.out / "log.txt", "a") as log:
            print("$", " ".join(command), file=log, flush=True)
            return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True)


def last_line(path: Path) -> str:
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else ""


def parts_of(piece: str, *, toy: bool) -> list[Part]:
    return importlib.import_module(f"gpu_day.{piece}").parts(toy)


def run(piece: str, day: Day, *, since: float, until: float) -> None:
    """The parts that are missing, as far as time allows."""
    state, parts = State(day.out, piece), parts_of(piece, toy=day.toy)
    import torch

    from benches.common import machine

    if not (day.toy or torch.cuda.is_available()):
        raise SystemExit("PyTorch sees no GPU here; --rehearse is for the CPU")
    where = machine(day.options)
    for part in parts:
        left = until - time.time()
        if state.settled(part.name, since=since) or left < (min(part.seconds, 60) if part.goes_on else part.seconds) * (not day.toy):
            continue
        if part.needs_gpu and not day.gpu:
            state.put(part.name, status=DONE, found=None, left_out=[f"{piece}: {part.name}"], machine=where)
            continue
        print(f"{piece}: {part.name} ...", flush=True)
        state.put(part.name, status=RUNNING)
        day.left_out, start = [], time.time()
        try:
            found = part.work(day)
        except Stopped:
            state.parts.pop(part.name)
            state.write()
            raise
        except Exception as error:
            with open(day.out / "log.txt", "a") as log:
                traceback.print_exc(file=log)
            state.put(part.name, status=FAILED, error=f"{type(error).__name__}: {error}"[:500], seconds=time.time() - start, machine=where)
            print(f"{piece}: {part.name} FAILED: {error}", flush=True)
            continue
        seconds = time.time() - start
        state.put(part.name, status=DONE, found=found, seconds=round(seconds, 2), left_out=day.left_out, machine=where)
        print(f"{piece}: {part.name} {seconds:.1f} s {json.dumps(short(found))}", flush=True)
    state.whole = all(state.parts.get(part.name, {}).get("status") == DONE for part in parts)
    state.write()


def short(found: Any) -> Any:
    """Four digits of every figure, for the terminal."""
    if isinstance(found, dict):
        return {key: short(value) for key, value in found.items() if not isinstance(value, list)}
    return float(f"{found:.4g}") if isinstance(found, float) else found


def show(pieces: Sequence[str], out: Path, *, toy: bool) -> None:
    for piece in pieces:
        state, parts = State(out, piece), parts_of(piece, toy=toy)
        print(f"{piece}  about {sum(part.seconds for part in parts) / 60:.0f} min{', whole' if state.whole else ''}")
        for part in parts:
            print(f"    {part.name:<44} {part.seconds:>5.0f} s  {state.parts.get(part.name, {}).get('status', '')}")


def stop(*_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once
    raise Stopped


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pieces", nargs="+", choices=PIECES)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--box", type=Path)
    parser.add_argument("--since", type=float, default=0.0)
    parser.add_argument("--until", type=float, default=float("inf"))
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--list", action="store_true")
    given = parser.parse_args()
    if given.list:
        show(given.pieces, given.out, toy=given.toy)
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        for piece in given.pieces:
            run(piece, Day(given.out, box=given.box, toy=given.toy), since=given.since, until=given.until)
    except Stopped:
        print("stopped; the next call goes on", flush=True)
        os._exit(0)  # not through the end of a CUDA context under way


if __name__ == "__main__":
    main()
