"""Final batch norm against the golden numbers (BatchNorm1d on logits, momentum .01) and by hand, in fp64."""

import pytest
import torch
from torch import nn

from attnlab.network import Network
from attnlab.regularizers.final_bn import FinalBatchNorm
from tests.golden_numbers import golden

CLOSE = {"rtol": 1e-9, "atol": 1e-12}


def test_equals_the_golden_numbers() -> None:
    gold = golden("components", "fbnhead_")
    module = FinalBatchNorm((len(gold["weight"]),)).double()
    module.load_state_dict({"weight": gold["weight"], "bias": gold["bias"]}, strict=False)
    x = gold["x"].requires_grad_()
    out = module(x)
    torch.testing.assert_close(out, gold["out"], **CLOSE)
    loss = nn.functional.cross_entropy(out, gold["y"])
    torch.testing.assert_close(loss, gold["loss"], **CLOSE)
    torch.testing.assert_close(torch.autograd.grad(loss, x)[0], gold["gx"], **CLOSE)
    torch.testing.assert_close(module.running_mean, gold["rmean"], **CLOSE)
    torch.testing.assert_close(module.running_var, gold["rvar"], **CLOSE)
    normal = (gold["x"] - gold["rmean"]) / (gold["rvar"] + 1e-5).sqrt()  # fbnhead_eval is of inputs that are not in the file
    torch.testing.assert_close(module.eval()(gold["x"]), gold["weight"] * normal + gold["bias"], **CLOSE)


def test_with_the_batchs_own_statistics_in_eval() -> None:
    torch.manual_seed(0)
    module = FinalBatchNorm((3,), eval_stats="batch", eps=0.1).double()
    nn.init.normal_(module.weight)
    x = torch.randn(8, 3, dtype=torch.float64) * 4 + 2
    in_training = module(x)
    running = module.running_mean.clone()
    torch.testing.assert_close(module.eval()(x), in_training)
    torch.testing.assert_close(in_training, module.weight * (x - x.mean(0)) / (x.var(0, correction=0) + 0.1).sqrt())
    assert torch.equal(module.running_mean, running)


def test_on_the_logits_of_a_network_features_stay_as_they_are() -> None:
    torch.manual_seed(0)
    backbone = nn.Sequential()
    backbone.add_module("features", nn.Identity())
    backbone.add_module("fc", nn.Linear(5, 3))
    network = Network(backbone, {"final_bn": {"at": "fc", "module": FinalBatchNorm}}, shape=(5,))
    x = torch.randn(16, 5)
    out = network(x)
    assert torch.equal(out.features, x) and isinstance(out.fc, nn.Linear)
    torch.testing.assert_close(out.logits.mean(0), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(out.logits.var(0, correction=0), torch.ones(3), atol=1e-3, rtol=0)


def test_traces() -> None:
    module, x = FinalBatchNorm((3,)), torch.randn(8, 3)
    assert torch.equal(torch.compile(module, backend="eager", fullgraph=True)(x), FinalBatchNorm((3,))(x))


def test_wrong_values() -> None:
    for options, match in (
        ({"momentum": 0.0}, r"momentum must be in \(0, 1\], got 0"),
        ({"eps": 0.0}, "eps must be above 0"),
        ({"eval_stats": "none"}, "eval_stats must be running or batch"),
        ({"shape": (3, 4, 4)}, r"final_bn needs a place of shape \(D,\), .*got \(3, 4, 4\); it stands after fc or features"),
    ):
        with pytest.raises(ValueError, match=match):
            FinalBatchNorm(**{"shape": (3,)} | options)
