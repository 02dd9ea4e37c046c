"""SE1C against a loop (fp64), its size, and its laws."""

import math

import pytest
import torch

from attnlab.attention.se1c import SE1C
from tests.component_rules import check_rules


def test_equals_a_loop() -> None:
    torch.manual_seed(0)
    module, x = SE1C((6, 4, 3), kernel=3).double(), torch.randn(2, 6, 4, 3, dtype=torch.float64)
    y, kernel = module(x), module.conv.weight.flatten().tolist()
    for b in range(2):
        mean, top = x[b].mean((1, 2)).tolist(), x[b].amax((1, 2)).tolist()
        for c in range(6):
            score = sum(w * (mean[c + j] + top[c + j]) for w, j in zip(kernel, (-1, 0, 1)) if 0 <= c + j < 6)
            torch.testing.assert_close(y[b, c], x[b, c] / (1 + math.exp(-score)), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("channels", "kernel"), [(4, 3), (8, 3), (64, 3), (256, 5), (512, 5)])
def test_kernel_by_ecas_rule_is_all_there_is(channels: int, kernel: int) -> None:
    from timm.layers import EcaModule

    module = SE1C((channels, 2, 2))
    assert sum(p.numel() for p in module.parameters()) == kernel == EcaModule(channels).conv.kernel_size[0]


def test_weights_of_zero_halve_and_images_do_not_see_each_other() -> None:
    module, x = SE1C((8, 3, 3)), torch.randn(5, 8, 3, 3)
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(module(x[order]), module(x)[order])
    torch.nn.init.zeros_(module.conv.weight)
    assert torch.equal(module(x), x / 2)


def test_a_kernel_of_one_weight_sees_its_own_channel() -> None:
    module, x = SE1C((8, 3, 3), kernel=1), torch.randn(2, 8, 3, 3)
    gate = (module.conv.weight.flatten() * (x.mean((2, 3)) + x.amax((2, 3)))).sigmoid()
    torch.testing.assert_close(module(x), x * gate[:, :, None, None])
    with pytest.raises(ValueError, match="at least 1, got 0"):
        SE1C((8, 3, 3), kernel=0)


def test_rules() -> None:
    check_rules(lambda: SE1C((8, 3, 4)), torch.randn(3, 8, 3, 4))


def test_refusals() -> None:
    with pytest.raises(ValueError, match="kernel"):
        SE1C((8, 3, 3), kernel=2)
    with pytest.raises(ValueError, match="shape"):
        SE1C((8,))
