"""iResNet's stages against the authors' numbers (fp64), and the whole networks' sizes against ResNet's."""

import re

import pytest
import torch
from torch import nn

from attnlab.backbones import iresnet
from attnlab.backbones.iresnet import res_stage
from attnlab.placement import place
from tests.component_rules import check_rules, close
from tests.golden_numbers import golden


def rename(key: str, stage: nn.Sequential) -> str:
    """The authors' name -> ours: their last bn of a block is `norm`, what is inside the branch is in `branch`."""
    index, rest = key.split(".", 1)
    block = stage[int(index)]
    if rest.startswith("downsample"):
        names = [name for name, _ in block.downsample.named_children()]
        return f"{index}." + re.sub(r"\.(\d)", lambda m: f".{names[int(m[1])]}", rest, count=1)
    last = sum(name.startswith("conv") for name, _ in block.branch.named_children())
    if rest.startswith(f"bn{last}."):
        return f"{index}.norm.{rest.split('.', 1)[1]}"
    return f"{index}.{rest}" if rest.startswith("bn0") else f"{index}.branch.{rest}"


@pytest.mark.parametrize("name", ["basic", "basic2", "neck", "neck1"])
def test_stages_equal_the_authors_code(name: str) -> None:
    stored, state = golden("components", f"ires_{name}_"), golden("components", f"ires_{name}_p_")
    in_channels, width, blocks, stride, expansion = stored["cfg"].tolist()
    stage = res_stage(in_channels, width, blocks, stride, expansion=expansion).double()
    found = stage.load_state_dict({rename(key, stage): value for key, value in state.items()}, strict=False)
    assert not found.unexpected_keys and all(key.endswith("num_batches_tracked") for key in found.missing_keys)
    close(stage.eval()(stored["x"]), stored["y_eval"])
    x = stored["x"].requires_grad_()
    y = stage.train()(x)
    close(y, stored["y"])
    y.backward(stored["gy"])
    close(x.grad, stored["gx"])
    gradients = {rename(key[2:], stage): value for key, value in stored.items() if key.startswith("g_")}
    assert set(gradients) == {key for key, _ in stage.named_parameters()}
    for key, parameter in stage.named_parameters():
        close(parameter.grad, gradients[key])


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_sizes_and_shapes(depth: int) -> None:
    build = getattr(iresnet, f"iresnet{depth}")
    with torch.device("meta"):
        model = build(1000, (3, 64, 64), stem="imagenet")
        count = sum(p.numel() for p in model.parameters())
    expected = {18: 11.69e6, 34: 21.80e6, 50: 25.56e6}[depth]  # of ResNets
    assert count == pytest.approx(expected, rel=0.01)
    small = build(10, (3, 16, 16), width=4)
    assert small(torch.randn(2, 3, 16, 16)).shape == (2, 10)


def test_one_activation_a_stage_on_the_trunk_and_strides_of_both_stems() -> None:
    model = iresnet.iresnet18(3, (3, 64, 64), stem="imagenet", width=4)
    seen = {}
    for name in ("stem", "layer1", "layer4"):
        model.get_submodule(name).register_forward_hook(lambda m, i, o, name=name: seen.update({name: o.shape[-1]}))
    model(torch.randn(2, 3, 64, 64))
    assert seen == {"stem": 32, "layer1": 16, "layer4": 2}
    assert [name for name, m in iresnet.iresnet34(3, (3, 8, 8), width=4).layer3.named_modules() if name.endswith(".relu")] == ["5.relu"]


def test_places_take_components_and_rules_hold() -> None:
    model = iresnet.iresnet18(3, (3, 16, 16), width=4)
    place(model, {"id": {"at": "layer*.*.branch.relu1", "module": lambda shape: nn.Dropout(0.0)}}, shape=(3, 16, 16))
    check_rules(lambda: iresnet.iresnet18(3, (3, 16, 16), width=4), torch.randn(4, 3, 16, 16))


def test_refusals() -> None:
    with pytest.raises(ValueError, match="width"):
        iresnet.iresnet18(3, (3, 16, 16), width=0)
    with pytest.raises(ValueError, match="images"):
        iresnet.iresnet18(3, (3, 4, 4))
