"""Probability guided maxout against the authors' numbers and a loop over samples, in fp64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from attnlab.network import Network
from attnlab.regularizers.pgm import ProbabilityGuidedMaxout, smallest
from tests.golden_numbers import golden


def make(weight: Tensor, bias: Tensor | None = None, **options) -> ProbabilityGuidedMaxout:
    host = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
    host.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
    return ProbabilityGuidedMaxout((weight.shape[1],), host=host, **options)


def test_equals_the_authors_code() -> None:
    gold = golden("components", "pgm_")
    module = make(gold["fc_w"], gold["fc_b"])
    module.scale.data.copy_(gold["scale"])
    x = gold["x"].requires_grad_()
    logits = module(x, gold["y"])
    torch.testing.assert_close(logits, gold["logits"], rtol=1e-9, atol=1e-12)
    assert module.kept.item() == pytest.approx(gold["keep"].mean().item(), rel=1e-12)
    assert torch.equal(smallest(gold["x"], gold["keep"]), gold["mask"].bool())
    q = nn.functional.linear(gold["x"], gold["fc_w"], gold["fc_b"]).softmax(1).gather(1, gold["y"][:, None])[:, 0]
    torch.testing.assert_close(q, gold["q"], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(1 - module.drop * q, gold["keep"], rtol=1e-9, atol=1e-12)
    kept = gold["x"] * smallest(gold["x"], gold["keep"]) * (gold["scale"] / gold["keep"][:, None])
    torch.testing.assert_close(kept, gold["feat_out"], rtol=1e-9, atol=1e-12)
    loss = nn.functional.cross_entropy(logits, gold["y"])
    assert loss.item() == pytest.approx(gold["loss"].item(), rel=1e-12)
    loss.backward()
    for found, key in ((x, "gx"), (module.scale, "gscale"), (module.weight, "gfc_w"), (module.bias, "gfc_b")):
        torch.testing.assert_close(found.grad, gold[key], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(module.eval()(gold["x"], gold["y"]), gold["logits_eval"], rtol=1e-9, atol=1e-12)


def slow(x: Tensor, q: Tensor, drop: float) -> Tensor:
    y = torch.zeros_like(x)
    for row, (values, sure) in enumerate(zip(x.tolist(), q.tolist())):
        keep = 1 - drop * sure
        for feature in sorted(range(len(values)), key=lambda f: values[f])[: round(len(values) * keep)]:
            y[row, feature] = values[feature] / keep
    return y


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 12), drop=st.floats(0, 1), coarse=st.booleans())
def test_equals_the_loop(seed: int, size: int, drop: float, coarse: bool) -> None:
    torch.manual_seed(seed)
    x = torch.randn(5, size, dtype=torch.float64)
    x = x.round() if coarse else x  # with ties
    module = make(torch.randn(3, size, dtype=torch.float64), drop=drop)
    y = torch.arange(5) % 3
    q = (x @ module.weight.detach().T).softmax(1)[torch.arange(5), y]
    torch.testing.assert_close(module(x, y), nn.functional.linear(slow(x, q, drop), module.weight))


def test_hand_made() -> None:
    """A sure image loses half of its features, the largest; the rest counts twice. An image without a class loses none."""
    module = make(torch.tensor([[1000.0] * 4, [0.0] * 4]))
    x = torch.tensor([[4.0, 1, 3, 2]])
    for label, expected in ((0, (1 + 2) * 2), (1, 10), (-1, 10)):
        assert module(x, torch.tensor([label]))[0, 0] == 1000 * expected
    assert module(x)[0, 0] == 10000
    module.drop = 1.0  # of a sure image nothing is left: 0, and no gradient but that of the bias
    y = module(x.requires_grad_(), torch.tensor([0]))
    y.sum().backward()
    assert not y.any() and not x.grad.any() and not module.scale.grad.any()
    assert module.eval()(x, torch.tensor([0]))[0, 0] == 10000


def test_stands_in_the_place_of_the_last_linear_with_its_weights() -> None:
    torch.manual_seed(0)
    backbone = nn.Sequential()
    backbone.add_module("features", nn.Identity())
    backbone.add_module("fc", nn.Linear(6, 3))
    names, weight = list(backbone.state_dict()), backbone.fc.weight
    network = Network(backbone, {"pgm": {"at": "fc", "how": "replace", "module": ProbabilityGuidedMaxout}}, shape=(6,))
    assert network.backbone.fc.weight is weight
    assert set(backbone.state_dict()) == {*names, "fc.scale"}
    x, y = torch.randn(4, 6), torch.tensor([0, 1, 2, 0])
    out = network(x, y)
    assert torch.equal(out.features, x) and isinstance(out.fc, nn.Linear)
    assert not torch.equal(out.logits, network(x).logits) and set(network.statistics()) == {"pgm@fc/kept", "pgm@fc/scale"}
    twice = out.fc.forward(torch.cat([x, x]), y)  # copies have their originals' labels
    torch.testing.assert_close(twice, torch.cat([out.logits, out.logits]))
    soft = nn.functional.one_hot(y, 3).float()
    assert torch.equal(network(x, soft).logits, out.logits)


def test_traces_and_keeps_half_precision() -> None:
    torch.manual_seed(0)
    module = make(torch.randn(5, 16))
    x, y = torch.randn(8, 16), torch.arange(8) % 5
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x, y), module(x, y))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert module(x, y).dtype == torch.bfloat16 and module.kept.dtype == torch.float32


def test_wrong_values() -> None:
    with pytest.raises(ValueError, match=r"drop must be in \[0, 1\], got 2"):
        make(torch.ones(2, 2), drop=2)
    with pytest.raises(ValueError, match=r"replaces the network's last Linear .*, here it replaces nothing"):
        ProbabilityGuidedMaxout((4,))
    with pytest.raises(ValueError, match="here it replaces a ReLU"):
        ProbabilityGuidedMaxout((4,), host=nn.ReLU())
