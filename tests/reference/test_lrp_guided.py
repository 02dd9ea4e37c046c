"""LRP-guided training against the authors' rules put together on a head of average pooling and a Linear, and its laws."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.algorithms.lrp_guided import LRPGuided, relevance, relevance_weights
from attnlab.losses.cross_entropy import CrossEntropy
from attnlab.network import Network
from attnlab.training.epoch import Batch
from attnlab.training.learner import Learner
from attnlab.training.schedules import constant
from attnlab.training.settings import Settings
from tests.backbones.test_backbones import CASES
from tests.golden_numbers import golden


@pytest.fixture(scope="module")
def stored() -> dict[str, Tensor]:
    return golden("explainers")


def test_relevance_and_weights_are_the_authors(stored: dict[str, Tensor]) -> None:
    maps, weight = stored["feat_relu3"], stored["sd_classifier.weight"]
    logits = F.linear(maps.mean((2, 3)), weight, stored["sd_classifier.bias"])
    found = relevance(maps, weight, logits)
    # their rule overwrites inputs of exactly 0 by -1e-6
    torch.testing.assert_close(found, stored["lrpg_RF"], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.sum((2, 3)), stored["lrpg_Rz"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(relevance_weights(maps, weight, logits), stored["lrpg_w"], rtol=0, atol=1e-4)


def test_loss_and_gradients_with_their_weights(stored: dict[str, Tensor]) -> None:
    maps = stored["feat_relu3"].clone().requires_grad_()
    weight, bias = (stored[f"sd_classifier.{name}"].clone().requires_grad_() for name in ("weight", "bias"))
    logits = F.linear(maps.mean((2, 3)), weight, bias)
    w = relevance_weights(maps, weight, logits)
    assert not w.requires_grad
    again = F.linear((w * maps).mean((2, 3)), weight, bias)
    losses = torch.stack([F.cross_entropy(logits, stored["label"]), F.cross_entropy(again, stored["label"])])
    torch.testing.assert_close(torch.cat([losses, losses.sum()[None]]), stored["lrpg_loss"].flatten(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(losses[0] + 0.5 * losses[1], stored["lrpg_loss_half"].flatten()[-1], rtol=1e-5, atol=1e-6)
    for found, name in zip(torch.autograd.grad(losses.sum(), [maps, weight, bias]), ("gF", "gW", "gb")):
        torch.testing.assert_close(found, stored[f"lrpg_{name}"], rtol=1e-3, atol=1e-6)


def test_relevance_is_conserved_and_weights_are_bounded() -> None:
    torch.manual_seed(0)
    maps, weight = torch.rand(3, 6, 4, 5, dtype=torch.float64), torch.randn(4, 6, dtype=torch.float64)
    logits = maps.mean((2, 3)) @ weight.T
    tiny = 1e-12
    start = (3 * (logits.softmax(1) + tiny) / (1 + tiny - logits.softmax(1))).log()
    torch.testing.assert_close(relevance(maps, weight, logits, epsilon=tiny).sum((1, 2, 3)), start.sum(1), rtol=1e-8, atol=1e-8)
    w = relevance_weights(maps, weight, logits)
    assert w.min() >= 0 and w.max() <= 2
    torch.testing.assert_close((w - 1).abs().amax(1), torch.ones(3, 4, 5, dtype=torch.float64))
    assert torch.equal(relevance_weights(0 * maps, weight, logits), torch.ones_like(maps))


def learner_of(algorithm: LRPGuided, backbone: str = "resnet18", at: str = "layer4") -> Learner:
    build, shape, options = CASES[backbone]
    torch.manual_seed(0)
    network = Network(build(4, shape, **options), shape=shape, num_classes=4)
    network.keep([at])
    settings = Settings(accelerator="cpu", precision=32)
    options = {"optimizer": partial(torch.optim.SGD, lr=0.1), "schedule": constant, "settings": settings}
    return Learner(network, CrossEntropy(4, 1), algorithm=algorithm, **options)


def test_the_term_is_the_loss_of_the_weighted_maps() -> None:
    shape = CASES["resnet18"][1]
    learner = learner_of(LRPGuided(shape, 4, weight=0.5))
    learner.prepare()
    x, y = torch.randn(5, *shape), torch.tensor([0, 1, 2, 3, 0])
    terms, out = learner.algorithm.terms(learner, Batch(x, y), None)
    maps, fc = out.values["layer4"], learner.network.fc
    w = relevance_weights(maps, fc.weight, out.logits)
    assert list(terms) == ["ce", "lrp"]
    torch.testing.assert_close(terms["lrp"], 0.5 * F.cross_entropy(fc((w * maps).mean((2, 3))), y))
    assert terms["ce"] != 2 * terms["lrp"] and terms["lrp"].requires_grad


def test_a_head_without_a_closed_form_is_refused() -> None:
    shape = CASES["resnet18"][1]
    with pytest.raises(ValueError, match="at=layer2: the logits are not fc of its average"):
        learner_of(LRPGuided(shape, 4, at="layer2"), at="layer2").prepare()
    learner = learner_of(LRPGuided(shape, 4))
    learner.network.backbone.fc = nn.Identity()
    with pytest.raises(ValueError, match="needs a Linear at fc, there is Identity"):
        learner.prepare()
    for wrong in ({"weight": -1}, {"epsilon": 0}):
        with pytest.raises(ValueError, match="weight must be 0 or more and epsilon above 0"):
            LRPGuided(shape, 4, **wrong)
