"""DCP against the authors' code: the rule alone, and two networks over five steps; then its state and the plain network it gives."""

import copy
import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.callbacks.channel_propagation import ChannelMask, ChannelPropagation, masks_of, updated
from tests.golden_numbers import golden


def conv(channels: int, width: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, width, size, stride, padding=size // 2, bias=False)


class Block(nn.Module):
    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(channels, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width), nn.BatchNorm2d(width)
        self.downsample = nn.Sequential(conv(channels, width, 1, stride), nn.BatchNorm2d(width)) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.downsample(x))


class SmallResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(3, 4), nn.BatchNorm2d(4)
        self.layer1, self.layer2, self.layer3 = (nn.Sequential(Block(*sizes)) for sizes in ((4, 4, 1), (4, 6, 2), (6, 8, 2)))
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        return self.fc(F.avg_pool2d(x, 2).flatten(1))


class SmallVGG(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers = [(conv(a, b), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2)) for a, b in ((3, 5), (5, 7), (7, 8))]
        self.feature = nn.Sequential(*[layer for group in layers for layer in group])
        self.classifier = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.feature(x).flatten(1))


NETS = {"vgg": (SmallVGG, ["**"]), "res": (SmallResNet, ["layer*.*.bn1"])}


def start(name: str) -> tuple[dict[str, Tensor], SimpleNamespace, ChannelPropagation]:
    gold = golden("components", f"dcp_{name}_")
    make, at = NETS[name]
    backbone = make().double()
    state = {key.removeprefix("p_"): value for key, value in gold.items() if key.startswith("p_")}
    backbone.load_state_dict({**backbone.state_dict(), **state})
    network = nn.Module()
    network.backbone = backbone
    learner = SimpleNamespace(network=network, total_steps=10, settings=SimpleNamespace(world_size=1))
    callback = ChannelPropagation(rate=gold["pr"].item(), decay=gold["decay"].item(), warmup=0.2, at=at)
    callback.on_fit_start(learner)
    callback.load_state_dict({**callback.state_dict(), "utility": gold["u_init"]})
    return gold, learner, callback


def take(gold: dict[str, Tensor], learner: SimpleNamespace, callback: ChannelPropagation, t: int) -> Tensor:
    backbone = learner.network.backbone.train()
    logits = backbone(gold[f"x{t}"])
    loss = F.cross_entropy(logits, gold[f"y{t}"])
    learner.optimizer.zero_grad()
    loss.backward()
    learner.optimizer.step()
    callback.on_step(learner, t + 1)
    same(loss.detach(), gold[f"loss{t}"])
    return logits.detach()


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_the_rule_alone() -> None:
    gold = golden("components", "dcpfn_")
    sizes = gold["channels"].diff().tolist()
    utility, mask = gold["u0"], gold["mask"]
    for t in range(2):
        taylor = [(gold[f"a{t}_{layer}"] * gold[f"g{t}_{layer}"]).sum((2, 3)).abs().mean(0) for layer in range(len(sizes))]
        utility = updated(utility, mask, taylor, decay=0.6)
        same(utility, gold[f"u{t + 1}"])


@pytest.mark.parametrize("name", list(NETS))
def test_five_steps_equal_the_released_code(name: str) -> None:
    gold, learner, callback = start(name)
    lr, momentum, decay = gold["lr_mom_wd"].tolist()
    learner.optimizer = torch.optim.SGD(learner.network.parameters(), lr=lr, momentum=momentum, weight_decay=decay)
    assert [0, *itertools.accumulate(len(layer.mask_C) for layer in callback.masks.values())] == gold["channels"].tolist()
    for t in range(5):
        same(torch.cat([layer.mask_C for layer in callback.masks.values()]), gold[f"mask{t}"])
        before = torch.where(gold[f"mask{t}"] > 0, callback.decay * callback.utility_N, callback.utility_N)
        same(take(gold, learner, callback, t), gold[f"logits{t}"])
        same(callback.utility_N, gold[f"u{t}"])
        same(callback.utility_N - before, gold[f"v{t}"])
    same(torch.cat([layer.mask_C for layer in callback.masks.values()]), gold["mask5"])
    backbone = learner.network.backbone.eval()
    same((backbone.fc if name == "res" else backbone.classifier).weight.detach(), gold["final_fc_w"])
    plain = callback.tested(learner.network).backbone
    assert not any(module._forward_hooks for module in plain.modules()) and gold["mask5"].min() == 0
    for network in (backbone, plain):  # masks are active in evaluation, and the plain network is the masked one
        same(network(gold["x4"]).detach(), gold["logits_eval"])


def test_the_state_goes_on() -> None:
    def make() -> tuple[dict[str, Tensor], SimpleNamespace, ChannelPropagation]:
        gold, learner, callback = start("res")
        learner.optimizer = torch.optim.SGD(learner.network.parameters(), lr=0.1)
        return gold, learner, callback

    gold, whole, callback = make()
    for t in range(3):
        take_any(gold, whole, callback, t)
    state, weights = copy.deepcopy(callback.state_dict()), copy.deepcopy(whole.network.state_dict())
    _, again, other = make()
    again.network.load_state_dict(weights)
    other.load_state_dict(state)
    for t in (3, 4):
        assert torch.equal(take_any(gold, whole, callback, t), take_any(gold, again, other, t))
    assert torch.equal(callback.utility_N, other.utility_N)


def take_any(gold: dict[str, Tensor], learner: SimpleNamespace, callback: ChannelPropagation, t: int) -> Tensor:
    return take({**gold, f"loss{t}": loss_of(gold, learner, t)}, learner, callback, t)


def loss_of(gold: dict[str, Tensor], learner: SimpleNamespace, t: int) -> Tensor:
    return F.cross_entropy(copy.deepcopy(learner.network.backbone)(gold[f"x{t}"]), gold[f"y{t}"]).detach()


def test_one_graph_gives_the_same_utilities() -> None:
    gold, learner, callback = start("res")
    _, other, compiled = start("res")
    forward = torch.compile(other.network.backbone, backend="aot_eager", fullgraph=True, dynamic=False)
    for backbone, one in ((learner.network.backbone, callback), (forward, compiled)):
        for t in range(4):
            backbone(gold[f"x{t}"]).square().mean().backward()
            one.on_step(learner, t + 1)
    torch.testing.assert_close(callback.utility_N, compiled.utility_N, rtol=1e-9, atol=1e-12)
    assert callback.utility_N.max() > 0


def test_no_layer_is_emptied_and_nothing_known_masks_nothing() -> None:
    first, second = masks_of(torch.tensor([0.1, 0.2, 3.0, 4.0, 5.0]), [2, 3], rate=0.5)
    assert first.tolist() == [0, 1] and second.tolist() == [0, 1, 1]
    assert torch.cat(masks_of(torch.zeros(6), [2, 4], rate=0.5)).tolist() == [1] * 6
    assert torch.cat(masks_of(torch.arange(16.0), [8, 8], rate=0.99)).nonzero()[:, 0].tolist() == [7, 15]  # round(N p) = N
    dead = updated(torch.ones(3), torch.ones(3), [torch.zeros(2), torch.tensor([torch.inf])], decay=0.5)
    assert dead.tolist() == [0.5] * 3


def test_of_vectors_it_is_the_product_and_the_share_kept_is_logged() -> None:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2)).double()
    learner = SimpleNamespace(network=SimpleNamespace(backbone=backbone), total_steps=4, settings=SimpleNamespace(world_size=1))
    callback, row = ChannelPropagation(rate=0.5, warmup=0.0), {}
    callback.on_fit_start(learner)
    x = torch.randn(7, 3, dtype=torch.float64)
    a = backbone[1](backbone[0](x)).detach().requires_grad_()
    (g,) = torch.autograd.grad(backbone[3](backbone[2](a)).square().mean(), a)
    backbone(x).square().mean().backward()
    callback.on_step(learner, 1)
    v_C = torch.stack([sum(abs(a[b, c].detach() * g[b, c]) for b in range(7)) for c in range(6)])
    same(callback.utility_N, v_C / v_C.max())
    callback.on_epoch_end(learner, row)
    assert row == {"channels/kept": pytest.approx(2 / 6)}


def test_a_layer_that_took_no_part_has_no_utility() -> None:
    assert ChannelMask(torch.ones(3)).take().tolist() == [0, 0, 0]


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="rate must be in"):
        ChannelPropagation(rate=1.0)
    with pytest.raises(ValueError, match="no batch norm matches 'layer9'"):
        ChannelPropagation(at=["layer9"]).on_fit_start(SimpleNamespace(network=SimpleNamespace(backbone=SmallVGG())))
