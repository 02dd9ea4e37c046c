"""Hardware-aware ranking: costs of channels by hand, the ranking, and costs that a resumed run keeps."""

from types import SimpleNamespace

import pytest
import torch

from attnlab.backbones.resnet import resnet18
from attnlab.callbacks.hardware_ranking import HardwareRanking
from attnlab.network import Network

SHAPE = (1, 16, 16)


def started(callback: HardwareRanking, *, processes: int = 1) -> tuple[HardwareRanking, Network]:
    torch.manual_seed(0)
    network = Network(resnet18(4, SHAPE, width=8), shape=SHAPE)
    strategy = SimpleNamespace(broadcast=lambda costs: dict.fromkeys(costs, 7.0))
    around = {"settings": SimpleNamespace(world_size=processes), "trainer": SimpleNamespace(strategy=strategy)}
    callback.on_fit_start(SimpleNamespace(network=network, total_steps=10, optimizer=True, **around))
    return callback, network


def test_multiply_adds_by_hand_rank_the_channels() -> None:
    callback, network = started(HardwareRanking(SHAPE, cost="multiply_adds", at=["layer*.*.bn1"], rate=0.5, prune=0.1, weight=0.0))
    by_hand = {"layer1.0.bn1": 9 * 8 * 256, "layer2.0.bn1": 9 * 8 * 64, "layer3.1.bn1": 9 * 32 * 16, "layer4.0.bn1": 9 * 32 * 4}
    assert {name: callback.costs[name] for name in by_hand} == by_hand and len(callback.costs) == 8
    assert network.training and not network.backbone.layer1[0].conv1._forward_hooks
    callback.on_step(SimpleNamespace(), 1)  # all scales are 1: the channels that cost most go first
    kept = {name: float(mask.mean()) for name, mask in callback.masks.masks.items()}
    assert kept["layer4.1.bn1"] == 1 and callback.masks.share() >= 0.5
    score = {name: 1 / cost for name, cost in callback.costs.items()}
    assert all(kept[cheap] >= kept[dear] for cheap in score for dear in score if score[cheap] > score[dear] and kept[dear] < 1)


def test_measured_costs_are_kept() -> None:
    callback, _ = started(HardwareRanking(SHAPE, batch=2, repeats=1, at=["layer1.*.bn1"]))
    assert all(cost > 0 for cost in callback.costs.values())
    state = {"masks": callback.masks.state_dict(), "costs": {name: 0.5 + i for i, name in enumerate(callback.costs)}}
    again, _ = started(HardwareRanking(SHAPE, batch=2, repeats=1, at=["layer1.*.bn1"]))
    again.load_state_dict(state)
    assert again.state_dict()["costs"] == state["costs"]
    assert torch.equal(again.scores()[1], again.scales[1].abs() / 1.5)
    shared, _ = started(HardwareRanking(SHAPE, batch=2, repeats=1, at=["layer1.*.bn1"]), processes=2)
    assert set(shared.costs.values()) == {7.0}  # the first process's, or their masks would differ
    with pytest.raises(ValueError, match="batch and repeats"):
        HardwareRanking(SHAPE, batch=0)
