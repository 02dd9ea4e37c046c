"""Large-margin loss against the authors' numbers, an explicit loop over classes and pairs, and one process against two."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from attnlab.losses.large_margin import LargeMarginLoss
from attnlab.network import Output
from tests.commands import Forked
from tests.golden_numbers import golden

TERMS = ["ce", "compact", "margin", "norm"]


def linear(dim, num_classes, seed=0, bias=True):
    g = torch.Generator().manual_seed(seed)
    fc = nn.Linear(dim, num_classes, bias=bias).double()
    for p in fc.parameters():
        p.data = torch.randn(p.shape, dtype=torch.float64, generator=g)
    return fc


def loop(f_BD, y_B, fc, means, *, delta_var=0.5, delta_dist=1.5, alpha=1.0, beta=1.0, gamma=0.001, momentum=0.99, weight=1.0):
    """The formulas class by class, pair by pair. `means`: {class: stored mean}, updated."""
    classes = sorted(set(y_B.tolist()))
    compact = margin = norm = 0.0
    for c in classes:
        f_ND = f_BD[[i for i, label in enumerate(y_B.tolist()) if label == c]]
        current = f_ND.sum(0) / len(f_ND)
        mean = momentum * means[c] + (1 - momentum) * current if c in means else current
        means[c] = mean.detach()
        compact = compact + sum(((f - mean).norm() - delta_var).clamp(min=0) ** 2 for f in f_ND) / len(f_ND)
        z = fc(current)
        hinges = [(delta_dist + (z[i] - z[c]) / (fc.weight[c] - fc.weight[i]).norm()).clamp(min=0) for i in range(len(z)) if i != c]
        margin = margin + max(hinges)
        norm = norm + mean.norm()
    n = len(classes)
    ce = nn.functional.cross_entropy(fc(f_BD), y_B)
    return {"ce": ce, "compact": weight * alpha * compact / n, "margin": weight * beta * margin / n, "norm": weight * gamma * norm / n}


def grads(terms, *leaves):
    return torch.autograd.grad(sum(terms.values()), leaves)


def test_the_authors_numbers():
    gold = golden("core", "ml_")
    loss = LargeMarginLoss(10, 30, delta_dist=6.0).double()
    fc = nn.Linear(30, 10).double()
    fc.weight.data, fc.bias.data = gold["w"], gold["b"]
    for t in range(3):  # batch 1 lacks classes 7 to 9
        f_BD = gold[f"x{t}"].requires_grad_()
        terms = loss(Output(fc(f_BD).detach(), f_BD, fc), gold[f"y{t}"])
        del terms["ce"]
        grad_f, grad_w = grads(terms, f_BD, fc.weight)
        torch.testing.assert_close(sum(terms.values()).detach(), gold[f"loss{t}"], rtol=1e-13, atol=0)
        torch.testing.assert_close(grad_f, gold[f"gx{t}"], rtol=1e-11, atol=1e-14)
        torch.testing.assert_close(grad_w, gold[f"gw{t}"], rtol=1e-11, atol=1e-14)
        torch.testing.assert_close(loss.means, gold[f"means{t}"], rtol=1e-13, atol=1e-14)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    num_classes=st.integers(2, 6),
    momentum=st.sampled_from([0.0, 0.5, 0.99, 1.0]),
    delta_var=st.sampled_from([0.0, 0.5, 2.0]),
    delta_dist=st.sampled_from([0.0, 1.5, 6.0]),
    weight=st.sampled_from([0.0, 0.3, 1.0]),
    bias=st.booleans(),
)
def test_equals_the_loop_over_three_batches(seed, num_classes, momentum, delta_var, delta_dist, weight, bias):
    options = dict(delta_var=delta_var, delta_dist=delta_dist, alpha=0.7, beta=1.3, gamma=0.01, momentum=momentum, weight=weight)
    loss, fc, means = LargeMarginLoss(num_classes, 4, **options).double(), linear(4, num_classes, seed, bias), {}
    g = torch.Generator().manual_seed(seed)
    for _ in range(3):
        f_BD = torch.randn(7, 4, dtype=torch.float64, generator=g).mul_(2).requires_grad_()
        y_B = torch.randint(num_classes, (7,), generator=g)
        terms, expected = loss(Output(fc(f_BD), f_BD, fc), y_B), loop(f_BD, y_B, fc, means, **options)
        assert list(terms) == TERMS and all(t.shape == () for t in terms.values())
        for name in TERMS:
            torch.testing.assert_close(terms[name], expected[name], rtol=1e-11, atol=1e-12)
        for ours, theirs in zip(grads(terms, f_BD, *fc.parameters()), grads(expected, f_BD, *fc.parameters())):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
        assert loss.seen.tolist() == [c in means for c in range(num_classes)]
        for c, mean in means.items():
            torch.testing.assert_close(loss.means[c], mean)


def test_two_classes_by_hand():
    # w_0 = (1, 0), w_1 = (-1, 0), no bias: the boundary is x = 0 and the signed distance of a mean is its x, up to sign.
    fc = nn.Linear(2, 2, bias=False).double()
    fc.weight.data = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    f_BD = torch.tensor([[1.0, 2.0], [1.0, -2.0], [-3.0, 0.0]], dtype=torch.float64)
    terms = LargeMarginLoss(2, 2, delta_var=0.5, delta_dist=1.5).double()(Output(fc(f_BD), f_BD, fc), torch.tensor([0, 0, 1]))
    assert terms["compact"].item() == pytest.approx(((2 - 0.5) ** 2 + 0) / 2)
    assert terms["margin"].item() == pytest.approx(((1.5 - 1) + 0) / 2)  # class 1 is 3 > 1.5 away
    assert terms["norm"].item() == pytest.approx(0.001 * (1 + 3) / 2)


def test_the_mean_passes_one_minus_momentum_of_the_gradient():
    fc, y_B = linear(3, 2), torch.tensor([0, 0, 1])
    loss = LargeMarginLoss(2, 3, momentum=0.99, alpha=0.0, beta=0.0, gamma=1.0).double()
    f_BD = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for scale in (1.0, 0.01):  # the first time seen, the mean is the batch's
        (grad,) = torch.autograd.grad(loss(Output(fc(f_BD), f_BD, fc), y_B)["norm"], f_BD)
        direction_KD = loss.means / loss.means.norm(dim=1, keepdim=True)
        torch.testing.assert_close(grad, scale * direction_KD[y_B] / torch.tensor([[2.0], [2.0], [1.0]]) / 2)


def test_eval_reads_the_means_and_leaves_them():
    fc, loss = linear(4, 3), LargeMarginLoss(3, 4).double()
    g = torch.Generator().manual_seed(1)
    first, second = (torch.randn(9, 4, dtype=torch.float64, generator=g) for _ in range(2))
    y_B = torch.arange(9) % 3
    loss(Output(fc(first), first, fc), y_B)
    kept = {k: v.clone() for k, v in loss.state_dict().items()}
    in_eval = loss.eval()(Output(fc(second), second, fc), y_B)
    assert all(torch.equal(v, kept[k]) for k, v in loss.state_dict().items())
    again = LargeMarginLoss(3, 4).double()  # a resumed run
    again.load_state_dict(kept)
    in_train = again(Output(fc(second), second, fc), y_B)
    assert all(torch.equal(in_train[name], in_eval[name]) for name in TERMS)


@pytest.mark.parametrize(
    "case", ["features on their mean", "zero final weight", "two equal rows", "features at 0", "all means at 0, none seen"]
)
def test_gradients_stay_finite(case):
    fc, y_B = linear(4, 3), torch.tensor([0, 0, 1, 1])  # class 2 is absent
    f_BD = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    if case == "features on their mean":
        f_BD[1], f_BD[3] = f_BD[0], f_BD[2]
    elif case == "zero final weight":
        fc.weight.data.zero_()
    elif case == "two equal rows":
        fc.weight.data[1] = fc.weight.data[0]
    elif case == "features at 0":
        f_BD.zero_()
    else:
        f_BD[1], f_BD[3] = -f_BD[0], -f_BD[2]
    f_BD.requires_grad_()
    loss = LargeMarginLoss(3, 4, delta_var=0.0, delta_dist=20.0).double()
    for _ in range(2):
        terms = loss(Output(fc(f_BD), f_BD, fc), y_B)
        assert all(t.isfinite() for t in terms.values())
        assert all(g.isfinite().all() for g in grads(terms, f_BD, *fc.parameters()))
    if case == "two equal rows":  # no boundary between 0 and 1: the only rival of both is 2
        z_KK = fc(torch.stack([f_BD[:2].mean(0), f_BD[2:].mean(0)]))
        gap = (fc.weight[0] - fc.weight[2]).norm()
        expected = sum((20 + (z[2] - z[c]) / gap).clamp(min=0) for c, z in enumerate(z_KK)) / 2
        torch.testing.assert_close(terms["margin"], expected)


def test_autocast_computes_in_fp32():
    fc, y_B = linear(8, 4).float(), torch.arange(16) % 4
    f_BD = torch.randn(16, 8, generator=torch.Generator().manual_seed(3)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = fc(f_BD)
        terms = LargeMarginLoss(4, 8)(Output(logits, f_BD, fc), y_B)
    assert logits.dtype == torch.bfloat16 and all(t.dtype == torch.float32 for t in terms.values())
    exact = LargeMarginLoss(4, 8).double()(Output(logits.double(), f_BD.double(), fc.double()), y_B)
    for name in TERMS:
        torch.testing.assert_close(terms[name].double(), exact[name], rtol=1e-5, atol=1e-6)


def test_traces_in_one_graph_with_its_buffers():
    fc = linear(4, 3)
    eager, traced = LargeMarginLoss(3, 4).double(), LargeMarginLoss(3, 4).double()

    @torch.compile(fullgraph=True, backend="aot_eager")
    def compiled(f_BD, y_B):
        return traced(Output(fc(f_BD), f_BD, fc), y_B)

    g = torch.Generator().manual_seed(4)
    for labels in (2, 3):  # class 2 comes with the second batch
        f_BD, y_B = torch.randn(6, 4, dtype=torch.float64, generator=g).requires_grad_(), torch.arange(6) % labels
        expected, terms = eager(Output(fc(f_BD), f_BD, fc), y_B), compiled(f_BD, y_B)
        for name in TERMS:
            torch.testing.assert_close(terms[name], expected[name])
        torch.testing.assert_close(grads(terms, f_BD, *fc.parameters()), grads(expected, f_BD, *fc.parameters()))
        torch.testing.assert_close(traced.means, eager.means)
        assert torch.equal(traced.seen, eager.seen)


@pytest.mark.parametrize(
    "options, message", [({"momentum": 1.5}, "momentum"), ({"delta_var": -1}, "delta_var"), ({"weight": float("nan")}, "weight")]
)
def test_values_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        LargeMarginLoss(10, 30, **options)


def test_wrong_labels_or_width():
    fc, f_BD, y_B = linear(4, 3), torch.zeros(2, 4).double(), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="mixup"):
        LargeMarginLoss(3, 4).double()(Output(fc(f_BD), f_BD, fc), torch.eye(3)[:2])
    with pytest.raises(ValueError, match="built for 5 features"):
        LargeMarginLoss(3, 5).double()(Output(fc(f_BD), f_BD, fc), y_B)


# --- several ranks: run as a script, this file is one of them -------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk, self.fc = linear(5, 4, seed=7), linear(4, 3, seed=8)

    def forward(self, x):
        f_BD = self.trunk(x).tanh() * 3
        return self.fc(f_BD), f_BD


def two_steps(batches, *, average=False):
    net, loss, record = Net(), LargeMarginLoss(3, 4, delta_dist=3.0).double(), []
    for x, y_B in batches:
        net.zero_grad()
        logits, f_BD = net(x)
        terms = loss(Output(logits, f_BD, net.fc), y_B)
        sum(terms.values()).backward()
        for p in net.parameters() if average else ():  # what DDP does
            torch.distributed.all_reduce(p.grad)
            p.grad /= torch.distributed.get_world_size()
        record.append({"grads": [p.grad.clone() for p in net.parameters()], "terms": {k: v.detach() for k, v in terms.items()}})
    return {"record": record, "means": loss.means, "seen": loss.seen}


def batches():
    """Two batches of 8; its halves, one a rank, hold different classes, and class 2 comes with the second batch, on one rank only."""
    g = torch.Generator().manual_seed(5)
    labels = [[0, 0, 0, 1, 1, 1, 1, 1], [0, 1, 0, 0, 1, 2, 2, 1]]
    return [(torch.randn(8, 5, dtype=torch.float64, generator=g), torch.tensor(y)) for y in labels]


def rank_main(rank, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    part = slice(4 * rank, 4 * rank + 4)
    result = two_steps([(x[part], y[part]) for x, y in batches()], average=True)
    torch.save(result, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="needs torch.distributed")
def test_two_ranks_equal_one_process(tmp_path):
    ranks = [Forked(lambda rank=rank: rank_main(rank, tmp_path)) for rank in (0, 1)]
    for process in ranks:
        error = process.communicate(timeout=120)[1]
        assert process.returncode == 0, error[-2000:]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    whole = two_steps(batches())
    for buffer in ("means", "seen"):
        assert torch.equal(first[buffer], second[buffer])
        torch.testing.assert_close(first[buffer], whole[buffer])
    for a, b, expected in zip(first["record"], second["record"], whole["record"]):
        for name in TERMS:
            torch.testing.assert_close((a["terms"][name] + b["terms"][name]) / 2, expected["terms"][name])
        for grad_a, grad_b, grad in zip(a["grads"], b["grads"], expected["grads"]):
            assert torch.equal(grad_a, grad_b)
            torch.testing.assert_close(grad_a, grad, rtol=1e-9, atol=1e-11)
