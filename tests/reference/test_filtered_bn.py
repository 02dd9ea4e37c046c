"""Filtered batch norm against the numbers of the authors' three classes, and batch norm itself, in fp64."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from attnlab.network import Network
from attnlab.regularizers.filtered_bn import FilteredBatchNorm1d, FilteredBatchNorm2d, filtered_moments
from tests.golden_numbers import golden

CLOSE = {"rtol": 1e-9, "atol": 1e-10}


def with_weights(module: nn.Module, gold: dict[str, Tensor]) -> nn.Module:
    module.double()
    module.load_state_dict({"weight": gold["gamma"], "bias": gold["beta"]}, strict=False)
    return module


@pytest.mark.parametrize("threshold", [4, 2])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_equals_the_authors_first_class(threshold: int, memory_format: torch.memory_format) -> None:
    gold = golden("components", "fbn_")
    x = gold["x"].contiguous(memory_format=memory_format).requires_grad_()
    module = with_weights(FilteredBatchNorm2d((4, 5, 5), threshold=float(threshold), eval_stats="batch"), gold)
    y = module(x)
    assert y.is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(y, gold[f"y_T{threshold}"], **CLOSE)
    y.backward(gold["gy"])
    for found, key in ((x, "gx"), (module.weight, "ggamma"), (module.bias, "gbeta")):
        torch.testing.assert_close(found.grad, gold[f"{key}_T{threshold}"], **CLOSE)
    found = filtered_moments(gold["x"], (0, 2, 3), threshold=threshold, eps=1e-10, correction=0)
    for value, key in zip(found, ("mean", "var", "nsel")):
        torch.testing.assert_close(value.flatten(), gold[f"{key}_T{threshold}"].double(), **CLOSE)
    torch.testing.assert_close(module.eval()(gold["x"]), gold[f"y_T{threshold}"], **CLOSE)


def test_equals_the_authors_class_with_running_statistics() -> None:
    first, gold = golden("components", "fbn_"), golden("components", "fbnm_")
    module = with_weights(FilteredBatchNorm2d((4, 5, 5), threshold=2.0, eps=1e-5, correction=1), first)
    for t in range(2):
        x = gold[f"x{t}"].requires_grad_()
        y = module(x)
        torch.testing.assert_close(y, gold[f"y{t}"], **CLOSE)
        (gx,) = torch.autograd.grad(y, x, first["gy"])
        torch.testing.assert_close(gx, gold[f"gx{t}"], **CLOSE)
        torch.testing.assert_close(module.running_mean, gold[f"rmean{t}"], **CLOSE)
        torch.testing.assert_close(module.running_var, gold[f"rvar{t}"], **CLOSE)
    torch.testing.assert_close(module.eval()(first["x"]), gold["y_eval"], **CLOSE)


def test_equals_the_authors_class_for_vectors() -> None:
    gold = golden("components", "fbn1d_")
    x = gold["x"].requires_grad_()
    y = FilteredBatchNorm1d((6,), per="tensor", correction=1).double()(x)
    torch.testing.assert_close(y, gold["y_T4"], **CLOSE)
    (gx,) = torch.autograd.grad(y, x, gold["gy"])
    torch.testing.assert_close(gx, gold["gx_T4"], **CLOSE)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), momentum=st.sampled_from([0.1, 0.3, None]), vectors=st.booleans())
def test_without_a_threshold_it_is_batch_norm(seed: int, momentum: float | None, vectors: bool) -> None:
    torch.manual_seed(seed)
    shape = (3,) if vectors else (3, 2, 4)
    make, norm = (FilteredBatchNorm1d, nn.BatchNorm1d) if vectors else (FilteredBatchNorm2d, nn.BatchNorm2d)
    reference = norm(3, momentum=momentum).double()
    nn.init.normal_(reference.weight)
    module = make(shape, threshold=float("inf"), eps=1e-5, momentum=momentum).double()
    module.load_state_dict(reference.state_dict())
    for _ in range(3):
        x = torch.randn(5, *shape, dtype=torch.float64, requires_grad=True)
        y, expected, gy = module(x), reference(x), torch.randn(5, *shape, dtype=torch.float64)
        torch.testing.assert_close(y, expected)
        torch.testing.assert_close(torch.autograd.grad(y, x, gy), torch.autograd.grad(expected, x, gy))
    torch.testing.assert_close(module.state_dict(), reference.state_dict())
    torch.testing.assert_close(module.eval()(x), reference.eval()(x))


def test_an_outlier_does_not_move_the_others() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 2, 4, 4, dtype=torch.float64)
    module = FilteredBatchNorm2d((2, 4, 4)).double()
    before = module(x)
    x[0, 0, 0, 0] = 1e6
    after = module(x)
    assert (after - before)[1:].abs().max() < 0.01 and after[0, 0, 0, 0] > 1e5
    assert nn.BatchNorm2d(2).double()(x)[1:, 0].abs().max() < 0.04  # what batch norm leaves of that channel


def test_the_choice_is_by_the_unbiased_deviation() -> None:
    """Of 0, 0, 3 the last lies 2 / sqrt(3) = 1.15 unbiased deviations from the mean, 1.41 biased ones."""
    x = torch.tensor([0.0, 0, 3], dtype=torch.float64)
    for threshold, count in ((1.2, 3), (1.1, 2)):
        assert filtered_moments(x, (0,), threshold=threshold, eps=1e-10, correction=0)[2] == count
    mean, var, count = filtered_moments(x, (0,), threshold=0.1, eps=1e-10, correction=0)  # where nothing passes
    assert (mean, var, count) == (0, 0, 0)


def test_replaces_norms_with_their_weights_and_names() -> None:
    backbone = nn.Sequential()
    backbone.add_module("conv", nn.Conv2d(3, 4, 3))
    backbone.add_module("bn", nn.BatchNorm2d(4))
    nn.init.normal_(backbone.bn.weight)
    backbone.bn.running_mean.normal_()
    state = copy.deepcopy(backbone.state_dict())
    Network(backbone, {"fbn": {"at": "bn", "how": "replace", "module": FilteredBatchNorm2d}}, shape=(3, 6, 6))
    assert isinstance(backbone.bn, FilteredBatchNorm2d)
    torch.testing.assert_close(backbone.state_dict(), state, rtol=0, atol=0)


def test_half_precision_constant_channels_and_tracing() -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 3, 4, 4)
    x[:, 1] = 3.0
    module = FilteredBatchNorm2d((3, 4, 4))
    other = copy.deepcopy(module)
    y = module(x)
    assert y.isfinite().all() and y[:, 1].abs().max() < 1e-3
    assert torch.equal(torch.compile(other, backend="eager", fullgraph=True)(x), y) and torch.equal(other.running_var, module.running_var)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = module(x.bfloat16())
    assert half.dtype == torch.bfloat16 and module.running_mean.dtype == torch.float32
    torch.testing.assert_close(half[:, 0].float(), y[:, 0], atol=0.05, rtol=0.05)


def test_wrong_values() -> None:
    class WithActivation(nn.BatchNorm2d):
        def __init__(self) -> None:
            super().__init__(3)
            self.act = nn.ReLU()

    for options, match in (
        ({"threshold": 0.0}, "threshold must be above 0"),
        ({"correction": 2}, "correction must be 0 or 1"),
        ({"eval_stats": "none"}, "eval_stats must be running or batch"),
        ({"host": nn.Conv2d(3, 3, 1)}, "replaces a norm, here it would replace a Conv2d"),
        ({"host": WithActivation()}, "would lose the ReLU inside the WithActivation"),
        ({"shape": (3,)}, "for vectors there is FilteredBatchNorm1d"),
    ):
        with pytest.raises(ValueError, match=match):
            FilteredBatchNorm2d(**{"shape": (3, 4, 4)} | options)
    with pytest.raises(ValueError, match="more than one value a channel"):
        FilteredBatchNorm2d((3, 1, 1))(torch.randn(1, 3, 1, 1))
    with pytest.raises(ValueError, match="per must be feature or tensor"):
        FilteredBatchNorm1d((3,), per="row")
