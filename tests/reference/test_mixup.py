"""Mixup against a loop with lambda and partners read off its own output, and the laws of its labels."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnlab.regularizers.mixup import Mixup, draw_beta, soft_labels


def tagged(count):
    """Images whose pixel says which image they are: image i holds 2^i everywhere, so every blend is recognisable."""
    return (2.0 ** torch.arange(count, dtype=torch.float64)).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).clone()


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), batch=st.integers(1, 8), alpha=st.floats(0.1, 5))
def test_images_and_labels_are_mixed_alike(seed, batch, alpha):
    torch.manual_seed(seed)
    x, y = tagged(batch), torch.arange(batch)
    mixed, target = Mixup((1, 2, 2), num_classes=batch, alpha=alpha)(x, y)
    assert target.dtype == torch.float32 and target.shape == (batch, batch)
    # With labels = indices, row i of the target holds the weights of the blend: the reference mixes by them.
    slow = torch.zeros_like(x)
    for i in range(batch):
        for j in range(batch):
            slow[i] += target[i, j].double() * x[j]
    torch.testing.assert_close(mixed, slow, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(target.sum(1), torch.ones(batch))  # label mass is conserved, in every row and every class
    torch.testing.assert_close(target.sum(0), torch.ones(batch))
    own = target.diagonal()
    lam = own[own < 1]
    assert len(lam) == 0 or (lam - lam[0]).abs().max() < 1e-6  # one lambda a batch


def test_soft_targets_are_mixed():
    torch.manual_seed(0)
    module = Mixup((4,), num_classes=5)
    x, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 4, 0])
    torch.manual_seed(1)
    hard = module(x, labels)[1]
    torch.manual_seed(1)
    soft = module(x, torch.nn.functional.one_hot(labels, 5).double())[1]
    assert torch.equal(hard, soft)
    twice = module(*module(x, labels))[1]
    torch.testing.assert_close(twice.sum(1), torch.ones(6))


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0, 4.0])
def test_lambda_is_beta(alpha):
    torch.manual_seed(0)
    draws = torch.stack([draw_beta(alpha, torch.device("cpu")) for _ in range(4000)]).double()
    variance = 1 / (4 * (2 * alpha + 1))
    assert draws.min() >= 0 and draws.max() <= 1
    assert abs(draws.mean().item() - 0.5) < 5 * (variance / 4000) ** 0.5
    assert draws.var().item() == pytest.approx(variance, rel=0.1)


def test_half_precision_labels_use_the_lambda_of_the_images():
    torch.manual_seed(3)
    x = torch.eye(2, dtype=torch.bfloat16)
    for _ in range(20):
        mixed, target = Mixup((2,), num_classes=2)(x, torch.arange(2))
        torch.testing.assert_close(mixed.float(), target, atol=2**-8, rtol=0)


def test_identity_in_eval_and_without_labels():
    module, x, y = Mixup((4,), num_classes=5), torch.randn(6, 4), torch.arange(6) % 5
    out = module(x, None)
    assert out[0] is x and out[1] is None
    out = module.eval()(x, y)
    assert out[0] is x and out[1] is y


def test_keeps_channels_last_and_traces():
    module = Mixup((3, 8, 8), num_classes=5, alpha=0.4)
    x, y = torch.randn(6, 3, 8, 8).contiguous(memory_format=torch.channels_last), torch.arange(6) % 5
    torch.manual_seed(0)
    mixed, target = torch.compile(module, backend="eager", fullgraph=True)(x, y)
    torch.manual_seed(0)
    again = module(x, y)
    assert torch.equal(mixed, again[0]) and torch.equal(target, again[1])
    assert mixed.is_contiguous(memory_format=torch.channels_last)


def test_wrong_values():
    with pytest.raises(ValueError, match="alpha must be above 0, got 0"):
        Mixup((4,), num_classes=5, alpha=0)
    with pytest.raises(ValueError, match="num_classes"):
        Mixup((4,), num_classes=0)
    with pytest.raises(ValueError, match=r"\(B, 5\) soft labels, got shape \(6, 4\)"):
        soft_labels(torch.rand(6, 4), num_classes=5)
