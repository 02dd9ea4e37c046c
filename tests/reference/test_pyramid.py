"""The attention pyramid against a loop over cells (fp64), squeeze-and-excitation, and its laws."""

import pytest
import torch

from attnlab.attention.pyramid import AttentionPyramid
from tests.component_rules import check_rules, close


def bilinear(cells: torch.Tensor, size: int) -> torch.Tensor:
    """(s, s) -> (size, size) with the corners of cells aligned, written out."""
    s, out = len(cells), torch.empty(size, size, dtype=torch.float64)
    for i in range(size):
        for j in range(size):
            v, u = (min(max((k + 0.5) * s / size - 0.5, 0), s - 1) for k in (i, j))
            (top, left), (low, right) = (int(v), int(u)), (min(int(v) + 1, s - 1), min(int(u) + 1, s - 1))
            fv, fu = v - top, u - left
            above = (1 - fu) * cells[top, left] + fu * cells[top, right]
            below = (1 - fu) * cells[low, left] + fu * cells[low, right]
            out[i, j] = (1 - fv) * above + fv * below
    return out


def test_equals_a_loop() -> None:
    torch.manual_seed(0)
    module, x = AttentionPyramid((3, 4, 4), scales=[1, 2, 4]).double(), torch.randn(2, 3, 4, 4).double()
    y = module(x).detach()
    one, _, two = module.excite
    first, _, last = module.weigh
    for b in range(2):
        maps, scores = [], []
        for s in (1, 2, 4):
            e, side = torch.empty(3, s, s).double(), 4 // s
            for i in range(s):
                for j in range(s):
                    p = x[b, :, i * side : (i + 1) * side, j * side : (j + 1) * side].mean((1, 2))
                    e[:, i, j] = (two.weight[:, :, 0, 0] @ (one.weight[:, :, 0, 0] @ p + one.bias).relu() + two.bias).detach()
            maps.append(torch.stack([bilinear(channel, 4) for channel in e]))
            scores.append((last.weight @ (first.weight @ e.mean((1, 2)) + first.bias).relu() + last.bias)[0].detach())
        beta = torch.stack(scores).softmax(0)
        close(module.scale_weights[b], beta)
        close(y[b], x[b] * sum(w * m for w, m in zip(beta, maps)).sigmoid())


def test_one_scale_is_squeeze_and_excitation() -> None:
    torch.manual_seed(0)
    module, x = AttentionPyramid((8, 5, 4), scales=[1]).double(), torch.randn(3, 8, 5, 4).double()
    close(module(x), (x * module.excite(x.mean((2, 3), keepdim=True)).sigmoid()).detach())


def test_a_constant_map_gets_weights_that_are_constant() -> None:
    torch.manual_seed(0)
    y = AttentionPyramid((8, 6, 5)).double()(torch.randn(2, 8, 1, 1).double().expand(-1, -1, 6, 5))
    close(y, y[:, :, :1, :1].detach().expand_as(y))


def test_rules() -> None:
    check_rules(lambda: AttentionPyramid((8, 3, 4)), torch.randn(3, 8, 3, 4))


@pytest.mark.parametrize("options", [{"scales": []}, {"scales": [0, 1]}, {"scales": [2, 2]}, {"reduction": 0}])
def test_refusals(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        AttentionPyramid((8, 5, 4), **options)
    with pytest.raises(ValueError, match="shape"):
        AttentionPyramid((8,))
