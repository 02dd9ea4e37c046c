"""Manifold mixup against the authors' numbers, and the law of its places: one a batch, each as likely."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from attnlab.losses.cross_entropy import CrossEntropy
from attnlab.losses.sigmoid import SigmoidLoss
from attnlab.network import Network, Output
from attnlab.regularizers.manifold_mixup import ManifoldMixup, OnePlace, blend
from attnlab.regularizers.mixup import soft_labels
from tests.golden_numbers import golden

SPEC = {"reads": ["target"], "writes": ["target"]}


def network_of(*, alpha: float = 2.0) -> Network:
    """Four identities; the last one is the output, so that a blend can be read off where it happened."""
    names = ("one", "two", "three", "features")
    backbone = nn.Sequential()
    for name in names:
        backbone.add_module(name, nn.Identity())
    module = partial(ManifoldMixup, alpha=alpha, places=OnePlace())
    return Network(backbone, {"mix": {"at": list(names[:3]), "module": module, **SPEC}}, shape=(4,), num_classes=4)


def test_blend_and_labels_equal_the_authors_code() -> None:
    gold = golden("components", "mmix_")
    torch.testing.assert_close(blend(gold["h"], gold["perm"], gold["lam"]), gold["out"], rtol=1e-12, atol=1e-15)
    num_classes = gold["target"].shape[1]
    soft = soft_labels(gold["y"], num_classes=num_classes).double()
    target = blend(soft, gold["perm"], gold["lam"])
    torch.testing.assert_close(target, gold["target"], rtol=1e-12, atol=1e-15)
    loss = CrossEntropy(num_classes, 1)(Output(gold["logits"], None, None), target)["ce"]
    torch.testing.assert_close(loss, gold["ce_loss"], rtol=1e-9, atol=0)


def test_the_authors_loss_is_the_binary_one_of_softmax() -> None:
    gold = golden("components", "mmix_")
    logits = gold["logits"].requires_grad_()
    loss = SigmoidLoss(logits.shape[1], 1, probabilities="softmax", reduction="mean")(Output(logits, None, None), gold["target"])["bce"]
    torch.testing.assert_close(loss, gold["bce_loss"], rtol=1e-9, atol=0)
    loss.backward()
    torch.testing.assert_close(logits.grad, gold["bce_g"], rtol=1e-9, atol=1e-12)


def test_one_place_mixes_in_every_pass_and_each_is_as_likely() -> None:
    torch.manual_seed(0)
    network, x = network_of(), torch.eye(4)
    seen = []
    for component in dict(network.placed.components()).values():
        component.register_forward_hook(lambda module, args, output: seen.append(not torch.equal(output[0], args[0])))
    chosen = torch.zeros(3)
    for _ in range(300):
        seen.clear()
        out = network(x, torch.arange(4))
        torch.testing.assert_close(out.logits, out.target, atol=1e-6, rtol=0)  # with one-hot rows both are the blend's weights
        assert len(seen) == 3 and sum(seen) == int(not torch.equal(out.logits, x))
        chosen += torch.tensor(seen)
    assert chosen.sum() > 250  # else the permutation was the identity
    assert ((chosen / chosen.sum() - 1 / 3).abs() < 5 * (2 / 9 / 300) ** 0.5).all()


def test_a_copy_of_the_network_draws_for_itself_and_a_pass_leaves_nothing_behind() -> None:
    network = network_of()
    other = copy.deepcopy(network)
    shared = {id(component.places) for _, component in network.placed.components()}
    own = {id(component.places) for _, component in other.placed.components()}
    assert len(shared) == len(own) == 1 and shared != own
    network(torch.eye(4), torch.arange(4))
    assert all(component.places.drawn is None for _, component in network.placed.components())
    network(torch.eye(2, 4), torch.arange(2))  # a smaller batch


def test_a_pass_that_was_broken_off_leaves_the_next_one_alone() -> None:
    network = network_of()
    broken = network.backbone.three.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        network(torch.eye(4), torch.arange(4))
    first = next(component for _, component in network.placed.components()).places
    first.drawn = torch.tensor(0), torch.tensor(0.5), torch.arange(4)  # as if it had been broken off between two places
    broken.remove()
    assert network(torch.eye(2, 4), torch.arange(2)).target.shape == (2, 4)


def test_copies_are_blended_as_their_originals() -> None:
    torch.manual_seed(1)
    module = ManifoldMixup((4,), num_classes=4)
    mixed, target = module(torch.cat([torch.eye(4), 10 * torch.eye(4), 100 * torch.eye(4)]), torch.arange(4))
    torch.testing.assert_close(mixed, torch.cat([target, 10 * target, 100 * target]))


def test_soft_labels_of_another_mixer_are_blended_and_eval_is_the_identity() -> None:
    module, x = ManifoldMixup((4,), num_classes=4), torch.eye(4)
    _, target = module(x, torch.full((4, 4), 0.25))
    torch.testing.assert_close(target, torch.full((4, 4), 0.25))
    assert module(x, None)[0] is x
    y, target = module.eval()(x, torch.arange(4))
    assert y is x and target.dtype == torch.int64


def test_keeps_channels_last_and_traces() -> None:
    backbone = nn.Sequential()
    backbone.add_module("one", nn.Identity())
    backbone.add_module("two", nn.ReLU())
    module = partial(ManifoldMixup, places=OnePlace())
    network = Network(backbone, {"mix": {"at": ["one", "two"], "module": module, **SPEC}}, shape=(3, 4, 4), num_classes=5)
    x, y = torch.randn(6, 3, 4, 4).contiguous(memory_format=torch.channels_last), torch.arange(6) % 5
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    for seed in range(4):
        torch.manual_seed(seed)
        found = compiled(x, y)
        torch.manual_seed(seed)
        again = network(x, y)
        assert torch.equal(found.logits, again.logits) and torch.equal(found.target, again.target)
        assert found.logits.is_contiguous(memory_format=torch.channels_last)


def test_wrong_values() -> None:
    with pytest.raises(ValueError, match="alpha must be above 0, got 0"):
        ManifoldMixup((4,), num_classes=5, alpha=0)
    with pytest.raises(ValueError, match="num_classes"):
        ManifoldMixup((4,), num_classes=0)
    with pytest.raises(ValueError, match="4 labels for 6 images"):
        ManifoldMixup((4,), num_classes=5)(torch.randn(6, 4), torch.arange(4))
