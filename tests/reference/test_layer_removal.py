"""Layer removal: distance correlation against a loop and its laws, and blocks that go from the exported network."""

import contextlib
from types import SimpleNamespace

import pytest
import torch

from attnlab.backbones.resnet import BasicBlock, resnet18
from attnlab.callbacks.layer_removal import LayerRemoval
from attnlab.network import Network
from attnlab.pruning.blocks import without_empty_blocks
from attnlab.pruning.distance_correlation import distance_correlation


def test_distance_correlation_is_the_loop() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(7, 3, dtype=torch.float64), torch.randn(7, 2, dtype=torch.float64)

    def centred(v: torch.Tensor) -> list[list[float]]:
        d = [[(v[i] - v[j]).norm().item() for j in range(7)] for i in range(7)]
        rows, whole = [sum(row) / 7 for row in d], sum(map(sum, d)) / 49
        return [[d[i][j] - rows[i] - rows[j] + whole for j in range(7)] for i in range(7)]

    a, b = centred(x), centred(y)
    dot = {name: sum(p[i][j] * q[i][j] for i in range(7) for j in range(7)) for name, p, q in (("ab", a, b), ("aa", a, a), ("bb", b, b))}
    expected = (dot["ab"] / (dot["aa"] * dot["bb"]) ** 0.5) ** 0.5
    assert distance_correlation(x, y).item() == pytest.approx(expected, rel=1e-10)


def test_its_laws() -> None:
    torch.manual_seed(0)
    x, turn = torch.randn(40, 3, dtype=torch.float64), torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    assert distance_correlation(x, 5 * x @ turn + 2).item() == pytest.approx(1)
    assert distance_correlation(x, torch.ones(40, 2)).item() == 0
    for seed in range(20):  # every pair of two values: independent, where rounding takes the sum of products to either side of 0
        a, b = torch.rand(2, 3, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        assert 0 <= distance_correlation(a[:2].repeat_interleave(3, 0), b.repeat(2, 1)).item() < 1e-5
    assert distance_correlation(x, x[:, :1].square()) > distance_correlation(x, torch.randn(40, 1)) > 0


def test_a_block_goes_and_stays_away(run) -> None:
    pytest.importorskip("torch_pruning")
    words = ["callback=layer_removal", "callback.layer_removal.num=32", "evaluator=[cost]", "evaluator.cost.export=channels"]
    found = run(*words, "evaluator.cost.repeats=1", "callback.layer_removal.blocks=2", "trainer.max_epochs=3")
    state = torch.load(found["folder"] / "last.ckpt", weights_only=True)
    removed = state["attnlab"]["states"]["callback.layer_removal"]["removed"]
    assert len(removed) == 2
    for name in removed:
        assert not state["state_dict"][f"network.backbone.{name}.bn2.weight"].any()
    metrics = found["metrics"]
    assert metrics["cost/exported/gap"] < 1e-4 and metrics["cost/exported/multiply_adds"] < metrics["cost/multiply_adds"]


def test_blocks_go_once_and_a_resumed_run_knows_which() -> None:
    torch.manual_seed(0)
    callback, network = LayerRemoval(blocks=1, prune=0.5), Network(resnet18(3, (1, 8, 8), width=4), shape=(1, 8, 8))
    learner = SimpleNamespace(network=network, current_epoch=0, settings=SimpleNamespace(max_epochs=4))
    callback.on_fit_start(learner)
    asked: list[int] = []
    callback.scores = lambda learner: asked.append(learner.current_epoch) or {name: i for i, name in enumerate(callback.candidates)}
    kept = []
    for learner.current_epoch in range(4):
        row: dict[str, float] = {}
        callback.on_epoch_end(learner, row)
        kept.append(row["blocks/kept"])
    first, num = next(iter(callback.candidates)), len(callback.candidates)
    assert asked == [1] and kept == [1.0, *[1 - 1 / num] * 3] and callback.removed == [first]
    again = LayerRemoval()
    again.on_fit_start(learner)
    again.load_state_dict(callback.state_dict())
    assert again.removed == [first]
    again.on_fit_start(learner)
    assert again.removed == []  # of a training before


def test_scores_are_of_the_network_as_it_is_tested() -> None:
    torch.manual_seed(0)
    callback, network = LayerRemoval(num=8), Network(resnet18(3, (1, 8, 8), width=4), shape=(1, 8, 8))
    batches = [(torch.randn(4, 1, 8, 8), None) for _ in range(2)]
    learner = SimpleNamespace(
        network=network, train_batches=lambda: batches, settings=SimpleNamespace(autocast=contextlib.nullcontext),
        trainer=SimpleNamespace(strategy=SimpleNamespace(broadcast=lambda value: value)),
    )  # fmt: skip
    callback.on_fit_start(learner)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        assert callback.scores(learner).keys() == callback.candidates.keys() and network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())  # no batch norm has counted


def test_only_blocks_that_add_nothing_are_left_out() -> None:
    network = resnet18(3, (1, 8, 8), width=4)
    for norm, left in ((network.layer1[0].bn2, 1), (network.layer1[1].bn2, 0)):
        torch.nn.init.zeros_(norm.bias)
        torch.nn.init.zeros_(norm.weight[left:])
    without_empty_blocks(network)
    assert isinstance(network.layer1[0], BasicBlock) and not isinstance(network.layer1[1], BasicBlock)


def test_what_is_refused(run) -> None:
    with pytest.raises(ValueError, match=r"there are \d, of which one must stay"):
        run("callback=layer_removal", "callback.layer_removal.blocks=9", "check=true")
    with pytest.raises(ValueError, match="blocks must be at least 1"):
        LayerRemoval(blocks=0)
