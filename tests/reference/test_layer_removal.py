"""Layer removal: distance correlation against a loop and its laws, and blocks that go from the exported network."""

import pytest
import torch

from attnlab.callbacks.layer_removal import LayerRemoval
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


def test_what_is_refused(run) -> None:
    with pytest.raises(ValueError, match=r"there are \d, of which one must stay"):
        run("callback=layer_removal", "callback.layer_removal.blocks=9", "check=true")
    with pytest.raises(ValueError, match="blocks must be at least 1"):
        LayerRemoval(blocks=0)
