"""Guided backpropagation (Springenberg et al., 1412.6806).   Legend: B batch, C channels, H, W image size, h, w size of a feature map."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from attnlab.explainers.attribution import channel_sum, score_gradient

PoolRule = Literal["clean", "authors", "none"]
RELUS = (F.relu, F.relu6, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_)
POOLS = (torch.max_pool2d, F.max_pool2d, F.max_pool2d_with_indices)


class GuidedBackprop:
    """attribution = dy_c / dx where every ReLU lets only positive gradients through,  R_in = 1[in > 0] max(R_out, 0).

    The map is its sum over channels, signed; scores rank by magnitude (`signed`). It shows edges more than it shows the class (Adebayo et
    al., 1810.03292): see `class_sensitivity`.

    ReLUs are met where they are computed, as modules or functions (`F.relu`, `x.relu()`), in place or not, used once or often; captum and
    the authors know modules only. Raises ValueError: a network that computes no ReLU.
    """

    signed = True

    def attribute(self, network: nn.Module, x_BCHW: Tensor, target_B: Tensor) -> Tensor:
        """(B, C, H, W), signed."""
        return guided_gradient(network, x_BCHW, target_B)

    def explain(self, network: nn.Module, x_BCHW: Tensor, target_B: Tensor) -> Tensor:
        return channel_sum(self.attribute(network, x_BCHW, target_B))


def guided_gradient(network: nn.Module, x_BCHW: Tensor, target_B: Tensor, *, pool_rule: PoolRule = "none") -> Tensor:
    """`score_gradient` with the rule for ReLUs and, by `pool_rule`, for max-pools (see GuidedNonLinearity)."""
    with GuidedRules(pool_rule) as rules:
        found = score_gradient(network, x_BCHW, target_B)
    if not rules.num_relus:
        raise ValueError("guided gradients need a network with ReLUs, this one computes none: choose gradient or ig")
    return found


class GuidedRules(TorchFunctionMode):
    """While it is entered, the gradients of ReLUs and max-pools follow the rules. Its hooks are on values, not on modules: none stays."""

    def __init__(self, pool_rule: PoolRule) -> None:
        super().__init__()
        self.pool_rule, self.num_relus = pool_rule, 0

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func in RELUS or (func is F.hardtanh and (args[1] if len(args) > 1 else kwargs.get("min_val")) == 0):  # nn.ReLU6
            self.num_relus += 1
            return _clamped(func(*args, **kwargs))
        if func not in POOLS or self.pool_rule == "none":
            return func(*args, **kwargs)
        if self.pool_rule == "clean":
            result = func(*args, **kwargs)
            _clamped(result[0] if isinstance(result, tuple) else result)
            return result
        return _masked(func, args, kwargs)


def _clamped(value: Tensor) -> Tensor:
    if value.requires_grad:
        value.register_hook(lambda gradient: gradient.clamp(min=0))
    return value


def _masked(func: Callable, args: tuple, kwargs: dict) -> Any:
    """A max-pool whose input's gradient is kept where the nearest-upsampled gradient of its output is positive."""
    inner, positive = args[0].clone(), []  # a copy: the rule is for the pool's share of the gradient, not for other uses of its input
    result = func(inner, *args[1:], **kwargs)
    value = result[0] if isinstance(result, tuple) else result
    if value.requires_grad:
        value.register_hook(lambda gradient: positive.append((gradient > 0).to(gradient.dtype)))
        inner.register_hook(lambda gradient: gradient * F.interpolate(positive.pop(), size=gradient.shape[2:], mode="nearest"))
    return result
