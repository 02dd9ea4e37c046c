"""Shift attention layer: a convolution whose taps compete until one a channel is left, which is a shift."""
# B batch, C channels, H height, W width, O output channels, T taps = kernel height times width, L positions of the output

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlab.convolutions.host import Geometry, geometry_of, output_size


class ShiftAttentionConv2d(nn.Module):
    """Attention-based pruning to a shift layer (Hacene et al., arXiv 1905.12300), in the stead of a Conv2d and with its weights.

        p_c = softmax_t( A_c / std(A_c) / temperature ),   effective kernel w'_oct = w_oct p_ct

    In training the temperature falls geometrically, start (end / start)^progress; evaluation uses the last one, which is a buffer. At its
    end p is nearly one-hot, and `hardened()` (of a network: `harden`) gives the layer that is left: one shift of each input channel,
    then a 1x1 convolution.

    Our reading: the authors' code was not found. Established: taps gated by a softmax that is sharpened to one tap. Remembered: A / std(A)
    and both temperatures, 6.7 and .02. Ours: one A for each input channel, shared by the outputs, as a shift layer needs; A ~ N(0, 1) at
    the start; std with divisor T. At the start p is about 1 / T, so outputs are that much smaller than the displaced convolution's: a
    BatchNorm has to follow. Weight decay on A changes nothing forward but its step: optimizer.groups.shift_attention.weight_decay=0.

    shape: (C, H, W) of the input; host: the displaced Conv2d, without groups, of more than one tap. start, end: > 0.
    `.statistics`: sharpness, the mean over channels of max_t p_ct, in [1 / T, 1]; hardening is exact at 1.
    Raises ValueError for another host and for temperatures.
    """

    def __init__(self, shape: tuple[int, ...], *, host: nn.Module, start: float = 6.7, end: float = 0.02):
        super().__init__()
        self.geometry = geometry_of(host, who="a shift attention layer")
        if host.weight[0, 0].numel() < 2:
            raise ValueError("a shift attention layer needs a kernel of more than one tap, got 1x1; choose other places")
        for name, value in {"start": start, "end": end}.items():
            if not 0 < value < float("inf"):
                raise ValueError(f"{name} must be a temperature above 0, got {value}")
        self.start, self.end = start, end
        self.weight, self.bias = host.weight, host.bias
        self.taps = nn.Parameter(torch.randn(host.in_channels, host.weight[0, 0].numel()))
        self.register_buffer("temperature", torch.tensor(float(start)))
        self.statistics: dict[str, Tensor] = {}

    def selection(self, temperature: Tensor) -> Tensor:
        """p: (C, T), rows sum to 1."""
        std_C1 = self.taps.std(1, correction=0, keepdim=True).clamp_min(1e-6)
        return (self.taps / std_C1 / temperature).softmax(1)

    def forward(self, x_BCHW: Tensor, progress: Tensor | None = None) -> Tensor:
        temperature = self.temperature
        if self.training and progress is not None:
            temperature = (self.start * (self.end / self.start) ** progress).to(self.temperature.dtype)
            self.temperature.copy_(temperature)
        with torch.autocast(x_BCHW.device.type, enabled=False):
            p_CT = self.selection(temperature)
            weight_OCkk = self.weight * p_CT.view(1, len(p_CT), *self.geometry["kernel_size"])
        self.statistics = {"sharpness": p_CT.detach().amax(1).mean()}
        options = {key: self.geometry[key] for key in ("stride", "padding", "dilation")}
        return F.conv2d(x_BCHW, weight_OCkk, self.bias, **options)

    @torch.no_grad()
    def hardened(self) -> "ShiftConv2d":
        """The layer with the largest tap of each channel alone: C O weights and C shifts."""
        tap_C = self.taps.argmax(1)
        weight_OC11 = self.weight.flatten(2).gather(2, tap_C[None, :, None].expand(len(self.weight), -1, 1))[..., None]
        return ShiftConv2d(weight_OC11, tap_C, self.bias, geometry=self.geometry).train(self.training)

    def extra_repr(self) -> str:
        return f"{', '.join(map(str, self.weight.shape))}, start={self.start}, end={self.end}"

    def __getstate__(self):  # a copy takes the weights, not what it said of the last batch
        return {**super().__getstate__(), "statistics": {}}


class ShiftConv2d(nn.Module):
    """y = conv1x1(x shifted): each input channel is moved by its own tap of the kernel that was, with zeros at the border.

    weight_OC11: of the 1x1 convolution; tap_C: int64, row by row; geometry: of the kernel, whose stride and dilation are kept.
    """

    def __init__(self, weight_OC11: Tensor, tap_C: Tensor, bias_O: Tensor | None, *, geometry: Geometry):
        super().__init__()
        self.geometry = geometry
        self.weight = nn.Parameter(weight_OC11.detach().clone())
        self.bias = None if bias_O is None else nn.Parameter(bias_O.detach().clone())
        self.register_buffer("tap", tap_C.clone())

    def forward(self, x_BCHW: Tensor) -> Tensor:
        (high, wide), (down, right), width_k = self.geometry["padding"], self.geometry["stride"], self.geometry["kernel_size"][1]
        rows, columns = output_size(*x_BCHW.shape[2:], self.geometry)
        row_C, column_C = self.tap // width_k * self.geometry["dilation"][0], self.tap % width_k * self.geometry["dilation"][1]
        row_CH = row_C[:, None] + torch.arange(rows, device=x_BCHW.device) * down
        column_CW = column_C[:, None] + torch.arange(columns, device=x_BCHW.device) * right
        padded_BCHW = F.pad(x_BCHW, (wide, wide, high, high))
        place_CL = (row_CH[:, :, None] * padded_BCHW.shape[3] + column_CW[:, None]).flatten(1)
        shifted_BCL = padded_BCHW.flatten(2).gather(2, place_CL.expand(len(x_BCHW), -1, -1))
        return F.conv2d(shifted_BCL.unflatten(2, (rows, columns)), self.weight, self.bias)


def harden(network: nn.Module) -> list[str]:
    """Put shifts and 1x1 convolutions in the place of every shift attention layer of a trained network, for good; the places' names."""
    layers = {name: module for name, module in network.named_modules() if isinstance(module, ShiftAttentionConv2d)}
    for name, layer in layers.items():
        network.set_submodule(name, layer.hardened(), strict=True)
    return list(layers)
