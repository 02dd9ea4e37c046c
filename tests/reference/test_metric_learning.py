"""ArcFace, CosFace and SupCon against loops in Python's floats and pytorch-metric-learning's own losses; proxies learn and resume."""

import importlib.util
import math

import pytest
import torch
from torch import Tensor, nn

from attnlab.config.compose import compose
from attnlab.losses.metric_learning import ProxyMargin
from attnlab.losses.supcon import SupCon
from attnlab.network import Output
from attnlab.pipeline.factory import make_data, make_learner
from tests.conftest import TINY

pytest.importorskip("pytorch_metric_learning", reason="the extra `metric`")
K, D = 4, 5


def batch(B: int = 9) -> tuple[Output, Tensor]:
    torch.manual_seed(0)
    fc, features = nn.Linear(D, K).double(), torch.randn(B, D, dtype=torch.float64, requires_grad=True)
    return Output(fc(features), features, fc), torch.randint(0, K, (B,))


def cos(a: list[float], b: list[float]) -> float:
    return sum(p * q for p, q in zip(a, b)) / math.sqrt(sum(p * p for p in a)) / math.sqrt(sum(q * q for q in b))


@pytest.mark.parametrize(("kind", "margin"), [("arcface", 0.5), ("arcface", 2.5), ("cosface", 0.35)])
def test_margins_are_the_loops_and_the_librarys(kind: str, margin: float) -> None:
    out, y = batch()
    loss = ProxyMargin(K, D, kind=kind, margin=margin, scale=7.0, weight=0.5).double()
    terms = loss(out, y)
    total = 0.0
    proxies = loss.margins.W.T.tolist()
    for f, label in zip(out.features.tolist(), y.tolist()):
        c = [cos(f, w) for w in proxies]
        if kind == "cosface":
            c[label] -= margin
        else:
            angle = math.acos(c[label])
            c[label] = math.cos(angle + margin) if angle <= math.pi - margin else c[label] - margin * math.sin(margin)
        total += math.log(sum(math.exp(7 * v) for v in c)) - 7 * c[label]
    assert terms["metric"].item() == pytest.approx(0.5 * total / len(y), rel=1e-9)
    assert terms["metric"].item() == pytest.approx(0.5 * loss.margins(out.features, y).item(), rel=1e-6)
    ce = nn.functional.cross_entropy(out.logits, y)
    torch.testing.assert_close(terms["ce"], ce)
    found = torch.autograd.grad(sum(terms.values()), out.features)[0]
    torch.testing.assert_close(found, torch.autograd.grad(loss(out, y)["metric"], out.features)[0])  # the probe leaves them alone


def test_the_papers_margins() -> None:
    assert ProxyMargin(K, D).margins.margin == pytest.approx(0.5) and ProxyMargin(K, D, kind="cosface").margins.margin == 0.35


def test_supcon_is_the_loop_and_the_librarys() -> None:
    from pytorch_metric_learning.losses import SupConLoss

    out, y = batch()
    y[0] = K + 3  # alone of its class: no positive
    found = SupCon(K, D, temperature=0.3).double()(out._replace(fc=nn.Linear(D, K + 4).double()), y)["supcon"]
    f, total, num = out.features.tolist(), 0.0, 0
    for i in range(len(y)):
        others = [math.exp(cos(f[i], f[a]) / 0.3) for a in range(len(y)) if a != i]
        positives = [j for j in range(len(y)) if j != i and y[j] == y[i]]
        num += bool(positives)
        total -= sum(cos(f[i], f[j]) / 0.3 - math.log(sum(others)) for j in positives) / max(len(positives), 1)
    assert num < len(y) and found.item() == pytest.approx(total / num, rel=1e-9)
    assert found.item() == pytest.approx(SupConLoss(temperature=0.3)(out.features, y).item(), rel=1e-6)


@pytest.mark.parametrize("make", [lambda: ProxyMargin(K, D), lambda: ProxyMargin(K, D, kind="cosface"), lambda: SupCon(K, D)])
def test_traces_and_takes_half_precision(make) -> None:
    loss, (out, y) = make(), batch()
    half = out._replace(features=out.features.detach().bfloat16(), fc=out.fc.bfloat16())
    assert all(value.dtype == torch.float32 and value.isfinite() for value in loss(half, y).values())
    single = out._replace(features=out.features.detach().float(), fc=out.fc.float())
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    for name, value in compiled(single, y).items():
        torch.testing.assert_close(value, loss(single, y)[name])


@pytest.mark.parametrize("make", [lambda: ProxyMargin(K, D), lambda: SupCon(K, D)])
def test_in_full_precision_inside_autocast(make) -> None:
    loss, (out, y) = make(), batch()
    single = out._replace(features=out.features.detach().float(), fc=out.fc.float())
    expected = next(iter(loss(single, y).values()))
    with torch.autocast("cpu", dtype=torch.float16):  # its own, were it to turn one on, would be bf16
        assert torch.equal(next(iter(loss(single, y).values())), expected)


def test_proxies_learn_and_are_in_the_checkpoint() -> None:
    plan = compose([*TINY, "loss=arcface", "optimizer.lr=0.01"])
    data = make_data(plan)
    learner = make_learner(plan, data)
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    assert "loss.margins.W" in before
    learner.train()
    learner.configure_optimizers()
    learner.prepare()
    x, y = next(iter(data.train_loader("cpu")))
    from attnlab.training.epoch import Batch

    learner.step(Batch(x, y), learner.totals)
    after = learner.state_dict()
    for name in ("loss.margins.W", "network.backbone.fc.weight", "network.backbone.stem.conv.weight"):
        assert not torch.equal(after[name], before[name])
    assert learner.totals.names == ("metric", "ce")


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    out, y = batch()
    for options, match in (
        ({"kind": "sphere"}, "kind must be"),
        ({"margin": -1.0}, "margin must be"),
        ({"margin": 3.2}, "below pi"),
        ({"scale": 0.0}, "scale must be above 0"),
    ):
        with pytest.raises(ValueError, match=match):
            ProxyMargin(K, D, **options)
    with pytest.raises(ValueError, match="temperature must be above 0"):
        SupCon(K, D, temperature=0.0)
    for loss in (ProxyMargin(K, D), SupCon(K, D)):
        with pytest.raises(ValueError, match="does not go with mixup"):
            loss(out, nn.functional.one_hot(y, K).float())
        with pytest.raises(ValueError, match="no place `features`"):
            loss(out._replace(features=None), y)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'pip install -e "\.\[metric\]"'):
        ProxyMargin(K, D)
