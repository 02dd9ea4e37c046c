"""WeightAlign: convolutions whose filters have mean 0 and the variance of He's rule, by construction."""
# O filters, I input channels a group, k kernel; n = I k k entries of a filter

import torch
from torch import Tensor, nn


class WeightAlign(nn.Conv2d):
    """A convolution that normalises its filters instead of its activations (WA; Shi et al., arXiv 2010.07160).

        w_o  <-  gain_o (w_o - mean w_o) / sqrt(n / 2 var w_o + eps),   mean and var over the n entries of filter o

    so that a filter has mean 0 and variance 2 gain^2 / n, whatever the stored weights; gain is learnt, 1 at first. The same in training and
    eval; no batch statistics. A convolution with one entry a filter (1 x 1 of one channel) has no variance and is only scaled.

    It stands in the place of an nn.Conv2d (`how: replace`) and keeps its weight, bias and settings, under their names, with `gain` beside
    them; an optimizer group of this component holds them all. Under the network's norms it is the paper's WA+BN, with
    `regularizer=[weight_align,group_norm]` WA+GN, with `[weight_align,no_norm]` WA alone.

    Established (abstract and page): zero mean and controlled variance per filter, a learnt scale, use alone or with BN, IN, LN or GN. Our
    reading: the factor n / 2 (He's condition), var with divisor n, eps = 1e-5, all convolutions. Measured: alone, power falls by 1 - 1 / pi
    a layer of a plain ReLU network, since a filter of mean 0 does not see the mean of its inputs (the weights of NFNets have that factor
    in their gain), and grows over residual blocks, whose variances add up: then start with a small learning rate.

    Args:
        shape: (C, H, W) of the input. host: the convolution that is replaced; both filled in by the placement.
        eps: > 0, added to the scaled variance.

    Shapes: as the host's. Raises ValueError for an eps of 0 or less, or a host that is no plain nn.Conv2d.
    """

    def __init__(self, shape: tuple[int, ...], *, host: nn.Module | None = None, eps: float = 1e-5) -> None:
        if type(host) is not nn.Conv2d:
            found = "nothing" if host is None else f"a {type(host).__name__}"
            raise ValueError(f"weight_align replaces an nn.Conv2d (how: replace), here it would replace {found}; name convolutions in `at`")
        if not eps > 0:
            raise ValueError(f"eps must be above 0, got {eps}")
        settings = {name: getattr(host, name) for name in ("stride", "padding", "dilation", "groups", "padding_mode")}
        super().__init__(host.in_channels, host.out_channels, host.kernel_size, bias=host.bias is not None, device="meta", **settings)
        self.weight, self.bias = host.weight, host.bias
        self.gain = nn.Parameter(torch.ones(host.out_channels, device=host.weight.device, dtype=host.weight.dtype))
        self.eps = eps

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self._conv_forward(x_BCHW, aligned(self.weight, self.gain, eps=self.eps), self.bias)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, eps={self.eps}"


def aligned(weight: Tensor, gain_O: Tensor, *, eps: float) -> Tensor:
    """The filters (O, I, k, k) with mean 0 and variance 2 gain^2 / n over their n entries."""
    gain = gain_O.view(-1, *[1] * (weight.ndim - 1))
    entries = weight[0].numel()
    if entries < 2:
        return gain * weight
    var, mean = torch.var_mean(weight, tuple(range(1, weight.ndim)), correction=0, keepdim=True)
    return (weight - mean) * (gain * torch.rsqrt(entries / 2 * var + eps))
