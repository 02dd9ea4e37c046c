"""What a person sees of training: lines of epochs that stay, epochs from 1, and a warning of maps that cannot choose."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import nn

from attnlab.callbacks.progress import Progress
from attnlab.records.record import Record, from_one, read_history


def learner(epoch: int, steps: int) -> SimpleNamespace:
    history = [{"epoch": e, "train/loss": 0.5} for e in range(epoch + 1)]
    return SimpleNamespace(
        steps_per_epoch=4,
        total_steps=8,
        current_epoch=epoch,
        last_epoch=epoch == 1,
        history=history,
        totals=SimpleNamespace(steps=steps),
        settings=SimpleNamespace(max_epochs=2),
    )


def test_the_line_of_an_epoch_stays_in_a_terminal(capsys: pytest.CaptureFixture) -> None:
    progress = Progress(images_per_epoch=64)
    progress.terminal = True
    progress.on_fit_start(learner(0, 0))
    for epoch in range(2):
        for step in range(1, 5):
            progress.shown = 0.0
            progress.on_step(learner(epoch, 4 * epoch + step), 4 * epoch + step)
        progress.on_epoch_end(learner(epoch, 4 * epoch + 4), {})
    stay, redrawn = capsys.readouterr().err.split("\n"), "\r\x1b[2K"
    assert len(stay) == 3 and stay[-1] == ""
    for number, line in enumerate(stay[:2], 1):
        last = line.split(redrawn)[-1]
        assert last.startswith("█" * 20 + f" epoch {number}/2  train/loss 0.5000") and line.count(redrawn) == 5
        assert f"{'█' * 15}·····" in line


def test_epochs_count_from_one(tmp_path: Path) -> None:
    rows = [{"epoch": 0, "best_epoch": 0.0, "lr": 0.0}, {"epoch": 1, "best_epoch": 0.0, "lr": 0.0}]
    assert (
        from_one(rows)
        == from_one(from_one(rows))
        == [{"epoch": 1, "best_epoch": 1.0, "lr": 0.0}, {"epoch": 2, "best_epoch": 1.0, "lr": 0.0}]
    )
    record = Record(tmp_path)
    record.write_history(rows)
    assert (tmp_path / "metrics.csv").read_text().splitlines()[1].startswith("1,1.0")
    (tmp_path / "metrics.csv").write_text("epoch,lr\n0,0.5\n1,0.25\n")  # of an early run
    assert [row["epoch"] for row in read_history(tmp_path / "metrics.csv")] == [1, 2]


def test_a_map_of_one_cell_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    from attnlab import Network, RectAttention
    from attnlab.pipeline.factory import warn_of_single_cells

    for stride, warned in ((2, False), (4, True)):
        caplog.clear()
        backbone = nn.Sequential(nn.Conv2d(1, 4, 3, stride=stride, padding=1), nn.Flatten(), nn.LazyLinear(3))
        backbone(nn.Parameter(backbone[0].weight.new_zeros(2, 1, 4, 4)))
        network = Network(backbone, {"rect": {"at": "0", "module": RectAttention}}, shape=(1, 4, 4))
        with caplog.at_level("WARNING", logger="attnlab"):
            warn_of_single_cells(network)
        assert ("rect@0: its map is 1 x 1" in caplog.text) == warned
