"""ROAD: the imputation against a dense solution written out pixel by pixel, and the score's laws."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from attnlab.evaluation.road import impute, road


def solved(x_HW: Tensor, gone_HW: Tensor) -> Tensor:
    """sum_j w_ij (z_i - z_j) = 0 at every removed pixel i, over the neighbours j that there are."""
    high, wide = x_HW.shape
    matrix, right = torch.eye(high * wide, dtype=torch.float64), x_HW.flatten().clone()
    for y in range(high):
        for x in range(wide):
            if not gone_HW[y, x]:
                continue
            i = y * wide + x
            matrix[i] = 0
            right[i] = 0
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    if (dy or dx) and 0 <= y + dy < high and 0 <= x + dx < wide:
                        weight = 1 / 12 if dy and dx else 1 / 6
                        matrix[i, i] += weight
                        matrix[i, (y + dy) * wide + x + dx] -= weight
    return torch.linalg.solve(matrix, right).view(high, wide)


@given(st.integers(0, 10**6), st.floats(0.1, 0.9))
@settings(max_examples=10, deadline=None)
def test_imputation_is_the_solution(seed: int, share: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 2, 6, 5, dtype=torch.float64, generator=generator)
    gone = torch.rand(2, 1, 6, 5, generator=generator) < share
    gone[:, :, 0, 0] = False
    found = impute(x, gone, tolerance=1e-12)
    for b in range(2):
        for c in range(2):
            torch.testing.assert_close(found[b, c], solved(x[b, c], gone[b, 0]), rtol=0, atol=1e-9)


def test_imputation_at_the_ends() -> None:
    x = torch.randn(1, 3, 4, 4)
    none = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    assert torch.equal(impute(x, none), x)
    assert torch.equal(impute(x, ~none), torch.zeros_like(x))


class OnePixel(nn.Module):
    """Two classes by one pixel."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([torch.zeros_like(x[:, 0, 2, 3]), 10 * x[:, 0, 2, 3]], 1)


def test_the_right_pixel_first_is_best_and_last_is_worst() -> None:
    x = torch.zeros(2, 1, 6, 6, dtype=torch.float64)
    x[:, :, 2, 3] = 1
    heat = torch.zeros(2, 1, 6, 6, dtype=torch.float64)
    heat[0, 0, 2, 3], heat[1, 0, 2, 3] = 1, -1
    found = road(OnePixel(), x, heat, torch.tensor([1, 1]), noise=0.0)
    torch.testing.assert_close(found[0], -found[1])
    assert 0.15 < found[0] <= 0.5
    constant = nn.Sequential(nn.Flatten(), nn.Linear(36, 2)).double()
    nn.init.zeros_(constant[1].weight)
    assert road(constant, x, heat, torch.tensor([0, 1])).abs().max() < 1e-12
    with pytest.raises(ValueError, match=r"shares must be in \(0, 1\)"):
        road(constant, x, heat, torch.tensor([0, 1]), shares=(0.5, 1.0))
