"""All explainers alike: maps of the images' size, finite, the same for an image alone; the network is left as it was. The controls."""

import copy
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from attnlab.attention.rect import RectAttention
from attnlab.explainers.attention import Attention
from attnlab.explainers.gaussian_map import GaussianMap
from attnlab.explainers.random_map import RandomMap
from attnlab.explainers.sobel import Sobel
from attnlab.explainers.uniform import Uniform
from attnlab.network import Network
from tests.backbones.test_backbones import CASES
from tests.golden_numbers import golden
from tests.reference.explained import Small, hooks, small

CONFIGS = Path(__file__).parents[2] / "configs"
FEW = {"num_masks": 6, "num_draws": 3, "steps": 3, "num_samples": 6, "num_segments": 4, "path_steps": 3}
NEEDY = {"attention", "fixed_edges"}  # what a network must have for them: tests of their own
THROUGH_CAPTUM = ("kernel_shap", "lime")
EXPLAINERS = {path.stem: OmegaConf.load(path)[path.stem] for path in sorted((CONFIGS / "explainer").glob("*.yaml")) if path.stem != "none"}


def test_the_stored_network_says_what_is_stored() -> None:
    stored = golden("explainers")
    logits = small()(stored["x"]).logits.detach()
    torch.testing.assert_close(logits, stored["logits"], rtol=1e-10, atol=1e-12)
    assert torch.equal(logits.argmax(1), stored["pred"]) and (stored["target"] != stored["pred"]).any()


def explainer(name: str, network: Network, x: Tensor):
    """Of its yaml, with few passes; fitted to the images where it has to be."""
    if name in THROUGH_CAPTUM:
        pytest.importorskip("captum")
    node = EXPLAINERS[name]
    found = instantiate({**node, **{key: value for key, value in FEW.items() if key in node}})
    if hasattr(found, "prepare"):
        data = SimpleNamespace(shape=tuple(x.shape[1:]), image_set=lambda *_: SimpleNamespace(images=x), normalise=lambda images: images)
        found.prepare(SimpleNamespace(network=network, data=data, settings=SimpleNamespace(device=x.device)))
    return found


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", sorted(set(EXPLAINERS) - NEEDY))
def test_the_network_is_left_as_it_was(name: str, frozen: bool) -> None:
    stored = golden("explainers")
    network, x, target = small(), stored["x"], stored["target"]
    network.requires_grad_(not frozen).train()
    network.backbone.features[3].eval()
    before, hooked = copy.deepcopy(network.state_dict()), hooks(network)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = explainer(name, network, x).explain(network, x, target)
    assert found.shape == (4, 1, 32, 32) and found.dtype == torch.float64 and found.isfinite().all() and not found.requires_grad
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(parameter.requires_grad != frozen and parameter.grad is None for parameter in network.parameters())
    assert network.training and not network.backbone.features[3].training and network.backbone.features[6].training
    assert hooks(network) == hooked and torch.equal(x, stored["x"])
    if name != "random_map":
        torch.testing.assert_close(explainer(name, network, x).explain(network, x[2:3], target[2:3]), found[2:3], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("backbone", ["resnet18", "timm_resnet"])
@pytest.mark.parametrize("name", sorted(set(EXPLAINERS) - NEEDY - {"latent_path"}))
def test_backbones_with_placed_attention(name: str, backbone: str) -> None:
    build, shape, options = CASES[backbone]
    torch.manual_seed(0)
    network = Network(build(4, shape, **options), {"rect": {"at": "layer2", "module": RectAttention}}, shape=shape, num_classes=4)
    x = torch.randn(2, *shape)  # of one predicted class, most likely: nothing for latent_path
    found = explainer(name, network, x).explain(network, x, torch.tensor([1, 3]))
    assert found.shape == (2, 1, *shape[1:]) and found.isfinite().all()


def test_controls() -> None:
    x, target = torch.zeros(2, 3, 4, 6), torch.tensor([0, 1])
    x[1, :, :, 3:] = 1
    network = Small()
    assert torch.equal(Uniform().explain(network, x, target), torch.ones(2, 1, 4, 6))
    noise = RandomMap().explain(network, x, target)
    assert torch.equal(noise, RandomMap().explain(network, x, target)) and not torch.equal(noise[0], noise[1])
    assert 0 <= noise.min() < 0.2 and 0.8 < noise.max() < 1
    assert not torch.equal(noise, RandomMap(seed=1).explain(network, x, target))
    centred = GaussianMap(spread=0.1).explain(network, x, target)
    assert torch.equal(centred, centred.flip(2)) and (centred - centred.flip(3)).abs().max() < 1e-6
    assert centred[0, 0].argmax() in (8, 9, 14, 15)
    for i in range(x.shape[2]):
        for j in range(x.shape[3]):
            away = ((i + 0.5) / x.shape[2] - 0.5) ** 2 + ((j + 0.5) / x.shape[3] - 0.5) ** 2
            assert centred[0, 0, i, j].item() == pytest.approx(math.exp(-away / (2 * 0.1**2)), rel=1e-5)
    edges = Sobel().explain(network, x, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(Sobel().explain(network, x + 1 / 3, target), edges, rtol=0, atol=1e-5)
    assert edges[0].sum() == 0 and edges[1, 0, 1].tolist() == [0, 0, 1.5, 1.5, 0, 0]
    with pytest.raises(ValueError, match="spread must be positive"):
        GaussianMap(spread=0)


def test_attention_s_own_map() -> None:
    build, shape, options = CASES["resnet18"]
    torch.manual_seed(0)
    x, target = torch.randn(3, *shape), torch.tensor([0, 1, 2])
    backbone = build(4, shape, **options)
    with pytest.raises(ValueError, match="no placed module of this network keeps a map"):
        Attention().explain(Network(copy.deepcopy(backbone), shape=shape), x, target)
    network = Network(backbone, {"rect": {"at": ["layer2", "layer3"], "module": RectAttention}}, shape=shape)
    found: Tensor = Attention(of="rect@layer3").explain(network, x, target)
    network.eval()(x)
    expected = network.maps()["rect@layer3"]
    torch.testing.assert_close(found, torch.nn.functional.interpolate(expected, size=shape[1:], mode="bilinear"))
    parts = Attention().parts(network)
    assert list(parts) == ["rect@layer2", "rect@layer3"] and torch.equal(parts["rect@layer3"].explain(network, x, target), found)
    assert list(Attention(of="rect@layer3").parts(network)) == ["rect@layer3"]
    with pytest.raises(ValueError, match="no placed module of this network keeps a map"):
        Attention().parts(Network(copy.deepcopy(backbone), shape=shape))
    with pytest.raises(ValueError, match="several placed modules keep a map: of=rect@layer2 chooses one of rect@layer2, rect@layer3"):
        Attention().explain(network, x, target)
    with pytest.raises(ValueError, match="of=rect@layer4: no such placed module keeps a map; nearest: rect@layer"):
        Attention(of="rect@layer4").explain(network, x, target)
