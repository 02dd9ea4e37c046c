"""Dynamic residual connections against the authors' numbers (fp64), and their start as a plain residual chain."""

import pytest
import torch
from torch import nn

from attnlab.attention.dynamic_residual import DynamicResidual
from attnlab.backbones.resnet import BasicBlock, resnet18
from attnlab.placement import place
from tests.component_rules import check_rules, close
from tests.golden_numbers import golden


@pytest.mark.parametrize("num_blocks", [3, 4])
def test_equals_the_authors_code(num_blocks: int) -> None:
    stored = golden("components", f"dran_n{num_blocks}_")
    module = DynamicResidual(tuple(stored["x"].shape[1:]), num_blocks=num_blocks, gate=True, identity=False).double()
    state = {"controller.1.weight": stored["ctl_prelu"], "fuse.weight": stored["fuse_w"], "fuse.bias": stored["fuse_b"]}
    for layer, n in ((0, 1), (2, 2)):
        state |= {f"controller.{layer}.weight": stored[f"ctl_w{n}"], f"controller.{layer}.bias": stored[f"ctl_b{n}"]}
    for i in range(num_blocks):
        for j in range(2):
            state[f"blocks.{i}.{2 * j}.weight"] = stored[f"b{i}_prelu{j}"]
            state |= {f"blocks.{i}.{2 * j + 1}.weight": stored[f"b{i}_w{j}"], f"blocks.{i}.{2 * j + 1}.bias": stored[f"b{i}_bias{j}"]}
    module.load_state_dict(state)
    x = stored["x"].requires_grad_()
    close(module.controller(x).mean((2, 3)), stored["alpha"])
    y = module(x)
    close(y, stored["y"])
    y.backward(stored["gy"])
    close(x.grad, stored["gx"])


def test_without_the_gate_it_is_the_sum() -> None:
    torch.manual_seed(0)
    module, x = DynamicResidual((3, 5, 4), num_blocks=2, identity=False).double(), torch.randn(2, 3, 5, 4, dtype=torch.float64)
    a = module.controller(x).mean((2, 3))[:, :, None, None, None]
    x1 = module.blocks[0](x) + a[:, 0] * x
    x2 = module.blocks[1](x1) + a[:, 1] * x + a[:, 2] * x1
    close(module(x), module.fuse(torch.cat([x, x1, x2], 1)).detach())
    assert (a[0] != a[1]).all()


def test_starts_as_a_plain_residual_chain_and_its_skips_learn() -> None:
    torch.manual_seed(0)
    module, x = DynamicResidual((3, 5, 4), num_blocks=3), torch.randn(2, 3, 5, 4)
    expected = x
    for block in module.blocks:
        expected = block(expected) + expected
    torch.testing.assert_close(module(x), expected)
    module(x).square().sum().backward()
    assert (module.controller[-1].weight.grad.abs().amax((1, 2, 3)) > 0).all()


def test_replaces_blocks_that_keep_the_shape_only() -> None:
    model = resnet18(3, (3, 16, 16), width=4)
    place(model, {"dran": {"at": "layer*.1", "how": "replace", "module": DynamicResidual}}, shape=(3, 16, 16))
    assert model(torch.randn(2, 3, 16, 16)).shape == (2, 3) and isinstance(model.layer3[1], DynamicResidual)
    with pytest.raises(ValueError, match="keeps the shape"):
        DynamicResidual((4, 8, 8), host=BasicBlock(4, 8, 2))
    assert DynamicResidual((4, 8, 8), host=BasicBlock(4, 4, 1)).training


@pytest.mark.parametrize("gate", [False, True])
def test_rules(gate: bool) -> None:
    check_rules(lambda: DynamicResidual((4, 5, 6), num_blocks=2, gate=gate), torch.randn(3, 4, 5, 6))


@pytest.mark.parametrize("options", [{"num_blocks": 0}, {"hidden": 0}])
def test_refusals(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        DynamicResidual((4, 4, 4), **options)
    with pytest.raises(ValueError, match="shape"):
        DynamicResidual((4,), host=nn.Identity())
