"""The sigmoid loss against a loop and torch's own (fp64), and its laws."""

import math

import pytest
import torch
import torch.nn.functional as F

from attnlab.losses.sigmoid import SigmoidLoss
from attnlab.network import Output
from tests.component_rules import close


def of(loss, z: torch.Tensor, y: torch.Tensor, **asked) -> torch.Tensor:
    (value,) = loss(Output(z, None, None), y, **asked).values()
    return value


def batch(K: int = 5, B: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(B, K, dtype=torch.float64, generator=generator), torch.randint(0, K, (B,), generator=generator)


def test_sigmoid_loss_is_the_sum_of_binary_losses() -> None:
    z, y = batch()
    expected = 0.0
    for row, label in zip(z.tolist(), y.tolist()):
        expected += sum(math.log1p(math.exp(-v if j == label else v)) for j, v in enumerate(row))
    assert of(SigmoidLoss(5, 3), z, y).item() == pytest.approx(expected / 7, abs=1e-12)
    close(of(SigmoidLoss(5, 3, reduction="mean"), z, y), F.multilabel_soft_margin_loss(z, F.one_hot(y, 5).double()))


def test_probabilities_by_softmax() -> None:
    z, y = batch()
    p, q = z.softmax(1), F.one_hot(y, 5)
    expected = -(q * p.log() + (1 - q) * (1 - p).log()).sum(1).mean()
    close(of(SigmoidLoss(5, 3, probabilities="softmax"), z, y), expected)


def test_sigmoid_classes_do_not_compete() -> None:
    z, y = batch()
    z.requires_grad_()
    of(SigmoidLoss(5, 3), z, y).backward()
    close(z.grad, ((z.detach().sigmoid() - F.one_hot(y, 5)) / 7))


def test_soft_labels() -> None:
    z, y = batch()
    loss = SigmoidLoss(5, 3)
    close(of(loss, z, F.one_hot(y, 5).float()), of(loss, z, y))
    other = (y + 1) % 5
    mixed = 0.3 * F.one_hot(y, 5) + 0.7 * F.one_hot(other, 5)
    close(of(loss, z, mixed.double()), 0.3 * of(loss, z, y) + 0.7 * of(loss, z, other))


def test_half_precision_is_taken_to_fp32() -> None:
    z, y = batch()
    value = of(SigmoidLoss(5, 3), z.bfloat16(), y)
    assert value.dtype == torch.float32 and value.isfinite()


@pytest.mark.parametrize("options", [{"reduction": "max"}, {"probabilities": "max"}])
def test_refusals(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        SigmoidLoss(3, 3, **options)
