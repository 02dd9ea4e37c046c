"""The callbacks that the loop itself is made of: progress, checkpoint, validation, history; each on a clock of the test's own."""

import io
import logging
from types import SimpleNamespace

import pytest

from attnlab.callbacks import checkpoint, progress
from attnlab.callbacks.checkpoint import Checkpoint
from attnlab.callbacks.history import History
from attnlab.callbacks.progress import Progress
from attnlab.callbacks.validation import Validation


class Clock(SimpleNamespace):
    """Stands for the `time` module."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


class Stream(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.isatty = lambda: terminal


def learner_of(**changed) -> SimpleNamespace:
    """Ten steps an epoch, four epochs, in the second one."""
    usual = dict(steps_per_epoch=10, total_steps=40, current_epoch=1, last_epoch=False, history=[])
    return SimpleNamespace(**{**usual, "settings": SimpleNamespace(max_epochs=4), "totals": SimpleNamespace(steps=20), **changed})


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    for module in (progress, checkpoint):
        monkeypatch.setattr(module, "time", clock)
    return clock


def shown_by(terminal: bool, monkeypatch, learner=None) -> tuple[Progress, Stream]:
    stream = Stream(terminal)
    monkeypatch.setattr(progress.sys, "stderr", stream)
    bar = Progress(images_per_epoch=500)
    bar.on_fit_start(learner or learner_of())
    return bar, stream


def test_the_line_counts_from_where_the_fit_began(clock, monkeypatch) -> None:
    """A resumed run has not done the first ten steps: rate and time left are of the five of now."""
    bar, _ = shown_by(True, monkeypatch)
    assert bar.line(learner_of(), 10).endswith("0 images/s  ? left")
    clock.now += 2.0
    row = {"train/loss": 1.25, "train/acc": 0.5, "val/acc": 0.25, "epoch": 0.0}
    line = bar.line(learner_of(history=[{"train/loss": 9.0}, row]), 15)
    assert line == "epoch 2/4  train/loss 1.2500  train/acc 0.5000  val/acc 0.2500  125 images/s  0:10 left"
    clock.now += 998.0
    assert bar.line(learner_of(), 15) == "epoch 2/4    0 images/s  83:20 left"
    assert bar.line(learner_of(history=[row]), 17).startswith("epoch 2/4  train/loss 1.2500")


def test_a_terminal_is_redrawn_four_times_a_second(clock, monkeypatch) -> None:
    bar, stream = shown_by(True, monkeypatch)
    clock.now += 0.24
    bar.on_step(learner_of(), 14)
    assert stream.getvalue() == ""
    clock.now += 0.01
    bar.on_step(learner_of(), 15)
    clock.now += 0.2
    bar.on_step(learner_of(), 16)
    (drawn,) = stream.getvalue().split("\r")[1:]
    assert drawn.startswith("\x1b[2K" + "█" * 8 + "·" * 12 + " epoch 2/4")  # step 15 is the fifth of the second epoch: four are done
    bar.on_epoch_end(learner_of(), {})
    assert stream.getvalue().count("\r") == 2 and stream.getvalue().endswith("left\n")  # an epoch's line stays
    bar.on_epoch_end(learner_of(last_epoch=True), {})
    assert stream.getvalue().count("\r") == 3 and stream.getvalue().endswith("\n")


def test_a_log_has_a_line_an_epoch_and_one_a_minute(clock, monkeypatch, caplog) -> None:
    caplog.set_level(logging.INFO, "attnlab")
    bar, stream = shown_by(False, monkeypatch)

    def lines_after(seconds: float, call) -> int:
        clock.now += seconds
        caplog.clear()
        call()
        return len(caplog.messages)

    assert lines_after(59.0, lambda: bar.on_step(learner_of(), 14)) == 0
    assert lines_after(1.0, lambda: bar.on_step(learner_of(), 15)) == 1
    assert lines_after(1.5, lambda: bar.on_epoch_end(learner_of(), {})) == 0
    assert lines_after(0.5, lambda: bar.on_epoch_end(learner_of(), {})) == 1
    assert lines_after(1.5, lambda: bar.on_epoch_end(learner_of(), {})) == 0
    assert lines_after(0.0, lambda: bar.on_epoch_end(learner_of(last_epoch=True), {})) == 1
    assert stream.getvalue() == ""


def test_a_checkpoint_now_and_then_and_after_the_last_epoch(clock, tmp_path) -> None:
    saved = []
    trainer = SimpleNamespace(strategy=SimpleNamespace(broadcast=lambda due: due), save_checkpoint=saved.append)
    callback = Checkpoint(tmp_path, seconds=10.0)

    def after(seconds: float, last: bool = False) -> int:
        clock.now += seconds
        callback.on_epoch_end(SimpleNamespace(trainer=trainer, last_epoch=last, halted=""), {})
        return len(saved)

    assert [after(9.0), after(1.0), after(9.5), after(0.0, True), after(10.5)] == [0, 1, 1, 2, 3]
    assert saved == [tmp_path] * 3


def test_every_process_saves_where_the_first_one_does(clock, tmp_path) -> None:
    """Clocks differ: the first process's decides, as all of them must come to the barrier."""
    saved = []
    trainer = SimpleNamespace(strategy=SimpleNamespace(broadcast=lambda due: True), save_checkpoint=saved.append)
    Checkpoint(tmp_path, seconds=10.0).on_epoch_end(SimpleNamespace(trainer=trainer, last_epoch=False, halted=""), {})
    assert saved == [tmp_path]


@pytest.mark.parametrize("first", [True, False])
def test_validation_every_so_many_epochs_and_after_the_last(first) -> None:
    def tested(now):
        assert now
        return "network"

    callback = Validation(lambda network: {"val/of": network}, epochs=3)
    rows = [{"epoch": epoch} for epoch in range(5)]
    for row in rows:
        trainer = SimpleNamespace(is_global_zero=first)
        callback.on_epoch_end(SimpleNamespace(trainer=trainer, last_epoch=row["epoch"] == 4, tested=tested), row)
    assert [row.get("val/of") for row in rows] == ([None, None, "network", None, "network"] if first else [None] * 5)


@pytest.mark.parametrize("first", [True, False])
def test_history_hands_the_rows_on_in_the_first_process(first) -> None:
    seen = []
    for callback in (History(lambda row, rows: seen.append((row, list(rows)))), History()):
        learner = SimpleNamespace(history=["before"], trainer=SimpleNamespace(is_global_zero=first))
        callback.on_epoch_end(learner, "now")
        assert learner.history == ["before", "now"]
    assert seen == ([("now", ["before", "now"])] if first else [])
