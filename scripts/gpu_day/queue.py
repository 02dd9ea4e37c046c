"""The queue: one process a piece, a JSON a piece, parts that are not repeated. Standard library alone; the pieces import torch."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PIECES = (  # most valuable first
    "smoke", "step", "compiled", "cifar10", "packing", "ood", "batch512", "components", "maxdropout", "components_compiled", "others",
)  # fmt: skip
PIECE_SECONDS = 540  # at most, of one call; what is left goes on in the next
GRACE = 25  # seconds that a piece has to stop
DONE, FAILED, RUNNING = "done", "failed", "running"


class State:
    """DIR/PIECE.json: `parts` by name, each with its status, seconds, machine and what it found."""

    def __init__(self, out: Path, piece: str) -> None:
        self.path = out / f"{piece}.json"
        self.piece = piece
        self.parts: dict[str, dict[str, Any]] = {}
        self.whole = False
        self.read()

    def read(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            stored = json.loads(self.path.read_text())
            self.parts, self.whole = stored["parts"], stored["whole"]

    def write(self) -> None:
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        temporary.write_text(json.dumps({"piece": self.piece, "whole": self.whole, "parts": self.parts}, indent=1) + "\n")
        temporary.replace(self.path)

    def put(self, part: str, **entry: Any) -> None:
        self.parts[part] = {**entry, "time": time.time()}
        self.write()

    def settled(self, part: str, *, since: float) -> bool:
        """Done, or tried and failed in this call already."""
        entry = self.parts.get(part, {})
        return entry.get("status") == DONE or (entry.get("status") == FAILED and entry["time"] >= since)

    def failed(self) -> dict[str, str]:
        return {name: entry["error"] for name, entry in self.parts.items() if entry.get("status") == FAILED}


class Queue:
    """Runs pieces one after another until the deadline (seconds since the epoch)."""

    def __init__(self, out: Path, *, root: Path, box: Path, site: Path | None, toy: bool, deadline: float) -> None:
        self.out, self.root, self.box, self.toy, self.deadline = out, root, box, toy, deadline
        self.started, self.stopping = time.time(), False
        self.child: subprocess.Popen[bytes] | None = None
        paths = [*([str(site)] if site else []), str(root), str(root / "scripts"), os.environ.get("PYTHONPATH", "")]
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "PYTHONUNBUFFERED": "1",
            "WANDB_MODE": "disabled",
            "TORCHINDUCTOR_CACHE_DIR": str(out / "compiled"),  # one for all pieces
            **({"CUDA_VISIBLE_DEVICES": ""} if toy else {}),
        }

    def run(self, name: str) -> bool:
        """Do what is missing of a piece. False: no time is left, or we were told to stop."""
        while not State(self.out, name).whole and not self.stopping:
            left = min(self.deadline - GRACE - time.time(), PIECE_SECONDS)
            if left < 5:
                return False
            print(f"== {name}", flush=True)
            words = ["--out", str(self.out), "--box", str(self.box), "--since", str(self.started), "--until", str(time.time() + left)]
            words = [sys.executable, "-m", "gpu_day.child", name, *words, *(["--toy"] if self.toy else [])]
            self.child = subprocess.Popen(words, cwd=self.root, env=self.environment, start_new_session=True)
            code = self.wait(left)
            if code >= 0 or not self.note_crash(name, code):
                break
        return not self.stopping and time.time() < self.deadline - GRACE

    def wait(self, seconds: float) -> int:
        """The child's exit code; after `seconds`, or when we are stopped, it is asked to end, then made to."""
        end, asked = time.time() + seconds, 0.0
        while self.child.poll() is None:
            if not asked and (self.stopping or time.time() > end):
                self.child.send_signal(signal.SIGTERM)
                asked = time.time()
            if asked and time.time() > asked + GRACE - 5:
                break
            time.sleep(0.1)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)  # and whatever it left behind
        self.child.wait()
        return 0 if asked else self.child.returncode

    def note_crash(self, name: str, code: int) -> bool:
        """A part that took its process with it has failed; the others go on without it."""
        state = State(self.out, name)
        running = [part for part, entry in state.parts.items() if entry["status"] == RUNNING]
        for part in running:
            state.put(part, status=FAILED, error=f"its process was ended by signal {-code}")
        return bool(running)

    def stop(self, *_: Any) -> None:
        self.stopping = True

    def show(self, names: Sequence[str]) -> int:
        words = [sys.executable, "-m", "gpu_day.child", "--list", *names, "--out", str(self.out), *(["--toy"] if self.toy else [])]
        return subprocess.run(words, cwd=self.root, env=self.environment).returncode

    def summary(self, names: Sequence[str]) -> int:
        """A line a piece; 1 where a part failed."""
        print(f"\n== {self.out}, {time.time() - self.started:.0f} s")
        bad = 0
        for name in names:
            state = State(self.out, name)
            parts = state.parts.values()
            done = sum(entry["status"] == DONE for entry in parts)
            print(f"{name:<12} {'whole' if state.whole else 'partial' if parts else 'not begun':<10} {done} parts done")
            for part, error in state.failed().items():
                print(f"    {part}: FAILED, {error}")
                bad += 1
        left_out = sorted({text for name in names for entry in State(self.out, name).parts.values() for text in entry.get("left_out", [])})
        for text in left_out:
            print(f"not exercised here: {text}")
        return int(bool(bad))
