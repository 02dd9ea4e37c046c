"""ReLUs that write over their input where nothing else can hold it: a copy of every activation less, the same bits."""

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def activate(relu: nn.Module, x: Tensor, *made_by: nn.Module) -> Tensor:
    """`relu(x)`, in place where that cannot be seen.

    x: a value that the caller has just made, or that the modules `made_by` have, and hands on to nobody else. It is kept where somebody may
    hold it: a hook at `made_by` or at `relu` (placed modules, recorders, explainers, `register_forward_hook`), or another module in the
    stead of a BatchNorm or of the ReLU, whose backward pass may need it. Compiled, the compiler decides.
    """
    if torch.compiler.is_compiling() or torch_module._has_any_global_hook():
        return relu(x)
    if type(relu) is not nn.ReLU or _hooked(relu) or any(type(module) is not nn.BatchNorm2d or _hooked(module) for module in made_by):
        return relu(x)
    return torch.relu_(x)


def _hooked(module: nn.Module) -> bool:
    return any(getattr(module, name) for name in HOOKS)


class Chain(nn.Sequential):
    """nn.Sequential whose ReLUs are `activate`d after a BatchNorm."""

    def forward(self, x: Tensor) -> Tensor:
        before = None
        for module in self:
            x = activate(module, x, before) if type(module) is nn.ReLU and type(before) is nn.BatchNorm2d else module(x)
            before = module
        return x
