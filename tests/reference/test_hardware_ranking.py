"""Hardware-aware ranking: costs of channels by hand, the ranking, and costs that a resumed run keeps."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from attnlab.backbones.resnet import resnet18
from attnlab.callbacks import hardware_ranking
from attnlab.callbacks.hardware_ranking import HardwareRanking
from attnlab.network import Network
from attnlab.pruning import latency

SHAPE = (1, 16, 16)
FIRST: dict[str, float] = {}  # what the first process of ddp measured, where it is not this one
RUN = ["evaluator=none", "callback=hardware_ranking", "callback.hardware_ranking.batch=1", "callback.hardware_ranking.repeats=1"]


def started(callback: HardwareRanking) -> tuple[HardwareRanking, Network]:
    torch.manual_seed(0)
    network = Network(resnet18(4, SHAPE, width=8), shape=SHAPE)
    first = SimpleNamespace(strategy=SimpleNamespace(broadcast=lambda costs: {name: FIRST.get(name, cost) for name, cost in costs.items()}))
    settings = SimpleNamespace(world_size=2 if FIRST else 1)
    callback.on_fit_start(SimpleNamespace(network=network, total_steps=10, optimizer=True, settings=settings, trainer=first))
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


def test_dear_layers_lose_channels_and_no_layer_is_kept_whole_for_being_dear() -> None:
    for rate, share in ((0.5, 0.5), (0.7, 0.3), (0.95, 0.25)):
        callback, _ = started(HardwareRanking(SHAPE, cost="multiply_adds", rate=rate, prune=0.1, weight=0.0))
        with torch.no_grad():
            for n, scale in enumerate(callback.scales):
                scale.copy_(torch.rand(len(scale), generator=torch.Generator().manual_seed(n)) + 0.5)
        importance = {name: norm.weight.detach().clone() for name, norm in callback.masks.norms.items()}
        callback.on_step(SimpleNamespace(), 1)
        kept = {name: mask_C.bool() for name, mask_C in callback.masks.masks.items()}
        assert float(callback.masks.share()) == pytest.approx(share, abs=0.01)
        assert all(float(mask_C.float().mean()) >= 0.25 for mask_C in kept.values()) and float(kept["layer1.0.bn1"].float().mean()) == 0.25
        for name, mask_C in kept.items():  # within a layer by importance alone
            assert mask_C.all() or importance[name][mask_C].min() > importance[name][~mask_C].max()
    with pytest.raises(ValueError, match=r"keep must be in \[0, 1\], got 1\.5"):
        HardwareRanking(SHAPE, keep=1.5)


def test_measured_costs_are_kept() -> None:
    callback, _ = started(HardwareRanking(SHAPE, batch=2, repeats=1, at=["layer1.*.bn1"]))
    assert all(cost > 0 for cost in callback.costs.values())
    state = {"masks": callback.masks.state_dict(), "costs": {name: 0.5 + i for i, name in enumerate(callback.costs)}}
    again, _ = started(HardwareRanking(SHAPE, batch=2, repeats=1, at=["layer1.*.bn1"]))
    again.load_state_dict(state)
    assert again.state_dict()["costs"] == state["costs"]
    score_C = again.scores()[1]
    assert score_C.isinf().sum() == 2 and torch.equal(score_C[~score_C.isinf()], (again.scales[1].abs() / 1.5)[~score_C.isinf()])
    with pytest.raises(ValueError, match="batch and repeats"):
        HardwareRanking(SHAPE, batch=0)
    for wrong in ({"costs": [1.0, 0.0]}, {"costs": []}, {"costs": [1.0], "cost": "multiply_adds"}):
        with pytest.raises(ValueError, match="costs are latencies, above 0"):
            HardwareRanking(SHAPE, **wrong)
    with pytest.raises(ValueError, match=r"hardware_ranking\.costs: 1 numbers for 2 batch norms"):
        started(HardwareRanking(SHAPE, costs=[1.0], at=["layer1.*.bn1"]))


def test_processes_rank_by_what_the_first_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FIRST, "layer1.0.bn1", 0.25)
    callback, _ = started(HardwareRanking(SHAPE, batch=1, repeats=1, at=["layer1.*.bn1"]))
    assert callback.costs["layer1.0.bn1"] == 0.25 == callback.measured()["costs"][0]


def test_costs_that_are_given_are_not_measured() -> None:
    callback, _ = started(HardwareRanking(SHAPE, costs=[2.0, 3.0], at=["layer1.*.bn1"]))
    assert callback.costs == {"layer1.0.bn1": 2.0, "layer1.1.bn1": 3.0} and callback.measured() == {}
    assert HardwareRanking(SHAPE, cost="multiply_adds").measured() == {}


def test_a_run_that_measured_says_so_and_is_repeated_by_what_it_states(run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Channels that cost the less the later they come, then the more: other ones go, until the first run's costs are given."""
    costs = iter(range(1, 1000))
    monkeypatch.setattr(hardware_ranking, "channel_latency", lambda *given: 1.0 / next(costs) ** 4)
    first = run(*RUN)
    (key,) = first["measured"]
    assert key == "callback.hardware_ranking.costs" and first["measured"][key] == [1.0 / i**4 for i in range(1, 21)]
    (warning,) = [text for text in first["warnings"] if text.startswith("measured on this machine: callback.hardware_ranking.costs")]
    monkeypatch.setattr(hardware_ranking, "channel_latency", lambda *given: float(next(costs)) ** 4)
    other = run(*RUN, "force=true")
    assert other["metrics"] != first["metrics"] and warning in other["warnings"]
    again = run(*RUN, f"{key}={first['measured'][key]}")
    assert again["metrics"] == first["metrics"] and "measured" not in again
    assert not any("measured" in text for text in again.get("warnings", []))


def test_an_output_channel_costs_what_half_of_them_add(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock by which a pass takes 2 s and 3 s an output channel."""
    x, passes = torch.zeros(1, 4, 3, 3), []
    assert latency.latency(passes.append, x, 3) > 0 and len(passes) == 5  # two to warm up
    monkeypatch.setattr(latency, "latency", lambda conv, x, repeats: 2.0 + 3.0 * conv.out_channels)
    assert latency.channel_latency(nn.Conv2d(4, 6, 1), x, 1) == latency.channel_latency(nn.Conv2d(4, 7, 1), x, 1) == 3.0
    assert latency.channel_latency(nn.Conv2d(4, 1, 1), x, 1) == 5.0  # half of one is none: its share of the whole
    assert latency.channel_latency(nn.Conv2d(4, 4, 1, groups=2), x, 1) == 14.0 / 4
    monkeypatch.setattr(latency, "latency", lambda conv, x, repeats: 1.0 / conv.out_channels)
    assert latency.channel_latency(nn.Conv2d(4, 6, 1), x, 1) == 1e-12
