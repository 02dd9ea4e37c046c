"""Core-biased initialisation: core numbers against NetworkX, an obvious loop, and where the means go."""

import networkx
import pytest
import torch
from torch import nn

from attnlab.initialisation.hcore import HCore, bias_of, core_numbers
from attnlab.network import Network


def test_with_weights_0_and_1_it_is_the_k_core() -> None:
    torch.manual_seed(0)
    for share in (0.2, 0.5, 0.8):
        edges = (torch.rand(9, 12) < share).float()
        graph = networkx.Graph()
        graph.add_nodes_from(range(21))
        graph.add_edges_from((o, 9 + i) for o in range(9) for i in range(12) if edges[o, i])
        expected = networkx.core_number(graph)
        assert torch.cat(core_numbers(edges)).tolist() == [expected[node] for node in range(21)]


def test_weighted_cores_are_the_loop() -> None:
    torch.manual_seed(0)
    weight = torch.rand(4, 5, dtype=torch.float64)
    left, level, expected = {*range(9)}, 0.0, {}
    while left:
        strength = {
            node: sum(weight[min(node, other), max(node, other) - 4].item() for other in left if (node < 4) != (other < 4)) for node in left
        }
        node = min(strength, key=strength.__getitem__)
        level = max(level, strength[node])
        expected[node] = level
        left.remove(node)
    assert torch.cat(core_numbers(weight)).tolist() == pytest.approx([expected[node] for node in range(9)])


def test_means_lean_as_the_trained_weights_do() -> None:
    torch.manual_seed(0)
    make = lambda: Network(nn.Sequential(nn.Conv2d(6, 40, 3), nn.Flatten(), nn.LazyLinear(3)), shape=(6, 4, 4))  # noqa: E731
    teacher, network = make(), make()
    with torch.no_grad():
        teacher.backbone[0].weight[:20] = teacher.backbone[0].weight[:20].abs()
        teacher.backbone[0].weight[20:] = -teacher.backbone[0].weight[20:].abs()
    lean = bias_of(teacher.backbone[0].weight)
    assert lean.shape == (40, 6) and lean[:20].mean() > 0.2 and lean[20:].mean() < -0.2 and lean.abs().max() <= 1
    HCore(shift=1.0)(network.backbone, teacher)
    sigma = (2 / 54) ** 0.5
    weight = network.backbone[0].weight / sigma
    assert weight[:20].mean().item() == pytest.approx(lean[:20].mean().item(), abs=0.1)
    assert weight.var().item() == pytest.approx(1 + lean.var().item(), rel=0.15) and (network.backbone[0].bias == 0).all()


def test_mistakes() -> None:
    one, other = (Network(nn.Sequential(nn.Linear(5, width), nn.Linear(width, 3)), shape=(5,)) for width in (4, 6))
    with pytest.raises(ValueError, match="there is none"):
        HCore()(one.backbone)
    with pytest.raises(ValueError, match=r"no 0\.weight of shape \(4, 5\)"):
        HCore()(one.backbone, other)
    with pytest.raises(ValueError, match="shift must be"):
        HCore(shift=-1)
