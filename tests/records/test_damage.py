"""Damaged files of a run are set aside with one line, and the same command does what is missing. One run, its folder copied."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from attnlab.config.compose import compose
from attnlab.pipeline.train import train
from attnlab.records.atomic import BrokenRecord
from attnlab.records.checkpoint import seal
from tests.conftest import TINY

WORDS = ["trainer.checkpoint_seconds=0"]
FC = "network.backbone.fc.weight"


class Evil:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("evil",)


def edit(change: Callable[[dict], object], *, sealed: bool = True) -> Callable[[Path], None]:
    """A whole checkpoint with something else in it; not sealed again, it is a damaged one."""

    def edited(path: Path) -> None:
        checkpoint = torch.load(path, weights_only=True)
        seal(checkpoint)
        change(checkpoint)
        if sealed:
            seal(checkpoint)
        torch.save(checkpoint, path)

    return edited


BROKEN = {
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), "is damaged"),
    "empty": (lambda path: path.write_bytes(b""), "is damaged"),
    "garbage": (lambda path: path.write_bytes(os.urandom(4096)), "is damaged"),
    "shape": (edit(lambda ckpt: ckpt["state_dict"].update({FC: torch.zeros(3, 3)})), f"does not fit this network (at {FC})"),
    "key": (edit(lambda ckpt: ckpt["state_dict"].pop(FC)), f"does not fit this network (at {FC})"),
    "other run": (edit(lambda ckpt: ckpt["attnlab"].update(training="deadbeef")), "belongs to another run (deadbeef)"),
    "history": (edit(lambda ckpt: ckpt["attnlab"].update(history=[])), "is damaged (no history)"),
    "one weight": (edit(lambda ckpt: ckpt["state_dict"][FC].view(-1)[0].add_(1e-6), sealed=False), "its contents are not what was written"),
    "pickle": (lambda path: torch.save({"attnlab": Evil()}, path), "is damaged"),
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs with one run that was stopped in its second epoch."""
    from attnlab.training.learner import Learner

    outputs = tmp_path_factory.mktemp("stopped") / "outputs"
    step = Learner.training_step

    def stop(self: Learner, batches: Iterator, index: int) -> None:
        if self.current_epoch == 1:
            raise KeyboardInterrupt
        return step(self, batches, index)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Learner, "training_step", stop)
        train(compose([*TINY, *WORDS, f"paths.outputs={outputs}"]))
    return outputs


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, stopped: Path) -> Path:
    """Outputs with the same run, finished."""
    outputs = tmp_path_factory.mktemp("finished") / "outputs"
    shutil.copytree(stopped, outputs)
    train(compose([*TINY, *WORDS, f"paths.outputs={outputs}"]))
    return outputs


def copied(outputs: Path, run: Callable[..., dict]) -> Path:
    """The run's folder, copied to where `run` will find it."""
    shutil.copytree(outputs, run.outputs)
    (result,) = run.outputs.glob("runs/*/result.json")
    return result.parent


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_checkpoint_is_set_aside_with_one_line(how: str, stopped: Path, run) -> None:
    folder = copied(stopped, run)
    path = folder / "last.ckpt"
    assert json.loads((folder / "result.json").read_text())["status"] == "interrupted"
    damage, wrong = BROKEN[how]
    damage(path)
    content = path.read_bytes()
    with pytest.raises(BrokenRecord, match=r"last\.ckpt: .*it was set aside as last\.ckpt\.broken, and the same command again") as caught:
        run(*WORDS)
    assert "\n" not in str(caught.value) and wrong in str(caught.value)
    assert not path.exists() and (folder / "last.ckpt.broken").read_bytes() == content and not Path("evil").exists()
    if how == "truncated":  # whatever was set aside, the same state is left
        assert run(*WORDS)["status"] == "finished"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"status": "finished"}', "\x00" * 20, None, "status"])
def test_a_broken_result_is_set_aside_with_one_line(content: str | None, finished: Path, run) -> None:
    """Damaged, of another run (None), or with a status that there is none of."""
    path = copied(finished, run) / "result.json"
    good = path.read_text()
    first = json.loads(good)
    other = {None: good.replace(first["run_id"][-8:], "deadbeef"), "status": good.replace('"finished"', '"ended"')}
    path.write_text(other.get(content, content))
    with pytest.raises(BrokenRecord, match=r"result\.json: .*set aside as result\.json\.broken"):
        run(*WORDS)
    assert not path.exists()
    if content == "":
        again = run(*WORDS)
        assert again["metrics"] == first["metrics"] and again["status"] == "finished"


def test_a_result_that_cannot_be_read_is_not_called_damaged(finished: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    path = copied(finished, run) / "result.json"
    read = Path.read_bytes

    def refuse(self: Path) -> bytes:
        if self == path:
            raise PermissionError(13, "Permission denied", str(self))
        return read(self)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse)
        with pytest.raises(PermissionError):
            run(*WORDS)
    assert path.exists() and run(*WORDS)["status"] == "finished"
