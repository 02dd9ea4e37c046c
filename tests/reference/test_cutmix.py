"""CutMix against the authors' rectangle and a pixel count."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnlab.regularizers.cutmix import CutMix
from attnlab.regularizers.mixup import draw_beta


def slow(x, y, num_classes, alpha):
    """The authors' train.py, with lambda corrected by counting pixels; draws the same numbers."""
    B, _, H, W = x.shape
    partner = torch.randperm(B)
    lam = draw_beta(alpha, x.device).item()
    torch.rand(())
    cy, cx = torch.randint(H, (1,)).item(), torch.randint(W, (1,)).item()
    cut_h, cut_w = int(H * np.sqrt(np.float32(1) - np.float32(lam))), int(W * np.sqrt(np.float32(1) - np.float32(lam)))
    y1, y2 = np.clip(cy - cut_h // 2, 0, H), np.clip(cy + cut_h // 2, 0, H)
    x1, x2 = np.clip(cx - cut_w // 2, 0, W), np.clip(cx + cut_w // 2, 0, W)
    out, target = x.clone(), torch.zeros(B, num_classes)
    lam = 1 - (y2 - y1) * (x2 - x1) / (H * W)
    for i in range(B):
        out[i, :, y1:y2, x1:x2] = x[partner[i], :, y1:y2, x1:x2]
        target[i, y[i]] += lam
        target[i, y[partner[i]]] += 1 - lam
    return out, target


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), height=st.integers(1, 12), width=st.integers(1, 12), alpha=st.floats(0.2, 3))
def test_equals_the_authors_loop(seed, height, width, alpha):
    torch.manual_seed(seed)
    x, y = torch.randn(5, 2, height, width, dtype=torch.float64), torch.randint(4, (5,))
    torch.manual_seed(seed)
    mixed, target = CutMix(x.shape[1:], num_classes=4, alpha=alpha, prob=1.0)(x, y)
    torch.manual_seed(seed)
    slow_mixed, slow_target = slow(x, y, 4, alpha)
    assert torch.equal(mixed, slow_mixed)
    torch.testing.assert_close(target, slow_target, atol=1e-6, rtol=0)
    torch.testing.assert_close(target.sum(1), torch.ones(5))  # label mass is conserved, in rows and in classes
    torch.testing.assert_close(target.sum(0), torch.bincount(y, minlength=4).float())


def test_label_share_is_the_pasted_area():
    torch.manual_seed(0)
    x = torch.arange(8.0, dtype=torch.float64).view(-1, 1, 1, 1).expand(-1, 1, 16, 16).clone()
    module = CutMix((1, 16, 16), num_classes=8, prob=1.0)
    for _ in range(20):
        mixed, target = module(x, torch.arange(8))
        counted = (mixed.flatten(1)[:, :, None] == torch.arange(8)).double().mean(1)
        torch.testing.assert_close(target.double(), counted, atol=1e-6, rtol=0)


def test_prob():
    x, y = torch.randn(4, 1, 8, 8), torch.arange(4)
    mixed, target = CutMix((1, 8, 8), num_classes=4, prob=0.0)(x, y)
    assert torch.equal(mixed, x) and torch.equal(target, torch.eye(4))
    torch.manual_seed(0)
    module = CutMix((1, 32, 32), num_classes=4, prob=0.5)
    cut = [not torch.equal(module(torch.eye(4)[:, :1, None, None].expand(4, 1, 32, 32), y)[1], torch.eye(4)) for _ in range(400)]
    assert 0.35 < sum(cut) / 400 < 0.6


def test_soft_targets_are_mixed():
    x, labels = torch.randn(6, 1, 8, 8), torch.tensor([0, 1, 2, 3, 4, 0])
    module = CutMix((1, 8, 8), num_classes=5, prob=1.0)
    torch.manual_seed(1)
    hard = module(x, labels)[1]
    torch.manual_seed(1)
    assert torch.equal(hard, module(x, torch.nn.functional.one_hot(labels, 5).double())[1])


def test_identity_in_eval_and_without_labels():
    module, x, y = CutMix((1, 4, 4), num_classes=5), torch.randn(6, 1, 4, 4), torch.arange(6) % 5
    out = module(x, None)
    assert out[0] is x and out[1] is None
    out = module.eval()(x, y)
    assert out[0] is x and out[1] is y


def test_keeps_channels_last_and_traces():
    module = CutMix((3, 8, 8), num_classes=5, prob=1.0)
    x, y = torch.randn(6, 3, 8, 8).contiguous(memory_format=torch.channels_last), torch.arange(6) % 5
    torch.manual_seed(0)
    mixed, target = torch.compile(module, backend="eager", fullgraph=True)(x, y)
    torch.manual_seed(0)
    again = module(x, y)
    assert torch.equal(mixed, again[0]) and torch.equal(target, again[1])
    assert mixed.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "bad, match", [({"alpha": 0}, "alpha"), ({"prob": 2}, "prob"), ({"num_classes": 0}, "num_classes"), ({"shape": (8,)}, "C, H, W")]
)
def test_wrong_values(bad, match):
    with pytest.raises(ValueError, match=match):
        CutMix(**{"shape": (3, 8, 8), "num_classes": 5} | bad)
