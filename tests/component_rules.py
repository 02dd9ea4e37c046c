"""What every placed module must stand: bf16 autocast, channels_last, a copy after a pass, its state read back, one graph."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn


def check_rules(build: Callable[[], nn.Module], *inputs: Tensor, fullgraph: bool = True) -> None:
    """`build()` makes the module; `inputs` are what its forward is given, fp32, the first with gradient."""
    torch.manual_seed(0)
    module = build().train()
    x, *rest = inputs
    x = x.detach().clone().requires_grad_()
    y = module(x, *rest)
    y.square().sum().backward()
    assert x.grad.isfinite().all() and all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())
    copied = copy.deepcopy(module)  # after a pass: what it keeps of the pass must not hinder

    with torch.no_grad():
        if x.ndim == 4:
            last = module(x.to(memory_format=torch.channels_last), *rest)
            assert last.ndim != 4 or last.is_contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert module(x, *rest).isfinite().all()

    other = build()
    other.load_state_dict(copied.state_dict())
    with torch.no_grad():
        expected = copied.eval()(x, *rest)
        assert torch.equal(other.eval()(x, *rest), expected)

    if fullgraph:
        torch._dynamo.reset()
        compiled = torch.compile(copied, backend="eager", fullgraph=True)
        assert torch.equal(compiled(x, *rest).detach(), expected)
        torch._dynamo.reset()


def close(found: Tensor, expected: Tensor, *, atol: float = 1e-9) -> None:
    torch.testing.assert_close(found.detach(), expected, rtol=1e-9, atol=atol)
