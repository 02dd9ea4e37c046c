"""Layer-wise relevance propagation (Bach et al., PLOS ONE 2015).   Legend: B batch, C channels, H, W image size."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from attnlab.explainers.attribution import channel_sum, score_gradient
from attnlab.explainers.guided_backprop import POOLS

Rule = Literal["epsilon", "gamma", "alpha1beta0"]
MEANS = (F.avg_pool2d, F.adaptive_avg_pool2d, torch.mean, Tensor.mean)
POINTWISE = (F.silu, F.gelu, F.hardswish, F.mish, F.elu, F.leaky_relu)
GATES = (torch.sigmoid, Tensor.sigmoid, F.sigmoid, F.hardsigmoid, torch.softmax, Tensor.softmax, F.softmax)
PRODUCTS = (torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__)


class LRP:
    """R_i = sum_j x_i w'_ij / (z'_j + epsilon sign z'_j) R_j,  z'_j = sum_i x_i w'_ij + b_j, from R = y_c, the class's logit, down.

    In convolutions w' is  epsilon: w;  gamma: w + gamma max(w, 0);  alpha1beta0: max(w, 0);  elsewhere w. A BatchNorm right after a
    convolution is merged with it first, another one is a linear layer. ReLUs pass relevance on, max-pools give it to the winner, means and
    sums share it in proportion. Beyond the paper: outputs of sigmoid and softmax (gates, attention) count as constants, so what they scale
    gets the whole relevance, as in LRP of LSTMs (Arras et al., 2017); a product of two values that both depend on the image shares it in
    halves; SiLU, GELU and their like pass it on; any other function does by gradient x value.

    The map is the sum over channels, signed; scores rank by magnitude (`signed`). The sum over the image is y_c less what biases and
    epsilon absorb. With the epsilon rule and epsilon -> 0 a ReLU network's attribution is input x gradient.

    Args:
        rule: of the convolutions.
        epsilon: of every layer, pools and means too.
        gamma: of the gamma rule; 0.25 is captum's.
        zero_bias: leave b out of z' (captum's `set_bias_to_zero`): no relevance is absorbed. To be preferred with gamma and alpha1beta0,
            whose z' a negative bias can bring near 0.

    Numbers are captum's where captum can go; it knows modules only, and adds relevance twice where a residual block adds two values, so
    it would be wrong on every ResNet here. Here functions are met where they are computed, as modules or not, in place or not. alpha1beta0
    clamps weights only, as captum's: it is the paper's rule where a layer's input is not negative, as every one's but the first's.
    Raises ValueError: unknown rule, epsilon <= 0, gamma < 0.
    """

    signed = True

    def __init__(self, *, rule: Rule = "epsilon", epsilon: float = 1e-9, gamma: float = 0.25, zero_bias: bool = False) -> None:
        if rule not in get_args(Rule):
            raise ValueError(f"rule must be one of {', '.join(get_args(Rule))}, got {rule!r}")
        if not epsilon > 0 or not gamma >= 0:
            raise ValueError(f"epsilon must be positive and gamma at least 0, got {epsilon} and {gamma}")
        self.rule, self.epsilon, self.gamma, self.zero_bias = rule, epsilon, gamma, zero_bias

    def attribute(self, network: nn.Module, x_BCHW: Tensor, target_B: Tensor) -> Tensor:
        """(B, C, H, W), signed."""
        with RelevanceRules(self):
            return x_BCHW * score_gradient(network, x_BCHW, target_B)

    def explain(self, network: nn.Module, x_BCHW: Tensor, target_B: Tensor) -> Tensor:
        return channel_sum(self.attribute(network, x_BCHW, target_B))


class Convolution(NamedTuple):
    """The convolution that was computed last: its output and what it was computed from."""

    output: Tensor
    function: Callable
    x: Tensor
    weight: Tensor
    bias: Tensor | None
    further: tuple
    named: dict


class RelevanceRules(TorchFunctionMode):
    """While it is entered, every function gives its own value and a gradient g such that value x g is the relevance of the rules."""

    def __init__(self, lrp: LRP) -> None:
        super().__init__()
        self.lrp, self.last = lrp, None

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func is F.conv2d:
            self.last = self.convolution(func, *args, **kwargs)
            return self.last.output
        if func is F.linear:
            return self.linear(*args, **kwargs)
        if func is F.batch_norm:
            return self.batch_norm(*args, **kwargs)
        if func in GATES:
            return func(*args, **kwargs).detach()
        if func in POINTWISE:
            x = args[0]
            value = func(x.clone(), *args[1:], **kwargs)  # a copy: it may work in place
            return _with_gradient_of(value, x * (value / torch.where(x == 0, 1, x)).detach())
        result = func(*args, **kwargs)
        if func in MEANS:
            return self.shared(result, result)
        if func in POOLS:
            return (self.shared(result[0], result[0]), *result[1:]) if isinstance(result, tuple) else self.shared(result, result)
        if func in PRODUCTS and all(isinstance(factor, Tensor) and factor.requires_grad for factor in args):
            return _with_gradient_of(result, result / 2)
        return result

    def shared(self, value: Tensor, z: Tensor) -> Tensor:
        """`value` with the gradient of z * value / (z + epsilon sign z), the quotient a constant."""
        z_fixed = z.detach()
        stabilised = z_fixed + self.lrp.epsilon * torch.where(z_fixed < 0, -1, 1).to(z)
        return _with_gradient_of(value, z * (value.detach() / stabilised))

    def convolution(
        self, func: Callable, x: Tensor, weight: Tensor, bias: Tensor | None = None, *further: Any, **named: Any
    ) -> Convolution:
        value = func(x, weight, bias, *further, **named)
        rule_weight = weight
        if self.lrp.rule != "epsilon":
            positive = weight.clamp(min=0)
            rule_weight = positive if self.lrp.rule == "alpha1beta0" else weight + self.lrp.gamma * positive
        same = rule_weight is weight and (bias is None or not self.lrp.zero_bias)
        z = value if same else func(x, rule_weight, None if self.lrp.zero_bias else bias, *further, **named)
        return Convolution(self.shared(value, z), func, x, weight, bias, further, named)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        value = F.linear(x, weight, bias)
        return self.shared(value, F.linear(x, weight) if self.lrp.zero_bias and bias is not None else value)

    def batch_norm(
        self,
        x: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        value = F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
        if training or running_mean is None or running_var is None:
            return self.shared(value, value)
        scale = (1 if weight is None else weight) / (running_var + eps).sqrt()
        shift = (0 if bias is None else bias) - running_mean * scale
        if self.last is not None and self.last.output is x:
            conv = self.last
            shift = shift if conv.bias is None else shift + conv.bias * scale
            return self.convolution(
                conv.function, conv.x, conv.weight * scale[:, None, None, None], shift, *conv.further, **conv.named
            ).output
        return self.shared(value, x * scale[None, :, None, None] if self.lrp.zero_bias and x.ndim == 4 else value)


def _with_gradient_of(value: Tensor, other: Tensor) -> Tensor:
    return value.detach() + (other - other.detach())
