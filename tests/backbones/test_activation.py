"""ReLUs in place: the same bits, as many as there are, and none whose input somebody holds."""

from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from attnlab.backbones import activation, preact_resnet, resnet, vgg, wide_resnet
from attnlab.backbones.activation import activate

NETWORKS = {
    "resnet18": lambda: resnet.resnet18(4, (3, 32, 32), width=4, stem="imagenet"),
    "resnet50": lambda: resnet.resnet50(4, (3, 32, 32), width=4),
    "wrn16_4": lambda: wide_resnet.wrn16_4(4, (3, 32, 32), width=4),
    "pre-activation bottleneck": lambda: preact_resnet.PreActivationBottleneck(3, 4, 2),
    "vgg16": lambda: vgg.vgg16(4, (3, 32, 32), width=4),
}


class Calls(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[name]()


def image() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def gradients(model: nn.Module) -> list[torch.Tensor]:
    logits = model(image())
    logits.square().sum().backward()
    return [logits.detach(), *(parameter.grad for parameter in model.parameters()), *model.buffers()]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_bits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Calls() as calls:
        ours = gradients(network(name))
    relus = sum(isinstance(module, nn.ReLU) for module in network(name).modules())
    last = name == "wrn16_4"  # it stands in a plain Sequential, `norm`
    assert calls.count["relu_"] == relus - last and calls.count["relu"] == last
    for module in (activation, resnet, wide_resnet, preact_resnet):
        monkeypatch.setattr(module, "activate", lambda relu, x, *made_by: relu(x))
    with Calls() as calls:
        theirs = gradients(network(name))
    assert not calls.count["relu_"]
    assert all(map(torch.equal, ours, theirs))


@pytest.mark.parametrize("place", ["stem.bn", "layer1.0.bn1"])
def test_a_value_that_a_hook_holds_is_kept(place: str) -> None:
    model, held = network("resnet18"), []
    model.get_submodule(place).register_forward_hook(lambda module, args, value: held.append((value, value.clone())))
    model(image())
    assert torch.equal(*held[0]) and held[0][0].min() < 0


def test_what_stands_before_a_relu_sees_its_input() -> None:
    model, held = network("resnet18"), []
    model.layer1[0].relu2.register_forward_pre_hook(lambda module, args: held.append(args[0]))
    model(image())
    assert held[0].min() < 0


def test_another_module_in_the_stead_of_a_batch_norm() -> None:
    """Its value may be the convolution's, which somebody holds, or one that its backward pass needs."""
    model, held = network("resnet18"), []
    model.layer1[0].bn1, model.stem.bn = nn.Identity(), nn.Sigmoid()
    model.layer1[0].conv1.register_forward_hook(lambda module, args, value: held.append(value))
    model(image()).sum().backward()
    assert held[0].min() < 0


def test_another_module_in_the_stead_of_a_relu_is_called() -> None:
    model = network("resnet18")
    model.layer1[0].relu1 = nn.LeakyReLU()
    x = torch.tensor([-1.0])
    assert activate(model.layer1[0].relu1, x, model.layer1[0].bn1).item() == pytest.approx(-0.01)


@pytest.mark.parametrize("kind", ["full_backward", "full_backward_pre"])
def test_backward_hooks(kind: str) -> None:
    """PyTorch passes their module's value as a view, which may not be written over."""
    model, heard = network("resnet18"), []
    for place in ("layer1.0.bn1", "layer1.0.relu2"):
        hook = getattr(model.get_submodule(place), f"register_{kind}_hook")
        hook(lambda *given: heard.append(given))
    model(image()).sum().backward()
    assert len(heard) == 2
