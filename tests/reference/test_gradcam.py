"""Grad-CAM against the numbers of the grad-cam library, a slow loop and the linear case; the network is left as it was."""

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.attention.rect import RectAttention
from attnlab.ensemble import Ensemble
from attnlab.explainers.gradcam import GradCAM, grad_cam
from attnlab.network import Network
from tests.backbones.test_backbones import CASES
from tests.golden_numbers import golden
from tests.reference.explained import drawn, hooks, small


@pytest.fixture(scope="module")
def stored() -> dict[str, Tensor]:
    return golden("explainers")


@pytest.fixture
def network(stored) -> Network:
    return small()


def test_the_default_place_is_the_last_with_maps(network: Network) -> None:
    assert GradCAM().place(network, (3, 32, 32)) == "features.7"


@pytest.mark.parametrize(("at", "name"), [(None, "relu3"), ("features.7", "relu3"), ("features.4", "relu2")])
def test_maps_are_the_library_s(network: Network, stored: dict[str, Tensor], at: str | None, name: str) -> None:
    x, target = stored["x"].double(), stored["target"].long()
    found = GradCAM(at=at).explain(network, x, target)
    raw = stored[f"gradcam_{name}_raw"].double()[:, None]
    expected = F.interpolate(raw.relu(), size=(32, 32), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    if name == "relu3":
        torch.testing.assert_close(raw.relu(), stored["gradcam_captum_relu3"].double().view_as(raw), rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(raw.relu(), stored["gradcam_torchcam_relu3"].view_as(raw), rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(drawn(found).float(), stored["gradcam_relu3_up"], rtol=0, atol=1e-5)


def test_a_place_before_a_module_that_works_in_place(network: Network, stored: dict[str, Tensor]) -> None:
    """features.6 is followed by ReLU(inplace=True): its maps are those before it. By autograd alone, no hooks."""
    x, target = stored["x"].double(), stored["target"].long()
    maps = network.backbone.features[:7](x).detach().requires_grad_()
    logits = network.backbone.classifier(maps.relu().mean((2, 3)))
    (gradient,) = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), maps)
    expected = F.interpolate(grad_cam(maps.detach(), gradient).relu(), size=(32, 32), mode="bilinear")
    torch.testing.assert_close(GradCAM(at="features.6").explain(network, x, target), expected, rtol=1e-10, atol=1e-12)


def test_the_formula_is_the_slow_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    maps, gradient = (torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    found = grad_cam(maps, gradient)
    for b in range(2):
        for i in range(4):
            for j in range(5):
                expected = sum(gradient[b, k].mean() * maps[b, k, i, j] for k in range(3))
                assert float(found[b, 0, i, j]) == pytest.approx(float(expected), abs=1e-12)


def test_a_linear_head_on_pooled_maps_gives_class_activation_maps(network: Network, stored: dict[str, Tensor]) -> None:
    """alpha_k = w_ck / (h w), CAM (1512.04150): the law that Grad-CAM generalises."""
    x, target = stored["x"].double(), stored["target"].long()
    weight_BK = network.backbone.classifier.weight[target] / 64
    cam = torch.einsum("bk,bkhw->bhw", weight_BK, stored["feat_relu3"].double())[:, None].relu()
    found = GradCAM().explain(network, x, target)
    torch.testing.assert_close(found, F.interpolate(cam, size=(32, 32), mode="bilinear"), rtol=1e-9, atol=1e-12)


def test_a_batch_is_its_images_one_by_one(network: Network, stored: dict[str, Tensor]) -> None:
    x, target = stored["x"].double(), stored["target"].long()
    whole = GradCAM().explain(network, x, target)
    single = torch.cat([GradCAM().explain(network, x[i : i + 1], target[i : i + 1]) for i in range(len(x))])
    torch.testing.assert_close(whole, single, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("frozen", [False, True])
def test_the_network_is_left_as_it_was(network: Network, stored: dict[str, Tensor], frozen: bool) -> None:
    x, target = stored["x"].double(), stored["target"].long()
    network.backbone.classifier.weight.grad = torch.ones(5, 16, dtype=torch.float64)
    network.backbone.requires_grad_(not frozen)
    network.train()
    network.backbone.features[3].eval()
    before, hooked = copy.deepcopy(network.state_dict()), hooks(network)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = GradCAM().explain(network, x.clone(), target)
    assert found.dtype == torch.float64 and not found.requires_grad and (found >= 0).all()
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(parameter.requires_grad != frozen for parameter in network.parameters())
    assert torch.equal(network.backbone.classifier.weight.grad, torch.ones(5, 16, dtype=torch.float64))
    assert network.backbone.features[0].weight.grad is None
    assert network.training and not network.backbone.features[3].training and network.backbone.features[6].training
    assert hooks(network) == hooked


def test_an_error_leaves_no_hook_either(network: Network, stored: dict[str, Tensor]) -> None:
    hooked = hooks(network)
    with pytest.raises(RuntimeError):
        GradCAM().explain(network, stored["x"].double(), torch.tensor([0, 1, 2, 99]))
    assert hooks(network) == hooked


LAST = {"resnet18": "layer4", "wrn16_4": "norm", "vgg16": "layer5.relu3", "timm_resnet": "layer3", "cnn3": "layer3"}


@pytest.mark.parametrize("name", [name for name, (_, shape, _) in CASES.items() if len(shape) == 3])
def test_every_backbone_of_images(name: str) -> None:
    build, shape, options = CASES[name]
    network = Network(build(4, shape, **options), shape=shape, num_classes=4).train()
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    gradcam = GradCAM()
    if name in LAST:
        assert gradcam.place(network, shape) == LAST[name]
    found = gradcam.explain(network, x, torch.tensor([0, 1, 3]))
    assert found.shape == (3, 1, *shape[1:]) and found.isfinite().all() and (found >= 0).all()


def test_placed_modules_take_part() -> None:
    """What is placed after the explained place has changed the maps that are weighted."""
    build, shape, options = CASES["resnet18"]
    torch.manual_seed(0)
    backbone = build(4, shape, **options)
    x, target = torch.randn(2, *shape), torch.tensor([0, 1])
    plain = GradCAM().explain(Network(copy.deepcopy(backbone), shape=shape), x, target)
    placed = Network(backbone, {"rect": {"at": "layer4", "module": partial(RectAttention)}}, shape=shape)
    assert not torch.allclose(GradCAM().explain(placed, x, target), plain)
    copy.deepcopy(placed)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.aside = nn.Conv2d(3, 3, 3, padding=1)
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        self.aside(x)
        return self.fc(self.conv(self.conv(x)).mean((2, 3)))


def test_what_cannot_be_explained(network: Network) -> None:
    x, target = torch.randn(2, 3, 32, 32, dtype=torch.float64), torch.tensor([0, 1])
    for at, message in {
        "features.77": "there is no such place; nearest: features.7",
        "classifier": "gives no feature maps",
    }.items():
        with pytest.raises(ValueError, match=message):
            GradCAM(at=at).explain(network, x, target)
    twice = Network(Twice(), shape=(3, 8, 8))
    for at, message in {"conv": "runs several times in one pass", "aside": "the logits do not depend on it"}.items():
        with pytest.raises(ValueError, match=message):
            GradCAM(at=at).explain(twice, x[:, :, :8, :8].float(), target)
        assert sum(hooks(twice)) == 0
    with pytest.raises(ValueError, match=r"needs one network on images, got Network on values of shape \(2,\)"):
        GradCAM().explain(Network(CASES["mlp2d"][0](2, (2,)), shape=(2,)), torch.randn(2, 2), target)
    with pytest.raises(ValueError, match="got Ensemble on values"):
        GradCAM().explain(Ensemble([network]), x, target)
