"""Our reading of LMask: its terms against loops, and which way they push the mask. In fp64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnlab.attention.lmask import LMask, confusion
from attnlab.regularizers.mixup import soft_labels


def slow_confusion(x: torch.Tensor, labels: list[int], K: int) -> torch.Tensor:
    H, W = x.shape[2:]
    found = torch.zeros(H, W, dtype=torch.float64)
    for i in range(H):
        for j in range(W):
            scores = []
            for k in range(K):
                images = [b for b, label in enumerate(labels) if label == k]
                values = [sum(max(v, 0) for v in x[b, :, i, j].tolist()) / x.shape[1] for b in images]
                scores.append(sum(values) / len(values) if values else 0)
            qs = [score / sum(scores) for score in scores if score > 0]
            found[i, j] = -sum(q * math.log(q) for q in qs) / math.log(K)
    return found


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), labels=st.lists(st.integers(-1, 3), min_size=1, max_size=6))
def test_equals_the_loop(seed: int, labels: list[int]) -> None:
    torch.manual_seed(seed)
    x = torch.randn(len(labels), 3, 2, 4, dtype=torch.float64, requires_grad=True)
    y = torch.tensor(labels)
    expected = slow_confusion(x, labels, 4)
    torch.testing.assert_close(confusion(x, soft_labels(y, num_classes=4)), expected, atol=1e-7, rtol=1e-6)
    module = LMask((3, 2, 4), num_classes=4, sparse=0.3, shared=0.7).double()
    torch.nn.init.normal_(module.logit)
    mask = 1 / (1 + (-module.logit.detach()[0, 0]).exp())
    torch.testing.assert_close(module(x, y), x * mask)
    assert module.penalty.item() == pytest.approx((0.3 * mask + 0.7 * mask * expected).mean().item(), rel=1e-6)
    assert torch.equal(module.map[0, 0], module.map[-1, 0]) and module.map.shape == (len(labels), 1, 2, 4)
    gradient = torch.autograd.grad(module.penalty, x, allow_unused=True)
    assert gradient == (None,)


def test_a_position_that_every_class_uses_is_lowered_most() -> None:
    """Position 0 is active for all classes alike, position 1 for class 0 alone, position 2 for none."""
    x = torch.zeros(3, 2, 1, 3)
    x[:, :, 0, 0] = 1
    x[0, :, 0, 1] = 1
    y = torch.arange(3)
    torch.testing.assert_close(confusion(x, soft_labels(y, num_classes=3))[0], torch.tensor([1.0, 0, 0]))
    module = LMask((2, 1, 3), num_classes=3, sparse=0.1, shared=1.0)
    module(x, y)
    module.penalty.backward()
    push = module.logit.grad[0, 0, 0]
    assert push[0] == pytest.approx(11 * push[1].item()) and push[1] == push[2] > 0


def test_without_labels_and_in_eval() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(4, 3, 5, 5), torch.arange(4)
    module = LMask((3, 5, 5), num_classes=4, sparse=1.0)
    out = module(x)
    assert module.penalty.item() == pytest.approx(0.88) and module.statistics["mean"].item() == pytest.approx(0.88)
    torch.testing.assert_close(out, 0.88 * x)
    module(x, y)
    alone = module.penalty
    module(torch.cat([x, x]), y)  # copies have their originals' labels
    torch.testing.assert_close(module.penalty, alone)
    module.eval()(x, y)
    assert module.penalty is None
    module.train()(torch.randn(4, 3, 7, 6), y)  # another size
    assert module.map.shape == (4, 1, 7, 6)
    alone = LMask((3, 5, 5), num_classes=4, sparse=0.0, shared=1.0)
    alone(x, y)
    assert alone.penalty.item() > 0
    off = LMask((3, 5, 5), num_classes=4, sparse=0.0, shared=0.0)
    off(x, y)
    assert off.penalty is None


def test_keeps_channels_last_and_traces() -> None:
    x, y = torch.randn(4, 3, 6, 6).contiguous(memory_format=torch.channels_last), torch.arange(4)
    module = LMask((3, 6, 6), num_classes=4)
    out = torch.compile(module, backend="eager", fullgraph=True)(x, y)
    assert torch.equal(out, module(x, y)) and out.is_contiguous(memory_format=torch.channels_last)
    assert module(x.bfloat16(), y).dtype == torch.bfloat16 and module.penalty.dtype == torch.float32


def test_wrong_values() -> None:
    for options, match in (
        ({"sparse": -1.0}, "sparse and shared must be at least 0"),
        ({"start": 1.0}, r"start must be in \(0, 1\), got 1"),
        ({"num_classes": 1}, "num_classes must be at least 2"),
        ({"shape": (3,)}, r"lmask needs a place of shape \(C, H, W\), .*got \(3,\)"),
    ):
        with pytest.raises(ValueError, match=match):
            LMask(**{"shape": (3, 6, 6), "num_classes": 4} | options)
