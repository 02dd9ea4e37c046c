"""Placement by kind: every activation, convolution or norm of any backbone; modules that are called several times in one pass."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from attnlab.backbones.resnet import resnet18
from attnlab.backbones.timm_model import timm_model
from attnlab.backbones.wide_resnet import wrn16_4
from attnlab.placement.attach import place, placed
from attnlab.placement.kinds import kind_of
from attnlab.placement.places import places_of

SHAPE = (3, 32, 32)


class Bend(nn.Module):
    """Stands in for an activation; keeps nothing, so that one may serve several calls."""

    shareable = True

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x)


class Alone(Bend):
    shareable = False


def torchvision_resnet(name: str = "resnet18") -> nn.Module:
    import torchvision

    return getattr(torchvision.models, name)(num_classes=5)


BACKBONES = {
    "resnet18": lambda: resnet18(5, SHAPE, width=4),
    "wrn16_4": lambda: wrn16_4(5, SHAPE, width=8),
    "test_resnet": lambda: timm_model(5, SHAPE, name="test_resnet"),
    "mobilenetv3_small_050": lambda: timm_model(5, SHAPE, name="mobilenetv3_small_050"),
    "torchvision": torchvision_resnet,
}


def by_hand(model: nn.Module, kind: str) -> set[str]:
    """Names by the classes' own names: Conv2d; BatchNorm2d, BatchNormAct2d; ReLU, Hardswish, Hardsigmoid."""
    endings = {"conv": ("Conv2d",), "norm": ("BatchNorm2d", "BatchNormAct2d"), "activation": ("ReLU", "Hardswish", "Hardsigmoid")}[kind]
    return {name for name, module in model.named_modules() if type(module).__name__ in endings}


@pytest.mark.parametrize("kind", ["activation", "conv", "norm"])
@pytest.mark.parametrize("name", BACKBONES)
def test_every_module_of_a_kind_is_found_once(name: str, kind: str) -> None:
    model = BACKBONES[name]()
    with placed(model, {"b": {"at": {"type": kind}, "module": Bend}}, shape=SHAPE) as components:
        found = [placement.place for placement in components.placements]
        hooked = {place for place, module in model.named_modules() if len(module._forward_hooks) == 1}
    assert set(found) == hooked == by_hand(model, kind) and len(set(found)) == len(found) > 3


def test_every_activation_can_be_replaced_also_one_that_serves_several_calls() -> None:
    for name, architecture in (("torchvision", torchvision_resnet), ("bottleneck", partial(torchvision_resnet, "resnet50"))):
        model = architecture()
        place(model, {"b": {"at": {"type": "activation"}, "how": "replace", "module": Bend}}, shape=SHAPE)
        assert not any(isinstance(module, nn.ReLU) for module in model.modules()), name
        assert model.eval()(torch.randn(2, *SHAPE)).shape == (2, 5)


def test_a_module_of_several_calls_is_refused_unless_the_component_may_be_shared() -> None:
    model = torchvision_resnet()
    assert places_of(model, SHAPE)["layer1.0.relu"].calls == 2
    for at in ("layer1.0.relu", {"type": "activation"}):
        with pytest.raises(
            ValueError, match=r"placement\.b\.at: layer1\.0\.relu handles 2 tensors in one pass; .*shareable = True"
        ) as caught:
            place(model, {"b": {"at": at, "module": Alone}}, shape=SHAPE)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"layer1\.0\.relu does not give one tensor"):
        place(model, {"b": {"at": "layer2", "reads": ["layer1.0.relu"], "module": Alone}}, shape=SHAPE)
    place(model, {"b": {"at": "relu", "module": partial(Alone)}}, shape=SHAPE)  # of the stem: one call


def test_a_module_of_several_names_is_replaced_under_all_of_them() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.ReLU()
            self.two = self.one
            self.three = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.three(self.one(x.mean((2, 3)))))

    model = Twice()
    with placed(model, {"b": {"at": {"type": "torch.nn.ReLU"}, "how": "replace", "module": Bend}}, shape=SHAPE):
        assert isinstance(model.one, Bend) and model.two is model.one
    assert isinstance(model.one, nn.ReLU) and model.two is model.one


@pytest.mark.parametrize(
    ("at", "count"),
    [
        ({"type": "norm", "name": "layer1.**"}, 4),
        ({"type": "torch.nn.BatchNorm2d", "name": "**.bn2"}, 8),
        ({"type": nn.BatchNorm2d, "name": "**.bn2"}, 8),
        ([{"type": "conv", "name": "layer1.*.*"}, "layer2"], 5),
        ([{"type": "conv", "name": "layer1.*.*"}, "layer1.0.conv1"], 4),
    ],
)
def test_a_type_may_be_a_class_and_have_a_glob(at, count: int) -> None:
    model = BACKBONES["resnet18"]()
    assert len(place(model, {"b": {"at": at, "module": Bend}}, shape=SHAPE)) == count


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ([], r"b\.at: names no place"),
        ({"type": "nrom"}, r"'nrom' is none of activation, conv, norm"),
        (
            {"type": "torch.nn.GELU"},
            r"no module of type torch\.nn\.GELU runs here \(17 activation, 20 conv, 20 norm\); functions such as F\.relu",
        ),
        ({"type": "torch.nn.functional.relu"}, r"type: torch\.nn\.functional\.relu is no class"),
        ({"type": nn.BatchNorm2d, "name": "layer9.*"}, r"at\.name: no place matches 'layer9\.\*'"),
        ({"name": "layer1"}, r"at\.type: missing"),
        ({"type": "norm", "names": "layer1"}, r"at\.names: unknown key"),
        (3, r"at: 3 is no name of a place"),
    ],
)
def test_refusals(at, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        place(BACKBONES["resnet18"](), {"b": {"at": [at] if at == 3 else at, "module": Bend}}, shape=SHAPE)
    assert "\n" not in str(caught.value)


def test_kinds_of_classes() -> None:
    import timm.layers as layers

    kinds = {
        "activation": [nn.ReLU, nn.PReLU, nn.GELU, nn.Sigmoid, layers.Swish, layers.GELUTanh],
        "conv": [nn.Conv1d, nn.ConvTranspose2d, layers.StdConv2d],
        "norm": [nn.SyncBatchNorm, nn.GroupNorm, nn.RMSNorm, layers.BatchNormAct2d, layers.LayerNorm2d, layers.FrozenBatchNormAct2d],
        None: [nn.MultiheadAttention, nn.Softmax, nn.Linear, nn.Dropout, nn.Identity, layers.ConvNormAct, layers.DropPath],
    }
    for kind, classes in kinds.items():
        assert {kind_of(one) for one in classes} == {kind}, kind


def test_messages_name_a_component_as_its_group_does() -> None:
    from attnlab.network import Network

    with pytest.raises(ValueError, match=r"^attention\.b\.at: no place matches 'layer9'"):
        Network(BACKBONES["resnet18"](), {"b": {"at": "layer9", "module": Bend}}, shape=SHAPE, where={"b": "attention.b"})
