"""The spread loss against a loop and torch's multi-margin loss (fp64), and its margin."""

import math

import pytest
import torch
import torch.nn.functional as F

from attnlab.losses.spread import SpreadLoss
from attnlab.network import Output
from tests.component_rules import close


def of(loss, z: torch.Tensor, y: torch.Tensor, **asked) -> torch.Tensor:
    (value,) = loss(Output(z, None, None), y, **asked).values()
    return value


def batch(K: int = 5, B: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(B, K, dtype=torch.float64, generator=generator), torch.randint(0, K, (B,), generator=generator)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax", "none"])
def test_spread_loss_by_a_loop(activation: str) -> None:
    z, y = batch()
    a = {"sigmoid": z.sigmoid(), "softmax": z.softmax(1), "none": z}[activation]
    p = torch.tensor(0.3)
    m = 0.2 + 0.79 / (1 + math.exp(-(14 * 0.3 - 4)))
    expected = sum(max(0.0, m - (a[b, y[b]] - a[b, j]).item()) ** 2 for b in range(7) for j in range(5) if j != y[b]) / 7
    assert of(SpreadLoss(5, 3, activation=activation), z, y, progress=p).item() == pytest.approx(expected, abs=1e-6)


def test_spread_is_torchs_multi_margin_loss_at_a_fixed_margin() -> None:
    z, y = batch()
    expected = F.multi_margin_loss(z, y, p=2, margin=0.5) * 5  # torch divides by K
    close(of(SpreadLoss(5, 3, low=0.5, high=0.5, activation="none"), z, y), expected)


def test_spread_margin_grows_as_the_authors_and_reaches_its_end() -> None:
    loss = SpreadLoss(5, 3)
    steps = torch.linspace(0, 700_000, 50, dtype=torch.float64)
    theirs = 0.2 + 0.79 * torch.sigmoid((steps / 50_000 - 4).clamp_max(10))
    found = loss.margin(steps / 700_000)
    close(found, theirs)
    assert (found.diff() > 0).all() and found[0] < 0.22 and found[-1] == pytest.approx(0.99, abs=1e-3)
    z, y = 40 * F.one_hot(batch()[1], 5).double() - 20, batch()[1]
    assert of(loss, z, y).item() == 0


def test_half_precision_is_taken_to_fp32() -> None:
    z, y = batch()
    value = of(SpreadLoss(5, 3), z.bfloat16(), y)
    assert value.dtype == torch.float32 and value.isfinite()


@pytest.mark.parametrize("options", [{"low": -0.1}, {"low": 0.5, "high": 0.4}, {"activation": "tanh"}])
def test_refusals(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        SpreadLoss(3, 3, **options)


def test_spread_refuses_soft_labels() -> None:
    with pytest.raises(ValueError, match="class numbers"):
        of(SpreadLoss(5, 3), batch()[0], torch.rand(7, 5))
