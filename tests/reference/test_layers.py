"""Layers: the five quantities against NumPy on a network whose maps are known, their first, last and worst, and what is planted."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from attnlab.data.images import ImageSet
from attnlab.evaluation.layers import Layers, Moments
from attnlab.network import Network


def trained(backbone: nn.Module, x: torch.Tensor, folder: Path) -> SimpleNamespace:
    """As much of a trained network as is asked of one here; images are their own normalised values."""
    network = Network(backbone, shape=tuple(x.shape[1:])).eval()
    data = SimpleNamespace(eval_batch_size=7, normalise=lambda images: images)
    images = ImageSet(x, torch.zeros(len(x), dtype=torch.long))

    def extract(batches):
        with torch.no_grad():
            return [network(x) for x, _ in batches]

    return SimpleNamespace(
        network=network,
        data=data,
        settings=SimpleNamespace(device=torch.device("cpu")),
        seed=0,
        choice=lambda split, num, seed: (torch.arange(len(x)), images),
        extract=extract,
        picture=lambda name, kind: folder / name,
    )


def slow(before: np.ndarray, after: np.ndarray) -> dict[str, float]:
    rows = np.moveaxis(after, 1, -1).reshape(-1, after.shape[1])
    values = np.linalg.eigvalsh(np.cov(rows.T, bias=True)).clip(0)
    share = np.sqrt(values) / np.sqrt(values).sum()
    dead = [c for c in range(before.shape[1]) if not (before[:, c] > 0).any()]
    return {
        "mean": before.mean(),
        "var": before.var(),
        "dead": len(dead) / before.shape[1],
        "rank_share": np.exp(-sum(s * np.log(s) for s in share if s > 0)) / len(values),
        "log_condition": min(12.0, np.log10(values.max() / max(values.min(), 1e-300))),
    }


def test_equals_numpy(tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(2, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.LeakyReLU(0.1), nn.Flatten()).double()
    nn.init.constant_(backbone[0].bias[1:2], -100.0)  # a dead channel
    x = torch.randn(20, 2, 7, 6, dtype=torch.float64)
    found = Layers().run(trained(backbone, x, tmp_path))
    z1 = backbone[0](x).detach()
    z2 = backbone[2](z1.relu()).detach()
    first, last = slow(z1.numpy(), z1.relu().numpy()), slow(z2.numpy(), nn.functional.leaky_relu(z2, 0.1).numpy())
    assert found["layers/count"] == 2 and found["layers/dead/first"] == 0.2 and found["layers/log_condition/first"] == 12
    for quantity in first:
        assert found[f"layers/{quantity}/first"] == pytest.approx(first[quantity], rel=1e-8), quantity
        assert found[f"layers/{quantity}/last"] == pytest.approx(last[quantity], rel=1e-8), quantity
    assert found["layers/mean/worst"] == found["layers/mean/first"] and found["layers/rank_share/worst"] == found["layers/rank_share/first"]
    assert (tmp_path / "layers.png").stat().st_size > 1000


def test_equal_units_have_rank_one() -> None:
    moments, column = Moments(), torch.randn(50, 1)
    for part in (column * torch.tensor([[1.0, 2.0, -3.0]])).split(20):
        moments.add(part, part)
    assert moments.found()["rank_share"] == pytest.approx(1 / 3, abs=1e-5) and moments.found()["log_condition"] > 10


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="num must be at least 2"):
        Layers(num=1)
    with pytest.raises(ValueError, match="the network has none"):
        Layers().run(trained(nn.Flatten(), torch.randn(2, 1, 2, 2), tmp_path))
