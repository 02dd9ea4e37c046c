"""Files of others that try to run something, to read the environment, or to write where they should not.

Every case writes its files into a room of its own, asks a command that reads them, and looks afterwards: for the marker that its code would
have left, for the secret of the environment in anything that was written or said, and for files that are new or changed outside of what the
command may write to. Findings: `ran`, `secret`, `wrote`, `traceback`, `more than a line`.
"""

import dataclasses
import itertools
import json
import os
import pickle
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from attnlab.config.result import sealed
from attnlab.tables.cache import digest as cache_digest
from tests.attack.report import Report, attacked
from tests.commands import Ended, module
from tests.conftest import POINTS
from tests.trust.test_nothing_runs import EVIL
from tests.trust.test_nothing_runs import HOSTILE as WORDS
from tests.trust.test_sources import HOSTILE as FILES

SECRET = "hush-5b1e"
WORDS_OF_A_RUN = [*POINTS, "trainer.max_epochs=1"]


class Payload:
    """Unpickled, it makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.marker,)


@dataclasses.dataclass
class Room:
    """What a case has: `outputs` with a finished run, `theirs` for its files, a marker that must not come to be."""

    path: Path

    @property
    def outputs(self) -> Path:
        return self.path / "outputs"

    @property
    def theirs(self) -> Path:
        return self.path / "theirs"

    @property
    def marker(self) -> Path:
        return self.path / "marker"

    @property
    def run(self) -> Path:
        return next((self.outputs / "runs").glob("*-s0-*"))

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "XDG_CACHE_HOME": str(self.path / "cache")}

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.theirs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def record(self, **changed: Any) -> Path:
        """The finished run with other contents in its result.json, as somebody who knows the digest writes them."""
        path = self.run / "result.json"
        path.write_text(json.dumps(sealed(json.loads(path.read_text()) | changed)))
        return self.run

    def table(self, **changed: Any) -> Path:
        metric = {"key": "test/acc", "label": "accuracy", "direction": "max", "margin": 1.0}
        tree = {"title": "t", "metric": metric, "common": WORDS_OF_A_RUN, "rows": {"row": []}, "columns": {"column": []}, "seeds": [0]}
        return self.write("table.yaml", yaml.safe_dump({**tree, **changed}))

    def text(self, text: str) -> str:
        up = "/".join([".."] * 20) + f"{self.theirs}/evil_of_tests/conf/experiment/evil"
        return text.replace("MARKER", str(self.marker)).replace("{up}", up)


Asked = tuple[str, list[str]]  # a command and its words
CASES: dict[str, Callable[[Room], list[Asked]]] = {}


def case(function: Callable[[Room], list[Asked]]) -> Callable[[Room], list[Asked]]:
    CASES[function.__name__.replace("_", " ")] = function
    return function


def add(name: str, function: Callable[[Room], list[Asked]]) -> None:
    CASES[name] = function


TARGETS = (
    *("os.system", "os.mkdir", "builtins.eval", "subprocess.run", "shutil.rmtree", "pathlib.Path", "evil_of_tests.mod.Net"),
    *(
        "attnlab.records.atomic.write_atomic",
        "attnlab.records.atomic.set_aside",
        "attnlab.sweeps.sweep.launch",
        "attnlab.config.build.locate",
    ),
    *(
        "torch.load",
        "torch.hub.load",
        "pytorch_ood.model.registry.load_state_dict_from_url",
        "hydra.utils.instantiate",
        "timm.create_model",
    ),
)
NODES = ("model", "loss", "data", "callback.x", "attention.x.module", "evaluator.x", "trainer", "logger")
for target, node in sorted({*zip(TARGETS, itertools.cycle(NODES)), *(("os.mkdir", node) for node in NODES)}):

    def of_a_target(room: Room, node: str = node, target: str = target) -> list[Asked]:
        return [("train", [f"{node}._target_={target}", f"+{node}.path={room.marker}", "check=true"])]

    add(f"{node}._target_={target}", of_a_target)
for name, text in FILES.items():

    def of_a_folder(room: Room, text: str = text) -> list[Asked]:
        room.write("conf/experiment/theirs.yaml", room.text(text))
        room.write("conf/model/theirs.yaml", room.text("_target_: os.mkdir\npath: MARKER\n"))
        words = [*WORDS_OF_A_RUN, f"hydra.searchpath=[file://{room.theirs}/conf]", "experiment=theirs"]
        return [("train", words), ("train", ["-m", *words, "seed=5,6"])]

    add(f"a folder of configs: {name}", of_a_folder)
for name, words in WORDS.items():

    def of_a_record(room: Room, words: list[str] = words) -> list[Asked]:
        return [("evaluate", [f"run={room.record(overrides=[*POINTS, *map(room.text, words)])}"])]

    def of_a_table(room: Room, words: list[str] = words) -> list[Asked]:
        table = room.table(rows={"row": [room.text(word) for word in words]})
        return [("table", [f"table={table}", f"action={action}"]) for action in ("show", "plan", "run")]

    add(f"a record: {name}", of_a_record)
    add(f"a table: {name}", of_a_table)
for name, text in {
    "tag": "title: !!python/object/apply:os.mkdir [MARKER]\n",
    "new": "title: !!python/object/new:os.mkdir [MARKER]\n",
    "module": "title: !!python/module:evil_of_tests.mod\n",
    "name": "title: !!python/name:os.system\n",
    "loop": "title: t\nrows: &a [*a]\n",
}.items():

    def of_yaml(room: Room, text: str = text) -> list[Asked]:
        table = room.write("program.yaml", room.text(text))
        room.write("conf/experiment/theirs.yaml", room.text("# @package _global_\n" + text))
        found = ("train", [*WORDS_OF_A_RUN, f"hydra.searchpath=[file://{room.theirs}/conf]", "experiment=theirs"])
        return [("table", [f"table={table}"]), found]

    add(f"a yaml: {name}", of_yaml)
for key in ("model.width", "name", "seed", "data.path", "loss.label_smoothing", "objective", "paths.outputs", "hydra.run.dir", "model"):
    for resolver in ("oc.env:SECRET_OF_ATTACK", "oc.env:SECRET_OF_ATTACK,x", "oc.decode:${oc.env:SECRET_OF_ATTACK}", "hydra:runtime.cwd"):

        def secret(room: Room, text: str = f"{key}=${{{resolver}}}") -> list[Asked]:
            table, run = room.table(common=[*WORDS_OF_A_RUN, text]), room.record(overrides=[*POINTS, text])
            asked = [("evaluate", [f"run={run}"]), ("table", [f"table={table}", "action=plan"])]
            return asked if text.startswith(("paths", "hydra")) else [*asked, ("train", [*WORDS_OF_A_RUN, text, "check=true"])]

        add(f"{key}=${{{resolver}}}", secret)


@case
def a_checkpoint_that_is_a_pickle(room: Room) -> list[Asked]:
    torch.save({"attnlab": Payload(room.marker), "state_dict": {}}, room.run / "last.ckpt")
    return [("evaluate", [f"run={room.run}"]), ("train", [*WORDS_OF_A_RUN, "distillation=kd", f"teacher={room.run}", "check=true"])]


@case
def a_checkpoint_of_an_interrupted_run(room: Room) -> list[Asked]:
    (room.run / "result.json").unlink()
    (room.run / "last.ckpt").write_bytes(pickle.dumps(Payload(room.marker)))
    return [("train", WORDS_OF_A_RUN)] * 2


@case
def a_checkpoint_whose_weights_are_objects(room: Room) -> list[Asked]:
    checkpoint = torch.load(room.run / "last.ckpt", weights_only=True)
    checkpoint["state_dict"][next(iter(checkpoint["state_dict"]))] = Payload(room.marker)
    torch.save(checkpoint, room.run / "last.ckpt")
    (room.run / "result.json").unlink()
    return [("train", WORDS_OF_A_RUN)]


@case
def a_checkpoint_with_code_in_its_archive(room: Room) -> list[Asked]:
    with zipfile.ZipFile(room.run / "last.ckpt", "a") as archive:
        archive.writestr("archive/code/__torch__.py", f"open({str(room.marker)!r}, 'w')")
        archive.writestr("../../../../marker", "x")
        archive.writestr(str(room.marker), "x")
    return [("evaluate", [f"run={room.run}"])]


@case
def weights_of_a_teacher(room: Room) -> list[Asked]:
    asked = []
    for name in ("a.pt", "a.pth", "a.ckpt", "a.safetensors"):
        path = room.write(name, b"")
        torch.save({"fc.weight": Payload(room.marker)}, path) if name != "a.safetensors" else path.write_bytes(
            pickle.dumps(Payload(room.marker))
        )
        asked.append(("train", [*WORDS_OF_A_RUN, "distillation=kd", f"teacher={path}", "check=true"]))
    return asked


@case
def scores_of_objects(room: Room) -> list[Asked]:
    objects = np.array([Payload(room.marker)], dtype=object)
    np.savez(room.run / "scores.npz", digest=objects, origin=objects, **{"logits/test": objects, "labels/test": objects})
    return [("evaluate", [f"run={room.run}"])]


@case
def a_plan_cache(room: Room) -> list[Asked]:
    table = room.table()
    assert attacked(module("attnlab.table"), f"table={table}", f"paths.outputs={room.outputs}", env=room.environment).code == 0
    for path in (room.path / "cache").rglob("plans/*.json"):
        kept = json.loads(path.read_text())["kept"]
        for plan in kept["plans"]:
            plan["full"] |= {"allow_targets": ["evil_of_tests"], "model": {"_target_": "evil_of_tests.mod.Net"}}
        path.write_text(json.dumps({"kept": kept, "digest": cache_digest(kept)}))
    return [("table", [f"table={table}", f"action={action}"]) for action in ("show", "plan", "run")]


@case
def a_record_of_another_place(room: Room) -> list[Asked]:
    name = f"../../../theirs/x-s0-{room.run.name.rpartition('-')[2]}"
    run = room.record(run_id=name, trained_by=name, command=f"rm -rf {room.path}", places={"\x1b[2J": "../.."}, members=[name])
    return [("evaluate", [f"run={run}"]), ("runs", ["show", run.name]), ("runs", ["prune", "yes=true"]), ("train", WORDS_OF_A_RUN)]


@case
def a_training_elsewhere(room: Room) -> list[Asked]:
    theirs = room.theirs / room.run.name
    shutil.copytree(room.run, theirs)
    torch.save({"attnlab": Payload(room.marker)}, theirs / "last.ckpt")
    for path in (room.outputs / "runs" / ".trainings").iterdir():
        path.write_text(f"../../theirs/{theirs.name}")
    return [("train", [*WORDS_OF_A_RUN, "ood=entropy"])]


@case
def pruned_links(room: Room) -> list[Asked]:
    kept = room.theirs / "kept-s0-0badcafe"
    kept.mkdir(parents=True)
    about = {"status": "failed", "run_id": kept.name, "config": {}, "metrics": {}, "seed": 0}
    (kept / "result.json").write_text(json.dumps(about))
    (room.outputs / "runs" / kept.name).symlink_to(kept, target_is_directory=True)
    return [("runs", ["prune", "yes=true"])]


@case
def evaluations_that_are_a_link(room: Room) -> list[Asked]:
    (room.theirs / "home").mkdir(parents=True)
    (room.run / "evaluations").symlink_to(room.theirs / "home", target_is_directory=True)
    return [("evaluate", [f"run={room.run}", "ood=[entropy]"])]


@case
def a_record_that_writes_elsewhere(room: Room) -> list[Asked]:
    words = [f"paths.outputs={room.theirs}/out", f"hydra.sweep.dir={room.theirs}", f"hydra.run.dir={room.theirs}", f"name={'../' * 9}x"]
    return [("evaluate", [f"run={room.record(overrides=[*POINTS, word])}"]) for word in words] + [
        ("table", [f"table={room.table(common=[*WORDS_OF_A_RUN, word])}", "action=run"]) for word in words
    ]


@case
def words_of_a_journal(room: Room) -> list[Asked]:
    import socket

    folder = room.outputs / ".hydra" / f"sweep-{socket.gethostname()}-1"
    folder.mkdir(parents=True)
    (folder / "1.json").write_text(json.dumps({"outcome": "done", "config": "x", "__class__": "x", "log": str(room.marker)}))
    (room.outputs / ".hydra" / f"sweep-{socket.gethostname()}-999999999").symlink_to(room.theirs, target_is_directory=True)
    return [("train", ["-m", *WORDS_OF_A_RUN, "seed=0,1"])]


@case
def an_image_that_is_a_bomb(room: Room) -> list[Asked]:
    header = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (200_000).to_bytes(4, "big") * 2 + b"\x08\x00\x00\x00\x00"
    for split in ("train", "test"):
        for label in ("a", "b"):
            room.write(f"images/{split}/{label}/1.png", header + b"\0" * 64)
    return [("train", ["data=image_folder", f"data.path={room.theirs}/images", "model.width=4", "logger=none"])]


def attack(report: Report, *, seed: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        base = Path(name) / "base"
        os.environ["SECRET_OF_ATTACK"] = SECRET
        made = attacked(module("attnlab.train"), *WORDS_OF_A_RUN, f"paths.outputs={base}/outputs")
        if made.code:
            report.finding("not prepared", "a run", made.err)
            return
        for number, (what, prepare) in enumerate(chosen(report.goal)):
            if not report.more:
                report.counts["not reached"] += 1
                continue
            room = Room(Path(name) / str(number))
            shutil.copytree(base, room.path)
            for path, text in {
                "__init__.py": "",
                "mod.py": EVIL.format(marker=str(room.marker)),
                "conf/model/evil.yaml": "_target_: evil_of_tests.mod.Net\n",
            }.items():
                room.write(f"evil_of_tests/{path}", text)
            room.write(
                "evil_of_tests/conf/experiment/evil.yaml",
                "# @package _global_\nallow_targets: [evil_of_tests]\nmodel: {_target_: evil_of_tests.mod.Net}\n",
            )
            for command, words in prepare(room):
                one(report, room, what, command, words)
            report.add()
            shutil.rmtree(room.path)
    report.goal = report.done


def chosen(goal: int) -> Iterator[tuple[str, Callable[[Room], list[Asked]]]]:
    """All cases, or where fewer are asked for, such as are far from each other."""
    names = list(CASES)
    for name in names if goal >= len(names) else names[:: -(-len(names) // goal)]:
        yield name, CASES[name]


def one(report: Report, room: Room, what: str, command: str, words: list[str]) -> None:
    before = listing(room.theirs)
    options = {"cwd": room.theirs, "path": room.theirs, "env": room.environment}
    ended = attacked(module(f"attnlab.{command}"), *words, f"paths.outputs={room.outputs}", **options)
    report.counts["refused" if ended.code else "did without"] += 1
    where = f"{what}, then {command} {' '.join(words)[-200:]}"
    judge(report, room, where, ended)
    if (after := listing(room.theirs)) != before:
        report.finding("wrote", where, ", ".join(sorted(set(after.items()) ^ set(before.items()))[0]))


def judge(report: Report, room: Room, where: str, ended: Ended) -> None:
    if room.marker.exists():
        report.finding("ran", where, ended.err)
    texts = [ended.out.encode(), ended.err.encode(), *(path.read_bytes() for path in room.outputs.rglob("*") if path.is_file())]
    names = " ".join(map(str, room.path.rglob("*")))
    if SECRET in names or any(SECRET.encode() in text for text in texts):
        report.finding("secret", where, ended.err)
    if ended.traceback or ended.hung or ended.code < 0:
        report.finding("traceback" if ended.traceback else "hung", where, ended.err)
    elif ended.code and sum(line.startswith("attnlab: ") for line in ended.err.splitlines()) != 1:
        report.finding("more than a line", where, ended.err)


def listing(folder: Path) -> dict[str, str]:
    """Every file below a folder, with what tells that it has changed; caches of Python's own left out."""
    return {
        str(path.relative_to(folder)): f"{path.lstat().st_size} {path.lstat().st_mtime_ns}" if path.is_file() else "folder"
        for path in folder.rglob("*")
        if "__pycache__" not in path.parts
    }
