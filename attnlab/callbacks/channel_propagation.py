"""DCP: train with the most useful channels only.   Shapes: B batch, C channels of a layer, N of all layers together, H, W."""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from attnlab.config.suggest import nearest
from attnlab.placement.places import matches

if TYPE_CHECKING:
    from attnlab.training.learner import Learner


class ChannelPropagation:
    """Dynamic channel propagation (Shen et al., "Learning to prune in training", arXiv 2007.01486): every channel has a utility, and only
    the more useful ones take part in a step.

        m = 1[u > sorted(u)[round(N p)]]                     over all layers together; all ones during the warm-up
        y = m a                                              a: what a batch norm gives, before the activation
        v_c = mean_b |sum_hw a dL/da| / max over the layer   the loss's change without the channel, to first order
        u_c <- (d u_c if m_c = 1, else u_c) + v_c            after every step

    What is tested is a plain network that equals the masked one: masked channels' batch norms have weight and bias 0.

    Args:
        rate: p, the share of channels that are left out, in [0, 1). The paper: 0.42 for CIFAR-10.
        decay: d, in [0, 1]. The released CIFAR scripts: 0.6 throughout; the paper raises it with the learning rate's milestones.
        warmup: fraction of training with all channels, in [0, 1]. The paper: 10 of 200 epochs.
        at: globs over the backbone's batch norms. The authors: every one of a VGG, the first of each basic block of a ResNet.

    Raises ValueError: a value out of range; a glob that names no batch norm with weights.
    Differs from the authors' code in: a layer that would lose all channels keeps its most useful ones; a layer whose gradients are all 0
    (or overflow, with 16-mixed) adds nothing instead of NaN; the exported network has the masked channels' running statistics and biases
    right; utilities start at 0 (there 1 / C in a ResNet, which the decay takes away within the warm-up). N - round(N p) - 1 channels are
    kept, as in the code, since the comparison is strict. Logged: `channels/kept`, a share.
    """

    every = 1
    single = True

    def __init__(self, *, rate: float = 0.42, decay: float = 0.6, warmup: float = 0.05, at: Sequence[str] = ("**",)) -> None:
        if not 0 <= rate < 1 or not 0 <= decay <= 1 or not 0 <= warmup <= 1:
            raise ValueError(f"rate must be in [0, 1), decay and warmup in [0, 1], got {rate}, {decay} and {warmup}")
        self.rate, self.decay, self.warmup = rate, decay, warmup
        self.at = [at] if isinstance(at, str) else list(at)

    def on_fit_start(self, learner: "Learner") -> None:
        norms = {
            name: module
            for name, module in learner.network.backbone.named_modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine
        }
        for pattern in self.at:
            if not matches(pattern, list(norms)):
                raise ValueError(f"callback channel_propagation.at: no batch norm matches {pattern!r}; {nearest(pattern, norms)}")
        chosen = {name: norms[name] for pattern in self.at for name in matches(pattern, list(norms))}
        self.masks = {name: ChannelMask(module.weight) for name, module in chosen.items()}
        for name, module in chosen.items():
            module.register_forward_hook(self.masks[name], prepend=True)
        self.sizes = [module.num_features for module in chosen.values()]
        self.utility_N = torch.cat([torch.zeros_like(mask.mask_C) for mask in self.masks.values()])

    @torch.no_grad()
    def on_step(self, learner: "Learner", step: int) -> None:
        layers = list(self.masks.values())
        taylor: Sequence[Tensor] = [layer.take() for layer in layers]
        if learner.settings.world_size > 1:
            together_N = torch.cat(taylor)
            torch.distributed.all_reduce(together_N)  # every process must find the same masks
            taylor = together_N.split(self.sizes)
        mask_N = torch.cat([layer.mask_C for layer in layers])
        self.utility_N = updated(self.utility_N, mask_N, taylor, decay=self.decay)
        if step >= self.warmup * learner.total_steps:
            for layer, mask_C in zip(layers, masks_of(self.utility_N, self.sizes, rate=self.rate)):
                layer.mask_C.copy_(mask_C)

    def on_epoch_end(self, learner: "Learner", row: dict[str, float]) -> None:
        row["channels/kept"] = float(torch.cat([layer.mask_C for layer in self.masks.values()]).mean())

    @torch.no_grad()
    def tested(self, network: nn.Module) -> nn.Module:
        """A copy whose batch norms give 0 where a channel is masked."""
        plain = copy.deepcopy(network)
        for name, layer in self.masks.items():
            module = plain.backbone.get_submodule(name)
            for key, hook in list(module._forward_hooks.items()):
                if isinstance(hook, ChannelMask):
                    del module._forward_hooks[key]
            module.weight.mul_(layer.mask_C)
            module.bias.mul_(layer.mask_C)
        return plain

    def state_dict(self) -> dict[str, Any]:
        return {"utility": self.utility_N, "masks": {name: layer.mask_C for name, layer in self.masks.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.utility_N = state["utility"].to(self.utility_N.device)
        for name, layer in self.masks.items():
            layer.mask_C.copy_(state["masks"][name])


def updated(utility_N: Tensor, mask_N: Tensor, taylor: Sequence[Tensor], *, decay: float) -> Tensor:
    """Utilities after a step, from each layer's mean |sum a dL/da| (C,)."""
    peaks = [value_C.max() for value_C in taylor]
    value_N = torch.cat([torch.where((peak > 0) & peak.isfinite(), value_C / peak, 0) for value_C, peak in zip(taylor, peaks)])
    return torch.where(mask_N > 0, decay * utility_N, utility_N) + value_N * mask_N


def masks_of(utility_N: Tensor, sizes: Sequence[int], *, rate: float) -> list[Tensor]:
    """Which channels take part, 0 or 1, a tensor (C,) a layer."""
    threshold = utility_N.sort().values[min(round(len(utility_N) * rate), len(utility_N) - 1)]
    return [((u_C > threshold) | (u_C >= u_C.max()) & (u_C.max() <= threshold)).to(u_C.dtype) for u_C in utility_N.split(list(sizes))]


class ChannelMask:
    """A forward hook: channels times `mask_C`. Where the pass is trained, the gradient of `sink_C` becomes mean_b |sum_hw a dL/da|.

    Copies of the network share it: there is one set of masks.
    """

    def __init__(self, like_C: Tensor) -> None:
        self.mask_C = torch.ones_like(like_C, requires_grad=False)
        self.sink_C = torch.zeros_like(like_C, requires_grad=True)

    def __call__(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        return _Masked.apply(output, self.mask_C, self.sink_C)

    def take(self) -> Tensor:
        """What the sink has been given since the last time."""
        found, self.sink_C.grad = self.sink_C.grad, None
        return torch.zeros_like(self.mask_C) if found is None else found

    def __deepcopy__(self, memo: dict) -> "ChannelMask":
        return self


class _Masked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a_BCHW: Tensor, mask_C: Tensor, sink_C: Tensor) -> Tensor:
        ctx.save_for_backward(a_BCHW, mask_C)
        return a_BCHW * _over_channels(mask_C, a_BCHW)

    @staticmethod
    def backward(ctx: Any, grad_BCHW: Tensor) -> tuple[Tensor, None, Tensor]:
        a_BCHW, mask_C = ctx.saved_tensors
        grad_BCHW = grad_BCHW * _over_channels(mask_C, grad_BCHW)
        taylor_BC = (a_BCHW * grad_BCHW).flatten(2).sum(2) if a_BCHW.ndim > 2 else a_BCHW * grad_BCHW
        return grad_BCHW, None, taylor_BC.abs().mean(0).to(mask_C.dtype)


def _over_channels(mask_C: Tensor, like: Tensor) -> Tensor:
    return mask_C.to(like.dtype).view(-1, *[1] * (like.ndim - 2))
