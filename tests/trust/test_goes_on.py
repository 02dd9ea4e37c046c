"""A disk that is full, a folder that is a link, a record that is odd: each costs itself."""

import errno
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from attnlab.config.result import read_result
from attnlab.evaluate import evaluate
from attnlab.records import atomic
from attnlab.records.checkpoint import inspect_checkpoint
from attnlab.records.record import Record
from attnlab.runs import run_command
from attnlab.table import main as table_main
from tests.conftest import POINTS
from tests.trust.test_nothing_runs import write_table


class Full:
    """A file on a disk that takes `room` bytes more."""

    def __init__(self, file, room: int) -> None:
        self.file, self.room = file, room

    def write(self, content) -> int:
        self.room -= len(content)
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.file.name)
        return self.file.write(content)

    def __getattr__(self, name: str):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self.file.close()


def test_a_disk_that_fills_up_under_a_checkpoint(run: Callable[..., dict], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, mode: str):
        return Full(open(path, mode), 3000 if "last.ckpt" in Path(path).name else 10**9)

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "open", full, raising=False)
        with pytest.raises(OSError, match="No space left on device"):  # for which the terminal has a line; torch says "unexpected pos"
            run(base=POINTS)
    (path,) = run.outputs.glob("runs/*/result.json")
    result = json.loads(path.read_text())
    assert result["status"] == "failed" and "No space left" in result["error"]["message"]
    assert not [path for path in run.outputs.rglob("*") if path.name.endswith(".tmp") or path.name == "last.ckpt"]
    assert run(base=POINTS)["status"] == "finished"


def test_a_log_on_a_full_disk_is_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.log").symlink_to("/dev/full")
    with Record(tmp_path).logfile():
        logging.getLogger("attnlab").info("lost")
    assert capsys.readouterr().err == ""


def failed_run(folder: Path) -> Path:
    folder.mkdir(parents=True)
    about = {"status": "failed", "run_id": folder.name, "config": {}, "metrics": {}, "seed": 0}
    (folder / "result.json").write_text(json.dumps(about))
    return folder


def test_prune_leaves_links_and_runs_at_work_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, busy, became = (failed_run(tmp_path / "runs" / f"a-s0-0000000{number}") for number in range(3))
    elsewhere = failed_run(tmp_path / "elsewhere" / "a-s0-00000004")
    link = tmp_path / "runs" / elsewhere.name
    link.symlink_to(elsewhere, target_is_directory=True)
    (plain / "inside").symlink_to(elsewhere, target_is_directory=True)
    lock_if_free = Record.lock_if_free

    def taken(self: Record):  # between the look and the removal another process takes one run, and finishes another
        if self.folder == became:
            text = (became / "result.json").read_text()
            (became / "result.json").write_text(text.replace("failed", "finished"))
        return lock_if_free(self)

    monkeypatch.setattr(Record, "lock_if_free", taken)
    monkeypatch.setattr(Record, "is_locked", property(lambda self: False))  # looked before it was taken
    with Record(busy).lock():
        run_command(["prune", "yes=true", f"paths.outputs={tmp_path}"])
    said = capsys.readouterr().out
    assert not plain.exists() and busy.exists() and became.exists() and link.exists() and (elsewhere / "result.json").exists()
    assert f"{link}  is a link to {elsewhere}: left alone" in said and said.count("is at work, or finished meanwhile: left alone") == 2


ODD = [None, True, -1, 1e999, float("nan"), "x", [], [1, None], {}, {"a": [{}]}, "1" * 400]


def leaves(node: object, where: tuple = ()) -> list[tuple]:
    if len(where) > 4 or not isinstance(node, dict):
        return [where]
    return [where, *(path for key, value in node.items() for path in leaves(value, (*where, key)))]


def test_an_odd_record_does_not_take_a_table_down(run: Callable[..., dict], tmp_path: Path) -> None:
    made = run("trainer.max_epochs=1", base=POINTS)
    run("trainer.max_epochs=1", "seed=1", base=POINTS)
    path = made["folder"] / "result.json"
    good = json.loads(path.read_text())
    del good["digest"]
    table = write_table(tmp_path, common=[*POINTS, "trainer.max_epochs=1"], seeds=[0, 1, 2])
    paths = [where for where in leaves(good) if where]
    odd = [(where, value) for number, where in enumerate(paths) for value in (ODD[number % len(ODD)], ODD[(number * 7 + 3) % len(ODD)])]
    for number, (where, value) in enumerate(odd):
        node = result = json.loads(json.dumps(good))
        for key in where[:-1]:
            node = node[key]
        node[where[-1]] = value
        path.write_text(json.dumps(result))
        assert read_result(path.parent).status
        style, action = ("text", "html", "csv", "latex", "md")[number % 5], ("show", "plan")[number % 3 == 0]
        words = [f"table={table}", f"paths.outputs={run.outputs}", f"out={tmp_path / 'out'}", f"format={style}", f"action={action}"]
        assert table_main(words) == 0, (where, value)
        run_command(["limit=0", f"paths.outputs={run.outputs}"])
        run_command(["show", made["run_id"], f"paths.outputs={run.outputs}"])


@pytest.mark.parametrize("name", ["evaluations", "figures", "wandb"])
def test_nothing_is_written_through_a_link_inside_a_run(name: str, run: Callable[..., dict], tmp_path: Path) -> None:
    folder = run("trainer.max_epochs=1", base=POINTS)["folder"]
    (tmp_path / "home").mkdir()
    (folder / name).symlink_to(tmp_path / "home", target_is_directory=True)
    with pytest.raises(ValueError, match=f"{name}: is a link to .*; remove it"):
        evaluate([folder], ["ood=[entropy]"]) if name == "evaluations" else run("trainer.max_epochs=1", base=again(folder))
    assert not list((tmp_path / "home").iterdir())


def again(folder: Path) -> list[str]:
    """The words of a run whose record is no more, so that it is made once again."""
    (folder / "result.json").unlink()
    return POINTS


def test_nothing_is_left_of_what_a_killed_process_wrote_to_the_folders_that_runs_share(run: Callable[..., dict]) -> None:
    first = run("trainer.max_epochs=1", base=POINTS)
    runs, training, address = run.outputs / "runs", first["training"], first["plan"].address
    left = [
        runs / ".trainings" / f".{training}.1.tmp",
        *(runs / ".locks" / f".{name}.owner.1.tmp" for name in (address, f"training-{training}")),
    ]
    other = runs / ".locks" / ".deadbeef.owner.1.tmp"  # of a run that is not ours
    for path in (*left, other):
        path.write_text("half")
    (first["folder"] / "result.json").unlink()
    run("trainer.max_epochs=1", base=POINTS)
    assert not any(path.exists() for path in left) and other.exists()


@pytest.mark.parametrize("content", [b"\0" * 40, b"", b"\xff", b"..", b"../elsewhere", b"/", b"a\nb"])
def test_a_damaged_note_of_who_trained_a_network_is_done_without(content: bytes, tmp_path: Path) -> None:
    note = tmp_path / "runs" / ".trainings" / "0123abcd"
    note.parent.mkdir(parents=True)
    note.write_bytes(content)
    assert Record(tmp_path / "runs" / "a-s0-00000000").trained_elsewhere("0123abcd") is None
    assert read_result(Path(tmp_path, content.decode(errors="replace"))).status != "finished"


def test_a_checkpoint_cut_short_at_any_length_is_damaged(tmp_path: Path) -> None:
    """Of certain lengths torch raises OSError, which is no disk that fails."""
    whole, cut = tmp_path / "whole.ckpt", tmp_path / "last.ckpt"
    torch.save({"attnlab": {"training": "x", "history": []}, "state_dict": {"w": torch.zeros(300_000)}}, whole)
    content = whole.read_bytes()
    for length in (0, 1, 100, 8_125, 50_000, 65_557, len(content) // 2, len(content) - 22, len(content) - 1):
        cut.write_bytes(content[:length])
        assert inspect_checkpoint(cut, ("x",), {})[1].startswith("is damaged"), length
