"""Transformation regression: what a transformation does to an image, what the head learns, and a run that starts from such a one."""

import math

import pytest
import torch
from torch import nn

from attnlab.algorithms.transformation_regression import TransformationRegression, moved
from attnlab.config.targets import ConfigError
from attnlab.initialisation.teacher import FromTeacher
from attnlab.network import Network

NONE = {"angle": 90.0, "shift": 0.5, "scale": 1.0}


def test_rotation_translation_and_magnification() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64)

    def at(*t: float) -> torch.Tensor:
        return moved(x, torch.tensor([t], dtype=torch.float64), **NONE)

    torch.testing.assert_close(at(0, 0, 0, 0), x)
    torch.testing.assert_close(at(1, 0, 0, 0), x.rot90(-1, (2, 3)))  # 90 degrees, rows running down: clockwise
    torch.testing.assert_close(at(0, 1, 0, 0)[..., 2:], x[..., :-2])  # half of a half image is 2 of 8 columns
    torch.testing.assert_close(at(0, 0, -1, 0)[..., :-2, :], x[..., 2:, :])
    small = moved(x, torch.tensor([[0.0, 0, 0, -1]], dtype=torch.float64), **NONE)  # at half the size, corners of the centre are means of 4
    expected = nn.functional.avg_pool2d(x, 2)
    torch.testing.assert_close(small[..., 2:6, 2:6], expected)
    y = at(1, 1, 0, 0)  # turned first, then shifted
    torch.testing.assert_close(y[..., 2:], x.rot90(-1, (2, 3))[..., :-2])
    assert math.isfinite(y.sum())


def test_a_turn_keeps_shapes_where_an_image_is_not_square() -> None:
    x = torch.zeros(1, 1, 8, 16, dtype=torch.float64)
    x[..., 2:6, 6:10] = torch.randn(4, 4, dtype=torch.float64)  # a square about the centre
    for amount in (1.0, -1.0):
        y = moved(x, torch.tensor([[amount, 0, 0, 0]], dtype=torch.float64), **NONE)
        torch.testing.assert_close(y[..., 2:6, 6:10], x[..., 2:6, 6:10].rot90(-int(amount), (2, 3)))
    y = moved(x, torch.tensor([[1.0, 0.5, 0, 0]], dtype=torch.float64), **NONE)  # and then a quarter of half the width, 2 columns, right
    torch.testing.assert_close(y[..., 2:6, 8:12], x[..., 2:6, 6:10].rot90(-1, (2, 3)))


def test_features_are_learned_and_a_run_starts_from_them(run) -> None:
    first = run("algorithm=transformation_regression", "evaluator=none", "trainer.max_epochs=4")
    losses = [float(line.split(",")[1]) for line in (first["folder"] / "metrics.csv").read_text().splitlines()[1:]]
    assert losses[-1] < losses[0]
    state = torch.load(first["folder"] / "last.ckpt", weights_only=True)["state_dict"]
    assert state["peers.0.weight"].shape[0] == 4
    second = run("init=teacher", f"teacher={first['run_id']}", "evaluator=none", "optimizer.lr=0.0")
    started = torch.load(second["folder"] / "last.ckpt", weights_only=True)["state_dict"]
    weights = [name for name in state if name.endswith("conv1.weight")]
    assert weights and all(torch.equal(started[name], state[name]) for name in weights)
    with pytest.raises(ConfigError, match="init: the network is to start from a teacher's weights, and there is none"):
        run("init=teacher", "check=true")
    with pytest.raises(ConfigError, match="which norm_loss would be no part of"):
        run("algorithm=transformation_regression", "regularizer=norm_loss", "check=true")


def test_another_networks_weights_are_refused() -> None:
    one, other = (Network(nn.Sequential(nn.Linear(5, width), nn.Linear(width, 3)), shape=(5,)) for width in (4, 6))
    with pytest.raises(ValueError, match=r"the teacher has no 0\.weight of shape \(4, 5\)"):
        FromTeacher(but=[])(one.backbone, other)
    FromTeacher(but=["**"])(one.backbone, other)
    for options, message in (({"angle": 180.0}, "angle must be in"), ({"shape": (2,)}, "there are vectors")):
        with pytest.raises(ValueError, match=message):
            TransformationRegression(**{"shape": (1, 8, 8), "dim": 4, **options})
