"""Damaged files: each command on them refuses in one line, sets them aside, does without, or gives the right numbers; never a wrong one.

A finished run, an interrupted one, an evaluation and a table's cell are made once; every attack copies them, damages one file and asks one
command, up to three times (what was set aside is done again). Findings: `wrong number`, `traceback`, `blocked` (the same command refuses
for good), `more than a line`.
"""

import csv
import json
import os
import random
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.attack.kills import TIMES, numbers
from tests.attack.report import Report, attacked
from tests.commands import Ended, module
from tests.conftest import POINTS

WORDS = [*POINTS, "trainer.checkpoint_seconds=0", "trainer.max_epochs=2"]
TRIES = 4
METRIC = re.compile(r"  (test|val|train|ood|loc)/")


def flip(content: bytes, draw: random.Random) -> bytes:
    changed = bytearray(content)
    changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def flips(content: bytes, draw: random.Random) -> bytes:
    for _ in range(draw.randint(2, 50)):
        content = flip(content, draw)
    return content


def zeroed(content: bytes, draw: random.Random) -> bytes:
    """A block, as a disk loses one."""
    size = draw.choice([16, 64, 512, 4096])
    start = draw.randrange(len(content)) // size * size
    return content[:start] + b"\0" * len(content[start : start + size]) + content[start + size :]


def lost(content: bytes, draw: random.Random) -> bytes:
    """A piece is left out."""
    start = draw.randrange(len(content))
    return content[:start] + content[start + draw.randint(1, 200) :]


def another_digit(content: bytes, draw: random.Random) -> bytes:
    places = [place for place, byte in enumerate(content) if 48 <= byte <= 57]
    if not places:
        return flip(content, draw)
    place = draw.choice(places)
    return content[:place] + bytes([48 + (content[place] - 48 + draw.randint(1, 9)) % 10]) + content[place + 1 :]


TEXTS = (b"{}", b"[]", b"null", b"\xff\xfe", b'{"status": "finished"}', b"NaN", b"\n", b"../../x", b"1e999")
DAMAGE: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "flip": flip,
    "flips": flips,
    "truncated": lambda content, draw: content[: draw.randrange(len(content))],
    "emptied": lambda content, draw: b"",
    "zeroed": zeroed,
    "lost": lost,
    "digit": another_digit,
    "doubled": lambda content, draw: content + content[: draw.randint(1, len(content))],
    "noise": lambda content, draw: draw.randbytes(draw.choice([1, 100, len(content)])),
    "text": lambda content, draw: draw.choice(TEXTS),
}  # fmt: skip
# also `swapped` (the file of another run) and `gone`

# which files of which state, and the commands that read them
TARGETS = {
    "finished/runs/*/last.ckpt": ("repeat", "evaluate", "lost record"),
    "finished/runs/*/result.json": ("repeat", "evaluate", "table", "runs"),
    "finished/runs/*/scores.npz": ("evaluate", "repeat"),
    "finished/runs/*/metrics.csv": ("evaluate", "runs", "lost record"),
    "finished/runs/*/evaluations/*/result.json": ("evaluate", "runs"),
    "finished/runs/*/evaluations/*/scores.npz": ("evaluate",),
    "finished/runs/.trainings/*": ("repeat", "shared"),
    "half/runs/*/last.ckpt": ("repeat",),
    "half/runs/*/result.json": ("repeat", "table", "runs"),
    "half/runs/*/metrics.csv": ("repeat", "runs"),
    "cache/attnlab/plans/*.json": ("table",),
    "cache/attnlab/*/*": ("table",),
    "finished/.hydra/*/*.json": ("sweep",),
}


class Attack:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.base = root / "base"
        self.table = root / "table.yaml"

    def prepare(self) -> str:
        """Make what is going to be damaged, and what it comes to; a text where that fails."""
        self.table.write_text(
            json.dumps(
                {
                    "title": "t",
                    "metric": {"key": "test/acc", "label": "accuracy", "direction": "max", "margin": 1.0},
                    "common": WORDS,
                    "rows": {"row": []},
                    "columns": {"column": []},
                    "seeds": [0, 1],
                }
            )
        )
        finished, half = self.base / "finished", self.base / "half"
        for words in (WORDS, [*WORDS, "seed=1"]):
            if (ended := self.ask(words, finished)).code:
                return ended.err
        if (ended := self.ask([*WORDS, "seed=0"], half, stop=True)).code != 130:
            return ended.err
        folder = next((finished / "runs").glob("*-s0-*"))
        self.address = folder.name.rpartition("-")[2]
        self.other = next((finished / "runs").glob("*-s1-*"))
        for what in ("evaluate", "table"):
            if (ended := self.act(what, self.base, "finished")).code:
                return ended.err
        self.right = numbers(finished)
        self.weights = next(value[0] for key, value in self.right.items() if "-s0-" in key and key.endswith("last.ckpt"))
        self.evaluated = self.evaluation(self.base)
        self.shown = table_text(self.act("table", self.base, "finished").out)
        self.listed = self.act("runs", self.base, "finished").out
        journal = finished / ".hydra" / "sweep-elsewhere-1" / "1.json"
        journal.parent.mkdir(parents=True)
        journal.write_text(json.dumps({"outcome": "done", "value": 0.5, "error": "", "log": "", "seconds": 1.0}))
        return ""

    def ask(self, words: list[str], outputs: Path, *, stop: bool = False) -> Ended:
        run = module("attnlab.train")

        def stopped() -> None:
            from attnlab.training.learner import Learner

            step = Learner.training_step

            def stop_in_the_second_epoch(self: Any, batches: Any, index: int) -> Any:
                if self.current_epoch == 1:
                    raise KeyboardInterrupt
                return step(self, batches, index)

            Learner.training_step = stop_in_the_second_epoch
            run()

        return attacked(stopped if stop else run, *words, f"paths.outputs={outputs}")

    def act(self, what: str, base: Path, state: str) -> Ended:
        """One command on the copy below `base`."""
        outputs = base / state
        at = f"paths.outputs={outputs}"
        if what == "evaluate":
            folder = next(iter((outputs / "runs").glob("*-s0-*")))
            return attacked(module("attnlab.evaluate"), f"run={folder}", "ood=[entropy]", at)
        if what == "table":
            env = {**os.environ, "XDG_CACHE_HOME": str(base / "cache")}
            return attacked(module("attnlab.table"), f"table={self.table}", at, "format=csv", env=env)
        if what == "runs":
            return attacked(module("attnlab.runs"), "show", self.address, at)
        if what == "shared":
            return attacked(module("attnlab.train"), *WORDS, "ood=entropy", at)
        if what == "sweep":
            return attacked(module("attnlab.train"), "-m", *WORDS, "seed=0,1", at)
        return attacked(module("attnlab.train"), *WORDS, at)

    def evaluation(self, base: Path) -> str:
        paths = list((base / "finished").glob("runs/*-s0-*/evaluations/*/result.json"))
        return json.dumps([settled(json.loads(path.read_text())) for path in paths], sort_keys=True)

    def once(self, report: Report, pattern: str, what: str, how: str, draw: random.Random) -> None:
        base = self.root / "copy"
        shutil.rmtree(base, ignore_errors=True)
        shutil.copytree(self.base, base)
        paths = sorted(
            path
            for path in base.glob(pattern)
            if path.is_file() and ("runs" not in pattern or "-s0-" in str(path) or ".trainings" in pattern)
        )
        if not paths:
            report.counts[f"no {pattern}"] += 1
            return
        path = draw.choice(paths)
        content = path.read_bytes()
        if how == "gone":
            path.unlink()
        elif how == "swapped":
            others = [other for other in base.glob(pattern) if other != path and other.is_file()]
            if not others:
                others = [other for other in self.other.rglob(path.name)] or [path]
            path.write_bytes(others[0].read_bytes())
        else:
            path.write_bytes(DAMAGE[how](content, draw) if content else draw.randbytes(9))
        state = "half" if pattern.startswith("half") else "finished"
        if what == "lost record":
            for result in (base / "finished").glob("runs/*-s0-*/result.json"):
                result.unlink()
        where = f"{how} {path.relative_to(base)}, then {what}"
        report.add(f"{how}", f"then {what}", f"file {pattern}")
        for attempt in range(TRIES):
            ended = self.act("repeat" if what == "lost record" else what, base, state)
            if ended.traceback or ended.hung or ended.code < 0:
                report.finding("traceback" if ended.traceback else "hung", where, ended.err)
                return
            if not ended.code:
                break
            said = [line for line in ended.err.splitlines() if line.startswith("attnlab: ")]
            if len(said) != 1:
                report.finding("more than a line", where, ended.err)
                return
            report.counts["refused or set aside"] += attempt == 0
            if what == "runs" or (what == "evaluate" and "result.json" in pattern) or (what == "evaluate" and "last.ckpt" in pattern):
                return  # nothing else can be said of a record, or a network, that is no more
        else:
            report.finding("blocked", where, ended.err)
            return
        if wrong := self.wrong(what, base, state, ended):
            report.finding("wrong number", where, f"{wrong}\n{ended.err}")

    def wrong(self, what: str, base: Path, state: str, ended: Ended) -> str:
        """What of the numbers is not as it should be."""
        if what == "evaluate":
            found = self.evaluation(base)
            return "" if found == self.evaluated else f"evaluation: {found} for {self.evaluated}"
        if what == "table":
            rows = [row for row in table_text(ended.out) if row not in self.shown]
            return f"table: {rows}" if any(row["n"] == "2" for row in rows) else ""
        if what == "runs":
            metrics = [line for line in ended.out.splitlines() if METRIC.match(line)]
            return ", ".join(line for line in metrics if line not in self.listed) if state == "finished" else ""
        found, files = (
            numbers(base / state),
            ("result",) if what in ("repeat", "sweep") and state == "finished" else ("result", "last.ckpt", "scores.npz"),
        )
        if what == "shared":
            return ", ".join(run for run in shared_wrong(base / state, self.weights))
        right = {
            f"{run} {file}": self.right[f"{run} {file}"]
            for run in {key.partition(" ")[0] for key in self.right}
            for file in files
            if "-s0-" in run
        }
        return ", ".join(key for key in right if right[key] != found.get(key))


def settled(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key not in TIMES}


def table_text(text: str) -> list[dict[str, str]]:
    """The rows of a table as CSV."""
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


def shared_wrong(outputs: Path, weights: Any) -> list[str]:
    """Runs of the one training whose network is not the one that was trained."""
    found = numbers(outputs)
    return [key for key, value in found.items() if key.endswith("last.ckpt") and "-s0-" in key and value and value[0] != weights]


def attack(report: Report, *, seed: int) -> None:
    draw = random.Random(f"files {seed}")
    with tempfile.TemporaryDirectory() as name:
        attack = Attack(Path(name))
        if wrong := attack.prepare():
            report.finding("not prepared", "undamaged", wrong)
            return
        pairs = [(pattern, what) for pattern, commands in TARGETS.items() for what in commands]
        while report.more:
            pattern, what = draw.choice(pairs)
            attack.once(report, pattern, what, draw.choice([*DAMAGE, "swapped", "gone"]), draw)
