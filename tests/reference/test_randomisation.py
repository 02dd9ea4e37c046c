"""The randomisation test: rank correlation against scipy, the order of layers, what a control scores."""

import copy

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from torch import nn

from attnlab.attention.rect import RectAttention
from attnlab.evaluation.randomisation import randomisation, randomised, rank_correlation
from attnlab.explainers.gradient import Gradient
from attnlab.explainers.sobel import Sobel
from attnlab.network import Network
from tests.backbones.test_backbones import CASES
from tests.golden_numbers import golden
from tests.reference.explained import hooks, small


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_rank_correlation_is_scipy_s(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    one, other = torch.randint(0, 4, (2, 3, 1, 4, 4), generator=generator).double()  # many ties
    one[0, 0, 0, 0], other[0, 0, 0, 0] = 5, 5
    expected = torch.tensor([spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(one.numpy(), other.numpy())])
    torch.testing.assert_close(rank_correlation(one, other), expected, rtol=0, atol=1e-12)


def test_maps_without_variation() -> None:
    flat, other = torch.ones(1, 1, 3, 3), torch.rand(1, 1, 3, 3)
    assert rank_correlation(flat, 2 * flat).tolist() == [1] and rank_correlation(flat, other).tolist() == [0]


def test_layers_forget_from_the_output_down() -> None:
    network = small()
    before, hooked = copy.deepcopy(network.state_dict()), hooks(network)
    found = randomised(network, torch.zeros(1, 3, 32, 32, dtype=torch.float64), stages=4)
    assert hooks(network) == hooked and all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    order = ["classifier", "features.6", "features.3", "features.0"]
    for stage, copied in enumerate(found):
        for place, name in enumerate(order):
            weight, own = copied.backbone.get_submodule(name).weight, network.backbone.get_submodule(name).weight
            assert torch.equal(weight, own) == (place > stage)
            torch.testing.assert_close(weight.flatten().sort().values, own.flatten().sort().values)
    again = randomised(network, torch.zeros(1, 3, 32, 32, dtype=torch.float64), stages=4)
    assert torch.equal(again[3].backbone.classifier.weight, found[3].backbone.classifier.weight)


def test_placed_modules_forget_at_their_place() -> None:
    build, shape, options = CASES["resnet18"]
    network = Network(build(4, shape, **options), {"rect": {"at": "layer2", "module": RectAttention}}, shape=shape, num_classes=4)
    first, *_, last = randomised(network, torch.zeros(1, *shape), stages=4)

    def same(other: nn.Module) -> bool:
        return all(torch.equal(a, b) for (_, a), (_, b) in zip(network.placed.named_parameters(), other.placed.named_parameters()))

    assert same(first) and not same(last)


def test_an_edge_detector_does_not_pass_and_a_gradient_does() -> None:
    stored, network = golden("explainers"), small()
    x, target = stored["x"], stored["target"]
    networks = randomised(network, x)
    for explainer, low, high in ((Sobel(), 1, 1), (Gradient(), -0.5, 0.8)):
        score = randomisation(networks, explainer, x, explainer.explain(network, x, target), target)
        assert score.shape == (4,) and low - 1e-12 <= score.min() and score.max() <= high + 1e-12
